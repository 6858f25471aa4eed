//! One real node: its files, its process 1, and ways into it.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ipnet::IpNet;
use serde_json::Value;

use super::binaries::Programs;
use super::boot::{Boot, Unit, UnitKind};
use super::cgroups::Cgroups;
use super::seed::Seed;
use super::{Cni, ProxyMode, config, enter, init};
use crate::control_plane::ControlPlane;
use crate::lab::{Node, Process};

/// Where images that come after the first boot are put for the host; every archive there is imported at every boot.
const ARCHIVES: &str = "/var/lib/lab-images";

/// Flags of the kubelet, which hold the node's addresses.
const KUBELET_FLAGS: &str = "/etc/kubernetes/kubelet.flags";

const CONFIGURE_CNI: &str =
    "cd /etc/cni/net.d && cp ../template.conflist .new && mv .new 10-lab.conflist";

/// What all hosts of a lab have in common.
#[derive(Debug, Clone)]
pub(super) struct Common {
    pub(super) cni: Cni,
    pub(super) proxy: ProxyMode,
    pub(super) cluster_cidrs: Vec<IpNet>,
    pub(super) programs: Programs,
    /// The images of the first boot.
    pub(super) seed: Arc<Seed>,
    /// Folder of archives of images that came later, shared by all hosts.
    pub(super) archives: PathBuf,
    pub(super) logs: PathBuf,
    pub(super) cgroups: Cgroups,
    /// Kubeconfigs that all hosts share.
    pub(super) proxy_kubeconfig: PathBuf,
    pub(super) flannel_kubeconfig: PathBuf,
}

/// A running host.
#[derive(Debug)]
pub(super) struct Host {
    process: Process,
    cgroups: Cgroups,
    init: u32,
}

impl Host {
    /// Boots `node`. Its disk keeps what an earlier boot left.
    pub(super) fn boot(node: &Arc<Node>, common: &Common) -> Result<Self> {
        let cgroups = common.cgroups.child(node.name());
        cgroups.create()?;
        let boot = Boot {
            name: node.name().to_owned(),
            disk: node.disk().to_path_buf(),
            folders: vec![
                (common.archives.clone(), ARCHIVES.into()),
                (common.programs.path("cni"), "/opt/cni/bin".into()),
            ],
            logs: common.logs.clone(),
            cgroups: cgroups.clone(),
            path: format!(
                "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                common.programs.folder().display()
            ),
            units: units(node, common),
        };
        let file = node.disk().join("boot.json");
        boot.write(&file)?;
        let argument = file.to_str().context("the disk's path is no UTF-8")?;
        let process = node.spawn("host", &mut enter::stage("host", argument)?)?;
        let mut host = Self {
            process,
            cgroups,
            init: 0,
        };
        host.wait_booted()
            .with_context(|| format!("booting {}", node.name()))?;
        Ok(host)
    }

    fn wait_booted(&mut self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if !self.process.is_running() {
                bail!("process 1 ended: {}", self.process.log().trim());
            }
            if let Some(pid) = child_of(self.process.pid())
                && Path::new(&format!("/proc/{pid}/root{}", init::BOOTED)).exists()
            {
                self.init = pid;
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("no sign of life after 20 s: {}", self.process.log().trim())
    }

    /// A command line that runs `program` in all of the host's namespaces.
    pub(super) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init.to_string()])
            .args([
                "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--",
            ])
            .arg(program)
            .args(arguments);
        command
    }

    /// A process of the pod with that UID, as this process numbers it.
    pub(super) fn process_of_pod(&self, uid: &str) -> Option<u32> {
        self.cgroups.process_in(&format!("pod{uid}"))
    }

    /// Ends the processes of that name; the host's process 1 starts its services again.
    pub(super) fn restart(&self, name: &str) -> Result<()> {
        let mut found = false;
        for entry in fs::read_dir(self.path("/proc"))?.flatten() {
            let known = fs::read_to_string(entry.path().join("comm"));
            if known.is_ok_and(|comm| comm.trim() == name) {
                let number = entry.file_name();
                let number = number.to_str().context("a process has no number")?;
                let ended = self.command("kill", &[number]).status()?;
                ensure!(ended.success(), "{name} {number} does not end");
                found = true;
            }
        }
        ensure!(found, "no {name} runs here");
        Ok(())
    }

    /// A path of the host as this process reaches it.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// Power off: ends everything that runs in the host and removes its cgroups.
    pub(super) fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if self.process.is_running() {
            // `unshare` takes process 1 with it, and the kernel everything else.
            self.process.kill()?;
        }
        self.cgroups.remove(Duration::from_secs(20))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // What is left then, the sweeper removes.
        let _ = self.end();
    }
}

/// The only child of a process.
fn child_of(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Writes keys and configuration of a node onto its disk, as the machine's set-up would.
pub(super) fn provision(
    node: &Node,
    common: &Common,
    control_plane: &ControlPlane,
    taint: Option<&str>,
) -> Result<()> {
    let name = node.name();
    for folder in init::disk_folders(node.disk()) {
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    }
    common.seed.plant(node.disk())?;
    let client = control_plane.client_kubeconfig(&format!("kubelet-{name}"), &subject(name))?;
    let kubernetes = node.disk().join("etc/kubernetes");
    fs::create_dir_all(&kubernetes)?;
    copy(&control_plane.ca_certificate(), &kubernetes.join("ca.crt"))?;
    provision_addresses(node, &kubernetes, control_plane)?;
    for (from, to) in [
        (&client, "kubelet.kubeconfig"),
        (&common.proxy_kubeconfig, "proxy.kubeconfig"),
        (&common.flannel_kubeconfig, "flannel.kubeconfig"),
    ] {
        fs::write(kubernetes.join(to), self_contained(from)?)?;
    }
    let first = common
        .cluster_cidrs
        .first()
        .context("the cluster has no pod range")?;
    let proxy = config::proxy(common.proxy, &common.cluster_cidrs);
    for (file, text) in [
        ("kubelet.json", config::kubelet(taint).to_string()),
        ("proxy.json", proxy.to_string()),
        (
            "flannel.json",
            config::flannel(common.proxy, *first).to_string(),
        ),
        // A name server that answers nobody: names outside the cluster are none of a lab's.
        ("resolv.conf", "nameserver 192.0.2.53\n".to_owned()),
        ("containerd.toml", config::containerd(common.cni)),
    ] {
        fs::write(kubernetes.join(file), text).with_context(|| format!("writing {file}"))?;
    }
    Ok(())
}

fn subject(node: &str) -> String {
    format!("/O=system:nodes/CN=system:node:{node}")
}

/// What names the node's addresses: the kubelet's flags and its serving certificate. `kubernetes` is the host's
/// /etc/kubernetes: on the disk of a host that is off, seen from inside one that runs.
pub(super) fn provision_addresses(
    node: &Node,
    kubernetes: &Path,
    control_plane: &ControlPlane,
) -> Result<()> {
    let (name, addresses) = (node.name(), addresses(node));
    let (certificate, key) = control_plane.serving_certificate(
        &format!("kubelet-{name}-serving"),
        &subject(name),
        &addresses,
        &[name],
    )?;
    copy(&certificate, &kubernetes.join("kubelet.crt"))?;
    copy(&key, &kubernetes.join("kubelet.key"))?;
    let flags = config::kubelet_flags(name, &node.spec().site, &addresses);
    fs::write(kubernetes.join("kubelet.flags"), flags.join(" "))
        .context("writing the kubelet's flags")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}

/// A kubeconfig with the files that it names inside: a node's disk holds all that the node needs.
fn self_contained(path: &Path) -> Result<String> {
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let mut config: Value = serde_json::from_slice(&text).context("parsing a kubeconfig")?;
    for (place, field) in [
        ("/clusters/0/cluster", "certificate-authority"),
        ("/users/0/user", "client-certificate"),
        ("/users/0/user", "client-key"),
    ] {
        let fields = config
            .pointer_mut(place)
            .and_then(Value::as_object_mut)
            .with_context(|| format!("{} has no {place}", path.display()))?;
        let Some(Value::String(file)) = fields.remove(field) else {
            bail!("{}: {place} has no {field}", path.display());
        };
        let contents = fs::read(&file).with_context(|| format!("reading {file}"))?;
        fields.insert(format!("{field}-data"), STANDARD.encode(contents).into());
    }
    Ok(config.to_string())
}

/// Takes the CNI's configuration away, so that the node is not Ready before its network is.
pub(super) fn reset_cni(node: &Node, common: &Common) -> Result<()> {
    let folder = node.disk().join("etc/cni");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(folder.join("net.d"))?;
    fs::write(
        folder.join("template.conflist"),
        config::cni(common.cni, common.proxy),
    )?;
    Ok(())
}

pub(super) fn addresses(node: &Node) -> Vec<IpAddr> {
    std::iter::once(node.address4().into())
        .chain(node.address6().map(IpAddr::from))
        .collect()
}

fn units(node: &Node, common: &Common) -> Vec<Unit> {
    let name = node.name();
    let program = |name: &str| common.programs.path(name).display().to_string();
    let unit = |name: &str, command: Vec<String>, after: &[&str], kind| Unit {
        name: name.to_owned(),
        command,
        environment: Vec::new(),
        after: after.iter().map(PathBuf::from).collect(),
        kind,
    };
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    // Read at every start of it.
    let kubelet = format!("exec {} $(cat {KUBELET_FLAGS})", program("kubelet"));
    let import = format!(
        "for archive in {ARCHIVES}/*.tar; do [ ! -e \"$archive\" ] || ctr -n k8s.io images import \"$archive\" || exit 1; done"
    );
    let mut units = vec![
        unit(
            "containerd",
            words("containerd --config /etc/kubernetes/containerd.toml"),
            &[],
            UnitKind::Service,
        ),
        unit(
            "images",
            vec!["sh".into(), "-c".into(), import],
            &["/run/containerd/containerd.sock"],
            UnitKind::Once("/run/images-imported".into()),
        ),
        unit(
            "kube-proxy",
            vec![
                program("kube-proxy"),
                "--config=/etc/kubernetes/proxy.json".into(),
                format!("--hostname-override={name}"),
            ],
            &[],
            UnitKind::Service,
        ),
        unit(
            "kubelet",
            vec!["sh".into(), "-c".into(), kubelet],
            &["/run/images-imported"],
            UnitKind::Service,
        ),
    ];
    if common.cni == Cni::Flannel {
        let mut flannel = unit(
            "flannel",
            vec![
                program("flannel"),
                "-kube-subnet-mgr".into(),
                "-kubeconfig-file=/etc/kubernetes/flannel.kubeconfig".into(),
                "-net-config-path=/etc/kubernetes/flannel.json".into(),
                "-iface=eth0".into(),
                "-ip-masq".into(),
            ],
            // Without a Node object it ends and is started again.
            &["/run/images-imported"],
            UnitKind::Service,
        );
        flannel.environment = vec![("NODE_NAME".into(), name.to_owned())];
        units.push(flannel);
        // A node is Ready when there is a CNI configuration, and pods can start when flannel has its subnet.
        units.push(unit(
            "cni-configuration",
            // Whole at once, and as a renaming inside the folder: containerd 1.6 does not look at files that come otherwise.
            vec!["sh".into(), "-c".into(), CONFIGURE_CNI.into()],
            &["/run/flannel/subnet.env"],
            UnitKind::Once("/run/cni-configured".into()),
        ));
    }
    units
}
