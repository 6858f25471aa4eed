//! A control plane with Tieline's kinds and an operator, and how tests speak of them.

use anyhow::{Context as _, Result, bail, ensure};
use e2e::control_plane::{AuditMark, AuditWrite, ControlPlane, Options};
use e2e::wait::eventually;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How long anything that the operator does may take in a test, on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The user that the operator is for the API server.
pub(crate) const OPERATOR: &str = "system:serviceaccount:tieline-system:tieline-operator";

pub(crate) struct Stage {
    // Dropped in this order: clients before servers.
    operators: Vec<Operator>,
    reader: Reader,
    pub(crate) control_plane: ControlPlane,
    dir: PathBuf,
}

impl std::ops::Deref for Stage {
    type Target = ControlPlane;
    fn deref(&self) -> &ControlPlane {
        &self.control_plane
    }
}

impl Stage {
    /// A control plane with definitions and manifests, and no operator yet.
    pub(crate) fn new() -> Result<Self> {
        static STAGES: AtomicU32 = AtomicU32::new(0);
        let number = STAGES.fetch_add(1, Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("tieline-operator-{}-{number}", std::process::id()));
        let control_plane = ControlPlane::start(Options::new(&dir))?;
        let stage = Self {
            operators: Vec::new(),
            reader: Reader::connect(control_plane.kubeconfig())?,
            control_plane,
            dir,
        };
        stage
            .apply_crds(&repository().join("crds/yaml"))
            .context("apply crds/yaml")?;
        stage
            .apply_path(&repository().join("deploy/manifests"))
            .context("apply deploy/manifests")?;
        Ok(stage)
    }

    /// The same with an operator that leads.
    pub(crate) fn with_operator() -> Result<Self> {
        let mut stage = Self::new()?;
        stage.start("first", &[])?;
        Ok(stage)
    }

    /// The three-sites example with six nodes, planned and written.
    pub(crate) fn three_sites() -> Result<Self> {
        let stage = Self::with_operator()?;
        stage.apply_path(&repository().join("examples/three-sites/network.yaml"))?;
        stage.preshared_key("hq-psk")?;
        for (node, site) in NODES {
            stage.node(node, site)?;
        }
        stage.eventually("six Peers", || {
            Ok(stage.list("peers.tieline.dev")?.len() == 6)
        })?;
        stage.settled()?;
        Ok(stage)
    }

    /// Starts one more operator and returns its number. It need not lead.
    pub(crate) fn start(&mut self, identity: &str, flags: &[&str]) -> Result<usize> {
        let kubeconfig = self.operator_kubeconfig()?;
        let log = self
            .dir
            .join(format!("operator-{identity}-{}.log", self.operators.len()));
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let program = program()?;
        let child = Command::new(&program)
            .args([
                "--cluster-name",
                "shop",
                "--metrics-address",
                "127.0.0.1:0",
                "--identity",
                identity,
            ])
            // A flag goes before it.
            .env("TIELINE_LEASE_SECONDS", "3")
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--log", "info,tieline_operator=debug"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        self.operators.push(Operator {
            child: Some(child),
            log,
        });
        Ok(self.operators.len() - 1)
    }

    /// Ends an operator as Kubernetes does, and waits for it.
    pub(crate) fn stop(&mut self, number: usize) -> Result<()> {
        self.operators[number].end(Signal::SIGTERM)
    }

    /// Ends an operator as a crash does.
    pub(crate) fn kill(&mut self, number: usize) -> Result<()> {
        self.operators[number].end(Signal::SIGKILL)
    }

    pub(crate) fn log(&self, number: usize) -> Result<String> {
        std::fs::read_to_string(&self.operators[number].log).context("read the operator's log")
    }

    /// A Node that is Ready, in a site.
    pub(crate) fn node(&self, name: &str, site: &str) -> Result<()> {
        let address = 11
            + NODES
                .iter()
                .position(|(node, _)| *node == name)
                .unwrap_or(NODES.len());
        self.create(&json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"topology.kubernetes.io/region": site}},
        }))?;
        self.ready(name, true, &format!("192.0.2.{address}"))
    }

    /// One more node, until it has its Peer.
    pub(crate) fn joins(&self, name: &str, site: &str) -> Result<()> {
        self.node(name, site)?;
        let peer = format!("shop.{name}");
        self.eventually(&format!("a Peer for {name}"), || {
            Ok(!self.get("peers.tieline.dev", &peer)?.is_null())
        })
    }

    /// Sets a Node's Ready condition and address.
    pub(crate) fn ready(&self, name: &str, ready: bool, address: &str) -> Result<()> {
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": address}],
            "conditions": [{
                "type": "Ready", "status": if ready { "True" } else { "False" }, "reason": "Test", "message": "",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        }});
        self.patch_status("node", name, &status)
    }

    /// Changes fields of an object.
    pub(crate) fn patch(&self, kind: &str, name: &str, patch: &Value) -> Result<()> {
        self.merge(&["patch", kind, name], patch)
    }

    /// Changes fields of an object's status.
    pub(crate) fn patch_status(&self, kind: &str, name: &str, patch: &Value) -> Result<()> {
        self.merge(&["patch", kind, name, "--subresource=status"], patch)
    }

    fn merge(&self, what: &[&str], patch: &Value) -> Result<()> {
        let text = patch.to_string();
        let how = ["-n", "tieline-system", "--type=merge", "-p", &text];
        self.kubectl(&[what, &how].concat()).map(drop)
    }

    pub(crate) fn create(&self, object: &Value) -> Result<()> {
        self.apply(&object.to_string()).map(drop)
    }

    /// A Secret with a pre-shared key.
    pub(crate) fn preshared_key(&self, name: &str) -> Result<()> {
        self.create(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "tieline-system"},
            "stringData": {"presharedKey": format!("{}\n", key(200))},
        }))
    }

    /// What an agent says: keys from `seed`, and the plan revision that it carries.
    pub(crate) fn claim(&self, node: &str, seed: u8, applied: u64) -> Result<()> {
        let status = json!({"status": {
            "keys": [{"device": "tie0", "key": key(seed)}, {"device": "tiei0", "key": key(seed + 100)}],
            "sealingKey": sealing_key(seed), "appliedRevision": applied, "backend": "Embedded",
            "paths": {"up": 2, "total": 2},
            // Only the word of a gateway of the attachment counts.
            "sessions": [{"name": "hq", "up": 1, "total": 1}],
        }});
        self.patch_peer_status(node, &status)
    }

    pub(crate) fn patch_peer_status(&self, node: &str, status: &Value) -> Result<()> {
        let peer = format!("shop.{node}");
        self.patch_status("peers.tieline.dev", &peer, status)
    }

    /// One object as JSON; `Null` when there is none. The kind is its plural, with its group unless that is the core group.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Result<Value> {
        let found = self.reader.get(kind, name)?;
        found.map_or(Ok(Value::Null), |it| Ok(serde_json::to_value(it)?))
    }

    /// All objects of a kind in order of name.
    pub(crate) fn list(&self, kind: &str) -> Result<Vec<Value>> {
        let found = self.reader.list(kind)?;
        found
            .iter()
            .map(|it| Ok(serde_json::to_value(it)?))
            .collect()
    }

    /// A condition of an object as `status/reason: message`; empty when there is none.
    pub(crate) fn condition(&self, kind: &str, name: &str, condition: &str) -> Result<String> {
        let object = self.get(kind, name)?;
        let found = object["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|it| it["type"] == condition);
        Ok(found.map_or_else(String::new, |it| {
            let text = |field: &str| it[field].as_str().unwrap_or_default().to_owned();
            format!("{}/{}: {}", text("status"), text("reason"), text("message"))
        }))
    }

    /// Waits until something holds. The operators' logs are quoted when it does not come.
    pub(crate) fn eventually(
        &self,
        what: &str,
        mut holds: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let looked = eventually(what, LIMIT, || {
            ensure!(holds()?, "it does not hold");
            Ok(())
        });
        looked.with_context(|| {
            let logs: Vec<String> = self.operators.iter().map(Operator::tail).collect();
            logs.join("\n")
        })
    }

    /// Waits for a condition of this text.
    pub(crate) fn eventually_condition(
        &self,
        kind: &str,
        name: &str,
        condition: &str,
        text: &str,
    ) -> Result<()> {
        let mut last = String::new();
        self.eventually(&format!("{kind} {name}: {condition} with {text:?}"), || {
            last = self.condition(kind, name, condition)?;
            Ok(last.contains(text))
        })
        .with_context(|| format!("last: {last:?}"))
    }

    /// Waits until the operator has written nothing for a second.
    pub(crate) fn settled(&self) -> Result<()> {
        self.eventually("the operator comes to rest", || {
            let mark = self.audit_mark();
            std::thread::sleep(Duration::from_secs(1));
            Ok(self.operator_writes(mark)?.is_empty())
        })
    }

    /// What operators wrote since a mark.
    pub(crate) fn operator_writes(&self, mark: AuditMark) -> Result<Vec<AuditWrite>> {
        let writes = self.audit_writes_since(mark)?;
        Ok(writes
            .into_iter()
            .filter(|write| write.user == OPERATOR)
            .collect())
    }

    /// Passes when operators write nothing for a while.
    pub(crate) fn quiet_for(&self, time: Duration) -> Result<()> {
        self.quiet_since(self.audit_mark(), time)
    }

    /// Passes when operators have written nothing since a mark, and write nothing for a while.
    pub(crate) fn quiet_since(&self, mark: AuditMark, time: Duration) -> Result<()> {
        std::thread::sleep(time);
        let writes: Vec<String> = self
            .operator_writes(mark)?
            .iter()
            .map(ToString::to_string)
            .collect();
        ensure!(
            writes.is_empty(),
            "{} writes without a reason: {}",
            writes.len(),
            writes.join("; ")
        );
        Ok(())
    }

    /// The first operator ends, and another one leads. Returns its number.
    pub(crate) fn hand_over(&mut self, flags: &[&str]) -> Result<usize> {
        self.stop(0)?;
        let second = self.start("second", flags)?;
        self.eventually("the second operator leads", || {
            Ok(self.log(second)?.contains("leading"))
        })?;
        Ok(second)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.operators.clear();
        // TIELINE_KEEP leaves the logs for somebody who looks for a failure's cause.
        if std::env::var_os("TIELINE_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// Reads as administrator. Tests look again and again, and a kubectl for each look would keep a core busy.
struct Reader {
    runtime: Runtime,
    client: Client,
}

impl Reader {
    fn connect(kubeconfig: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let client = runtime.block_on(async {
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
            anyhow::Ok(Client::try_from(config)?)
        })?;
        Ok(Self { runtime, client })
    }

    fn get(&self, kind: &str, name: &str) -> Result<Option<DynamicObject>> {
        let found = self.runtime.block_on(self.api(kind).get_opt(name));
        found.with_context(|| format!("read {kind} {name}"))
    }

    fn list(&self, kind: &str) -> Result<Vec<DynamicObject>> {
        let all = ListParams::default();
        let found = self.runtime.block_on(self.api(kind).list(&all));
        Ok(found.with_context(|| format!("list {kind}"))?.items)
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let (plural, group, version) = match kind.split_once('.') {
            Some((plural, group)) => (plural, group, "v1alpha1"),
            None => (kind, "", "v1"),
        };
        // Requests are made of the plural; the kind is for people.
        let gvk = GroupVersionKind::gvk(group, version, plural);
        let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
        let client = self.client.clone();
        match plural {
            "networkplans" | "peers" | "secrets" => {
                Api::namespaced_with(client, "tieline-system", &resource)
            }
            _ => Api::all_with(client, &resource),
        }
    }
}

/// Nodes and their sites.
pub(crate) const NODES: [(&str, &str); 6] = [
    ("berlin-1", "berlin"),
    ("berlin-2", "berlin"),
    ("oslo-1", "oslo"),
    ("oslo-2", "oslo"),
    ("paris-1", "paris"),
    ("paris-2", "paris"),
];

struct Operator {
    child: Option<Child>,
    log: PathBuf,
}

impl Operator {
    fn end(&mut self, signal: Signal) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        kill(Pid::from_raw(i32::try_from(child.id())?), signal).context("signal the operator")?;
        let give_up = Instant::now() + Duration::from_secs(10);
        while child.try_wait().context("wait for the operator")?.is_none() {
            if Instant::now() > give_up {
                child.kill().context("kill the operator")?;
                child.wait().context("wait for the operator")?;
                bail!("the operator did not end within 10 s of {signal}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(30);
        format!(
            "-- {} (end)\n{}",
            self.log.display(),
            lines[from..].join("\n")
        )
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.end(Signal::SIGKILL);
    }
}

/// The built operator, beside this test's own program.
fn program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("find the own executable")?;
    let folder = own
        .parent()
        .and_then(Path::parent)
        .context("find the folder of built programs")?;
    let program = folder.join("tieline-operator");
    ensure!(
        program.is_file(),
        "{} is not built: run `cargo build --workspace` first",
        program.display()
    );
    Ok(program)
}

/// The checkout.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// 32 bytes in base64, the same for the same seed.
pub(crate) fn key(seed: u8) -> String {
    base64(&[seed; 32])
}

/// A private key and its public half that boxes are sealed to.
pub(crate) fn sealing_pair(seed: u8) -> (crypto_box::SecretKey, String) {
    let secret = crypto_box::SecretKey::from([seed; 32]);
    let public = base64(secret.public_key().as_bytes());
    (secret, public)
}

fn sealing_key(seed: u8) -> String {
    sealing_pair(seed).1
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

pub(crate) fn unbase64(text: &str) -> Result<Vec<u8>> {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD
        .decode(text)
        .context("decode base64")
}
