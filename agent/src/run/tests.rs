#![allow(clippy::unwrap_used)]

use super::*;
use crate::fixture::{own, peers, plan, prefix};
use crate::identity::Identity;
use crate::index::Folded;
use crate::memory::Memory;
use crate::options::Options;
use crate::platform::Surroundings;
use crate::platform::fake::Fake;
use crate::reconcile::Constants;
use crate::store::Store;
use clap::Parser;
use std::collections::BTreeMap;
use tieline_core::health::Liveness;
use tieline_core::host::HostState;
use tieline_core::node::UnderlayDevice;
use tokio::time::timeout;

/// An agent whose loop runs, without an API server.
struct Running {
    _dir: tempfile::TempDir,
    servers: Sender<Vec<ApiServer>>,
    kernel: Fake,
    shared: Arc<Shared>,
    statements: Receiver<Option<Statement>>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn start() -> Running {
    let dir = tempfile::tempdir().unwrap();
    let underlay = UnderlayDevice {
        mtu: 1500,
        prefixes: vec![prefix("192.0.2.0/24")].into(),
    };
    let kernel = Fake::new(Surroundings {
        underlay: BTreeMap::from([("eth0".to_owned(), underlay)]),
        ..Surroundings::default()
    });
    let store = Store::open(dir.path()).unwrap();
    let identity = Identity::load_or_create(dir.path()).unwrap();
    let local = peers("a", &identity.public_keys());
    let shared = Arc::new(Shared::default());
    shared.fold(|index| {
        index
            .plans
            .reset(vec![Ok(("acme".to_owned(), Arc::new(plan(1))))]);
        index.local.reset(local.into_iter().map(Ok).collect());
        index.foreign.reset(Vec::new());
        Folded::Changed
    });
    let constants = Constants {
        first_port: 21820,
        fwmark: 0x1000,
        api_servers: Vec::new(),
    };
    let agent = Agent::new(
        kernel.clone(),
        identity,
        Memory::load(store),
        own("a"),
        constants,
    );
    let settings = Options::try_parse_from(["tieline-agent", "--node-name", "a"])
        .unwrap()
        .settings;
    let (state, statements) = tokio::sync::watch::channel(None);
    let (servers, api_servers) = tokio::sync::watch::channel(Vec::new());
    let task = {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let mut shell = Loop {
                metrics: Metrics::new(agent.platform.backend(), "1.2.3"),
                agent,
                shared,
                api_servers,
                names: Names::start(BTreeMap::new()),
                state,
                settings: &settings,
                previous: None,
                follower: Follower::start(|| tokio::spawn(async {})),
            };
            shell.run().await;
        })
    };
    Running {
        _dir: dir,
        servers,
        kernel,
        shared,
        statements,
        task,
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(
        timeout(Duration::from_secs(5), wait).await.is_ok(),
        "{what}"
    );
}

#[tokio::test]
async fn the_api_server_is_connected_again_when_the_host_loses_an_address() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let starts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&starts);
    let mut follower = Follower::start(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(std::future::pending())
    });
    let mut started = |addresses: &[&str]| {
        let addresses = addresses.iter().map(|text| text.parse().unwrap());
        follower.host_has(&addresses.collect());
        starts.load(Ordering::Relaxed)
    };
    assert_eq!(started(&["192.0.2.1"]), 1);
    assert_eq!(started(&["192.0.2.1", "192.0.2.2"]), 1, "one more");
    assert_eq!(started(&["192.0.2.2"]), 2, "one less");
    assert_eq!(started(&["192.0.2.2"]), 2, "as before");
}

#[tokio::test]
async fn what_disappears_is_back_at_once_and_own_writes_do_not_go_round() {
    let running = start();
    until("applied", || !running.kernel.state().rules.is_empty()).await;
    sleep(Duration::from_millis(50)).await;
    let good = running.kernel.state();
    let started = Instant::now();
    running.kernel.damage(|state| *state = HostState::default());
    until("repaired", || running.kernel.state() == good).await;
    assert!(started.elapsed() < Duration::from_secs(1));
    // All have answered, so that nobody is asked again.
    let alive = Liveness {
        handshake_age: Some(Duration::from_secs(1)),
        ..Liveness::default()
    };
    for (name, device) in &good.devices {
        for key in device.peers.keys() {
            running.kernel.enliven(*name, *key, alive);
        }
    }
    sleep(Duration::from_millis(50)).await;
    let writes = running.kernel.writes();
    sleep(Duration::from_millis(500)).await;
    assert_eq!(running.kernel.writes(), writes);
}

#[tokio::test]
async fn somebody_who_undoes_everything_at_once_is_answered_with_growing_pauses() {
    let running = start();
    until("applied", || !running.kernel.state().rules.is_empty()).await;
    let rules = running.kernel.state().rules.len() as u64;
    let before = running.kernel.writes();
    let kernel = running.kernel.clone();
    let vandal = tokio::spawn(async move {
        loop {
            if !kernel.state().rules.is_empty() {
                kernel.damage(|state| state.rules.clear());
            }
            sleep(Duration::from_millis(1)).await;
        }
    });
    sleep(Duration::from_secs(2)).await;
    vandal.abort();
    let repairs = (running.kernel.writes() - before) / rules;
    assert!((1..=40).contains(&repairs), "{repairs} repairs in 2 s");
}

#[tokio::test]
async fn a_kernel_that_fails_is_tried_again_without_being_told_to() {
    let running = start();
    running.kernel.fail_reads(2);
    until("applied", || !running.kernel.state().rules.is_empty()).await;
}

#[tokio::test]
async fn an_api_server_inside_a_planned_range_is_let_through_as_soon_as_it_is_known() {
    let running = start();
    until("applied", || !running.kernel.state().rules.is_empty()).await;
    let open = || running.kernel.print().contains("throw 10.64.200.1");
    assert!(!open());
    let server = ApiServer::Address("10.64.200.1".parse().unwrap());
    running.servers.send_replace(vec![server]);
    until("let through", open).await;
}

#[tokio::test]
async fn a_kubeconfig_that_comes_late_tells_where_the_api_server_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    let (servers, api_servers) = tokio::sync::watch::channel(Vec::new());
    assert!(client(Some(&path), &servers).await.is_err());
    assert!(api_servers.borrow().is_empty());
    let text = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": "http://10.64.200.1:6443"}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "users": [{"name": "it", "user": {}}],
    });
    std::fs::write(&path, text.to_string()).unwrap();
    assert!(client(Some(&path), &servers).await.is_ok());
    let expected = ApiServer::Address("10.64.200.1".parse().unwrap());
    assert_eq!(*api_servers.borrow(), [expected]);
}

#[tokio::test]
async fn the_statement_follows_the_plan() {
    let mut running = start();
    let revision = |running: &mut Running| {
        let statement = running.statements.borrow_and_update();
        statement
            .as_ref()
            .map(|statement| statement.claim.applied_revision)
    };
    until("revision 1", || revision(&mut running) == Some(1)).await;
    let keys = running.statements.borrow().clone().unwrap().claim.keys;
    assert_eq!(keys.len(), 8);
    running.shared.fold(|index| {
        index
            .plans
            .apply(Ok(("acme".to_owned(), Arc::new(plan(2)))))
    });
    until("revision 2", || revision(&mut running) == Some(2)).await;
    running.shared.fold(|index| {
        index.local.reset(Vec::new());
        index.plans.reset(Vec::new())
    });
    until("withdrawn", || running.kernel.state().devices.is_empty()).await;
    until("no revision", || revision(&mut running) == Some(0)).await;
}
