#![allow(clippy::unwrap_used)]

use super::*;
use crate::contact::PATIENCE;
use crate::fixture::{attachment, own, peer, peer_name, peers, plan, prefix, sealed, snapshot};
use crate::platform::fake::Fake;
use crate::store::{FileKind, LastGood, Store};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tieline_core::health::Liveness;
use tieline_core::host::DeviceName;
use tieline_core::ids::Lineage;
use tieline_core::node::UnderlayDevice;
use tieline_core::peer::{AcceptedPeers, Endpoint, Scope};

/// Node a of the fixture, its disk and its kernel.
struct Host {
    dir: tempfile::TempDir,
    kernel: Fake,
    agent: Option<Agent<Fake>>,
}

impl Host {
    fn new() -> Self {
        let underlay = UnderlayDevice {
            mtu: 1500,
            prefixes: vec![prefix("192.0.2.0/24")].into(),
        };
        let surroundings = Surroundings {
            underlay: BTreeMap::from([("eth0".to_owned(), underlay)]),
            addresses: BTreeSet::from(["192.0.2.1".parse().unwrap()]),
            ..Surroundings::default()
        };
        let mut host = Self {
            dir: tempfile::tempdir().unwrap(),
            kernel: Fake::new(surroundings),
            agent: None,
        };
        host.start();
        host
    }

    /// The agent starts (again): what it knows is on disk and in the kernel.
    fn start(&mut self) {
        if let Some(mut before) = self.agent.take() {
            before.memory.flush(Instant::now(), true);
        }
        let store = Store::open(self.dir.path()).unwrap();
        let identity = Identity::load_or_create(self.dir.path()).unwrap();
        let constants = Constants {
            first_port: 21820,
            fwmark: 0x1000,
            api_servers: Vec::new(),
        };
        self.agent = Some(Agent::new(
            self.kernel.clone(),
            identity,
            Memory::load(store),
            own("a"),
            constants,
        ));
    }

    /// The host loses all of its kernel's state.
    fn reboot(&mut self) {
        self.kernel.damage(|state| *state = HostState::default());
        self.start();
    }

    fn peers(&self) -> AcceptedPeers {
        peers("a", &self.agent.as_ref().unwrap().identity.public_keys())
    }

    async fn reconcile(&mut self, snapshot: &Snapshot) -> Outcome {
        self.agent
            .as_mut()
            .unwrap()
            .reconcile(snapshot, &Answers::new(), Instant::now)
            .await
    }

    async fn apply(&mut self, revision: u64) -> Outcome {
        let snapshot = snapshot(Some(plan(revision)), self.peers());
        self.reconcile(&snapshot).await
    }

    fn flush(&mut self) {
        let memory = &mut self.agent.as_mut().unwrap().memory;
        memory.flush(Instant::now(), true);
    }
}

/// What the API server says when the link is gone.
fn gone() -> Snapshot {
    snapshot(None, AcceptedPeers::new())
}

fn reason(outcome: &Outcome, kind: &str) -> (bool, &'static str) {
    let verdicts = outcome.verdicts();
    let verdict = verdicts
        .iter()
        .find(|verdict| verdict.kind.as_str() == kind);
    verdict.map_or((false, "absent"), |verdict| {
        (verdict.holds, verdict.reason.as_str())
    })
}

#[tokio::test]
async fn a_plan_arrives_and_is_applied_and_the_second_time_writes_nothing() {
    let mut host = Host::new();
    let outcome = host.apply(1).await;
    assert_eq!(
        reason(&outcome, "Applied"),
        (true, "UpToDate"),
        "{outcome:?}"
    );
    assert_eq!(outcome.role, Role::Member);
    assert!(outcome.writes > 0);
    let printed = host.kernel.print();
    for part in ["tie0", "tiei0", "unreachable 10.64.0.0/10"] {
        assert!(printed.contains(part), "no {part} in:\n{printed}");
    }
    let writes = host.kernel.writes();
    let again = host.apply(1).await;
    assert_eq!(again.writes, 0);
    assert_eq!(host.kernel.writes(), writes);
}

#[tokio::test]
async fn a_node_is_ready_when_a_path_to_a_gateway_is_up() {
    let mut host = Host::new();
    let outcome = host.apply(1).await;
    assert_eq!(outcome.paths.total, 1);
    assert_eq!(reason(&outcome, "Ready"), (false, "NoneUp"));
    assert!(!host.agent.as_mut().unwrap().has_news(Instant::now()).await);
    let gateway = host.peers()[&peer_name("c")].keys[&DeviceName::outer(0)];
    let alive = Liveness {
        handshake_age: Some(Duration::from_secs(1)),
        ..Liveness::default()
    };
    host.kernel.enliven(DeviceName::outer(0), gateway, alive);
    assert!(host.agent.as_mut().unwrap().has_news(Instant::now()).await);
    let outcome = host.apply(1).await;
    assert_eq!(reason(&outcome, "Ready"), (true, "InMesh"));
    assert!(!host.agent.as_mut().unwrap().has_news(Instant::now()).await);
}

#[tokio::test]
async fn a_first_handshake_that_was_lost_is_asked_for_again_and_nothing_else_changes() {
    let mut host = Host::new();
    let outcome = host.apply(1).await;
    assert_eq!(outcome.paths.connecting, 1);
    let (good, writes) = (host.kernel.print(), host.kernel.writes());
    let agent = host.agent.as_mut().unwrap();
    let due = agent.next_contact(Instant::now()).unwrap();
    agent.retry_contacts(due - Duration::from_millis(1)).await;
    assert_eq!(host.kernel.writes(), writes, "too early");
    agent.retry_contacts(due).await;
    // The gateway of the other site, and the own node that this gateway serves.
    assert_eq!(host.kernel.writes(), writes + 4);
    assert_eq!(host.kernel.print(), good);
    assert!(!agent.has_news(due).await);
    let withdrawn = host.reconcile(&gone()).await;
    assert_eq!(withdrawn.role, Role::Withdrawn);
    assert_eq!(
        host.agent.as_ref().unwrap().next_contact(Instant::now()),
        None
    );
}

#[tokio::test]
async fn patience_with_a_first_handshake_begins_when_all_is_written_and_its_end_is_news() {
    let mut host = Host::new();
    let snapshot = snapshot(Some(plan(1)), host.peers());
    // Writing took a minute.
    let written = Instant::now() + Duration::from_secs(60);
    let agent = host.agent.as_mut().unwrap();
    let (names, now) = (Answers::new(), || written);
    let outcome = agent.reconcile(&snapshot, &names, now).await;
    assert_eq!(outcome.paths.connecting, 1);
    let patient = written + PATIENCE - Duration::from_millis(1);
    assert!(!agent.has_news(patient).await);
    assert!(agent.has_news(written + PATIENCE).await);
}

#[tokio::test]
async fn a_living_session_follows_its_peer_to_a_new_endpoint_but_stays_where_it_roamed() {
    let mut host = Host::new();
    host.apply(1).await;
    let device = DeviceName::outer(0);
    let key = host.peers()[&peer_name("c")].keys[&device];
    let alive = Liveness {
        handshake_age: Some(Duration::from_secs(1)),
        ..Liveness::default()
    };
    host.kernel.enliven(device, key, alive);
    let moved = |host: &Host, to: &str| {
        let mut peers = host.peers();
        let endpoint = Endpoint::parse(to, Scope::Public).unwrap();
        Arc::make_mut(peers.get_mut(&peer_name("c")).unwrap()).endpoints = vec![endpoint];
        snapshot(Some(plan(1)), peers)
    };
    let at = |host: &Host| {
        let endpoint = host.kernel.state().devices[&device].peers[&key].endpoint;
        endpoint.unwrap().ip().to_string()
    };
    let snapshot = moved(&host, "198.51.100.9");
    host.reconcile(&snapshot).await;
    assert_eq!(at(&host), "198.51.100.9");
    host.kernel.damage(|state| {
        let peer = state.devices.get_mut(&device).unwrap().peers.get_mut(&key);
        peer.unwrap().endpoint = Some("203.0.113.7:4242".parse().unwrap());
    });
    let snapshot = moved(&host, "198.51.100.10");
    host.reconcile(&snapshot).await;
    assert_eq!(at(&host), "203.0.113.7");
    let dead = Liveness {
        handshake_age: Some(Duration::from_secs(200)),
        ..Liveness::default()
    };
    host.kernel.enliven(device, key, dead);
    host.reconcile(&snapshot).await;
    assert_eq!(at(&host), "198.51.100.10");
}

#[tokio::test]
async fn what_somebody_undoes_is_put_back_though_only_one_peer_has_news() {
    let mut host = Host::new();
    host.apply(1).await;
    host.apply(1).await;
    let routes = host.kernel.state().routes;
    host.kernel.damage(|state| state.routes.clear());
    let mut peers = host.peers();
    let endpoint = Endpoint::parse("198.51.100.9", Scope::Public).unwrap();
    Arc::make_mut(peers.get_mut(&peer_name("c")).unwrap()).endpoints = vec![endpoint];
    let outcome = host.reconcile(&snapshot(Some(plan(1)), peers)).await;
    assert!(outcome.is_applied(), "{outcome:?}");
    assert_eq!(host.kernel.state().routes, routes);
}

#[tokio::test]
async fn a_preshared_key_that_is_replaced_under_its_name_is_written_also_when_the_agent_was_down() {
    let mut host = Host::new();
    let device = DeviceName::vpn(3);
    let mut plan = plan(1);
    plan.vpns.push(attachment(true));
    let foreign = plan.vpns[0].peer_public_key;
    for (preshared, restart) in [([6; 32], false), ([7; 32], false), ([8; 32], true)] {
        if restart {
            host.start();
        }
        let mut peers = host.peers();
        let secret = sealed(
            &host.agent.as_ref().unwrap().identity,
            [5; 32],
            Some(preshared),
        );
        let holder = Arc::make_mut(peers.get_mut(&peer_name("a")).unwrap());
        holder.sealed.push(secret);
        let snapshot = snapshot(Some(plan.clone()), peers);
        let outcome = host.reconcile(&snapshot).await;
        assert!(outcome.is_applied(), "{outcome:?}");
        assert_eq!(host.kernel.preshared_key(device, foreign), Some(preshared));
        assert!(outcome.writes > 0);
        assert_eq!(host.reconcile(&snapshot).await.writes, 0);
    }
}

#[tokio::test]
async fn whatever_disappears_comes_back() {
    let mut host = Host::new();
    host.apply(1).await;
    let good = host.kernel.print();
    type Damage = fn(&mut HostState);
    let damages: [(&str, Damage); 6] = [
        ("devices", |state| state.devices.clear()),
        ("routes", |state| state.routes.clear()),
        ("rules", |state| state.rules.clear()),
        ("firewall", |state| state.firewall = None),
        ("addresses", |state| {
            for device in state.devices.values_mut() {
                device.addresses.clear();
            }
        }),
        ("peers", |state| {
            for device in state.devices.values_mut() {
                device.peers.clear();
            }
        }),
    ];
    for (what, damage) in damages {
        host.kernel.damage(damage);
        assert_ne!(host.kernel.print(), good, "{what}");
        assert!(
            host.agent.as_mut().unwrap().has_news(Instant::now()).await,
            "{what}"
        );
        let outcome = host.apply(1).await;
        assert!(outcome.is_applied(), "{what}: {outcome:?}");
        assert_eq!(host.kernel.print(), good, "{what}");
    }
}

#[tokio::test]
async fn a_node_that_is_not_accepted_carries_the_guard_alone() {
    let mut host = Host::new();
    let mut others = host.peers();
    others.remove(&peer_name("a"));
    let outcome = host.reconcile(&snapshot(Some(plan(1)), others)).await;
    assert_eq!(reason(&outcome, "Ready"), (false, "NotAccepted"));
    let state = host.kernel.state();
    assert!(state.devices.is_empty());
    assert!(host.kernel.print().contains("unreachable 10.64.0.0/10"));
    // Known, and without accepted keys, is not accepted either.
    let mut known = host.peers();
    known.insert(peer_name("a"), Arc::new(peer("a", BTreeMap::new())));
    let outcome = host.reconcile(&snapshot(Some(plan(1)), known)).await;
    assert_eq!(outcome.role, Role::Guard);
}

#[tokio::test]
async fn a_lower_revision_is_refused_also_after_a_restart_and_what_is_applied_stays() {
    let mut host = Host::new();
    host.apply(5).await;
    let good = host.kernel.print();
    let older = snapshot(Some(plan(4)), AcceptedPeers::new());
    for restart in [false, true] {
        if restart {
            host.start();
        }
        let outcome = host.reconcile(&older).await;
        assert_eq!(reason(&outcome, "RevisionRefused"), (true, "OlderThanSeen"));
        assert_eq!((outcome.revision, outcome.writes), (Some(5), 0));
        assert_eq!(host.kernel.print(), good);
    }
    let newer = host.apply(6).await;
    assert_eq!(reason(&newer, "RevisionRefused"), (false, "absent"));
    assert_eq!(newer.revision, Some(6));
}

#[tokio::test]
async fn a_withdrawn_lineage_does_not_come_back_with_a_lower_revision() {
    let mut host = Host::new();
    host.apply(5).await;
    host.reconcile(&gone()).await;
    host.start();
    let outcome = host.apply(4).await;
    assert_eq!(reason(&outcome, "Applied"), (false, "RevisionRefused"));
    assert_eq!(
        host.kernel.state(),
        HostState {
            sysctls: host.kernel.state().sysctls,
            ..HostState::default()
        }
    );
    let mut other = plan(1);
    other.lineage = Lineage::new("zzzzyyyyxxxx").unwrap();
    let outcome = host.reconcile(&snapshot(Some(other), host.peers())).await;
    assert!(outcome.is_applied());
}

#[tokio::test]
async fn a_reboot_without_an_api_server_restores_the_mesh() {
    let mut host = Host::new();
    host.apply(3).await;
    let good = host.kernel.print();
    host.reboot();
    let outcome = host.reconcile(&Snapshot::default()).await;
    assert!(outcome.is_applied() && outcome.from_disk, "{outcome:?}");
    assert_eq!(host.kernel.print(), good);
    assert_eq!(host.agent.as_ref().unwrap().memory.applied(), Some(3));
}

#[tokio::test]
async fn an_agent_that_restarts_writes_nothing() {
    let mut host = Host::new();
    host.apply(3).await;
    let writes = host.kernel.writes();
    host.start();
    host.reconcile(&Snapshot::default()).await;
    host.apply(3).await;
    assert_eq!(host.kernel.writes(), writes);
}

#[tokio::test]
async fn a_plan_that_is_deleted_alone_changes_nothing_and_is_told_until_it_is_back() {
    let mut host = Host::new();
    host.apply(3).await;
    host.flush();
    let good = host.kernel.print();
    let alone = snapshot(None, host.peers());
    for restart in [false, true] {
        if restart {
            host.start();
        }
        let outcome = host.reconcile(&alone).await;
        assert_eq!(reason(&outcome, "PlanMissing"), (true, "PeerExists"));
        assert_eq!((outcome.revision, outcome.writes), (Some(3), 0));
        assert_eq!(host.kernel.print(), good);
    }
    let outcome = host.apply(4).await;
    assert_eq!(reason(&outcome, "PlanMissing"), (false, "absent"));
}

#[tokio::test]
async fn a_withdrawn_mesh_leaves_the_kernel_and_is_forgotten() {
    let mut host = Host::new();
    host.apply(3).await;
    host.flush();
    let outcome = host.reconcile(&gone()).await;
    assert_eq!(reason(&outcome, "Applied"), (true, "NoPlan"));
    let state = host.kernel.state();
    assert!(state.devices.is_empty() && state.routes.is_empty() && state.rules.is_empty());
    assert_eq!(state.firewall, None);
    host.reboot();
    let outcome = host.reconcile(&Snapshot::default()).await;
    assert_eq!((outcome.role, outcome.writes), (Role::Unknown, 0));
}

#[tokio::test]
async fn a_boot_guard_that_could_not_be_written_is_written_as_soon_as_it_can_be() {
    let mut host = Host::new();
    let guard = host.dir.path().join("guard.nft");
    let in_the_way = crate::files::beside(&guard);
    std::fs::create_dir(&in_the_way).unwrap();
    let problem = |outcome: &Outcome| outcome.store.get("guard").cloned();
    assert!(problem(&host.apply(1).await).is_some());
    let again = host.apply(1).await;
    assert!(again.writes == 0 && problem(&again).is_some(), "{again:?}");
    std::fs::remove_dir(&in_the_way).unwrap();
    let again = host.apply(1).await;
    assert_eq!((again.writes, problem(&again)), (0, None));
    assert!(guard.exists());
}

#[tokio::test]
async fn before_the_first_mesh_the_api_servers_name_is_asked_for_and_no_answer_is_lost() {
    let mut host = Host::new();
    let name = |text: &str| NodeName::new(text).unwrap();
    let answers = Answers::from([(name("gw.example"), vec!["192.0.2.1".parse().unwrap()])]);
    let agent = host.agent.as_mut().unwrap();
    agent.set_api_servers(vec![ApiServer::Name(name("api.example"))]);
    agent
        .reconcile(&Snapshot::default(), &answers, Instant::now)
        .await;
    let wanted = BTreeSet::from([name("api.example"), name("gw.example")]);
    assert_eq!(agent.names(), wanted);
    host.apply(1).await;
    let names = host.agent.as_ref().unwrap().names();
    assert_eq!(names, [name("api.example")].into());
}

#[tokio::test]
async fn a_damaged_plan_file_is_a_condition_and_the_kernel_stays_as_it_is() {
    let mut host = Host::new();
    host.apply(3).await;
    host.flush();
    let good = host.kernel.print();
    std::fs::write(host.dir.path().join("plan"), "rubbish").unwrap();
    host.agent = None;
    host.start();
    let outcome = host.reconcile(&Snapshot::default()).await;
    assert_eq!((outcome.role, outcome.writes), (Role::Unknown, 0));
    assert_eq!(reason(&outcome, "StateKept"), (false, "Damaged"));
    assert_eq!(host.kernel.print(), good);
    // The API server answers: the file is written anew, and the condition goes.
    host.apply(3).await;
    host.flush();
    let outcome = host.apply(3).await;
    assert_eq!(reason(&outcome, "StateKept"), (false, "absent"));
    let last: Option<LastGood> = {
        host.agent = None;
        let store = Store::open(host.dir.path()).unwrap();
        store.load(FileKind::Plan).unwrap()
    };
    assert_eq!(last.unwrap().plan.revision, 3);
}

#[tokio::test]
async fn a_host_that_cannot_be_read_is_not_written_to() {
    let mut host = Host::new();
    host.kernel.fail_reads(1);
    let outcome = host.apply(1).await;
    assert_eq!(reason(&outcome, "Ready"), (false, "CannotRead"));
    assert_eq!(host.kernel.writes(), 0);
    assert!(host.apply(1).await.is_applied());
}

#[tokio::test]
async fn a_change_that_fails_is_told_and_does_not_stop_the_others_and_is_tried_again() {
    let mut host = Host::new();
    host.kernel.fail_writes("tiei0", 100);
    let outcome = host.apply(1).await;
    assert_eq!(reason(&outcome, "Applied"), (false, "CannotWrite"));
    assert!(
        host.kernel
            .state()
            .devices
            .contains_key(&DeviceName::outer(0))
    );
    assert_eq!(host.agent.as_ref().unwrap().memory.applied(), None);
    host.kernel.fail_writes("nothing", 0);
    let mut last = outcome;
    for _ in 0..100 {
        last = host.apply(1).await;
        if last.is_applied() {
            break;
        }
    }
    assert!(last.is_applied(), "{last:?}");
}

#[tokio::test]
async fn a_peer_that_leaves_is_removed_and_one_that_joins_is_added_without_touching_others() {
    let mut host = Host::new();
    host.apply(1).await;
    let hub = |host: &Host| host.kernel.state().devices[&DeviceName::inner(0)].clone();
    let outer = host.kernel.state().devices[&DeviceName::outer(0)].clone();
    assert_eq!(hub(&host).peers.len(), 1);
    let mut fewer = host.peers();
    fewer.remove(&peer_name("b"));
    host.reconcile(&snapshot(Some(plan(1)), fewer)).await;
    assert_eq!(hub(&host).peers.len(), 0);
    let outcome = host.apply(1).await;
    assert_eq!(hub(&host).peers.len(), 1);
    assert!(outcome.writes <= 4, "{}", outcome.writes);
    assert_eq!(host.kernel.state().devices[&DeviceName::outer(0)], outer);
}
