//! The laboratory of real nodes tested on itself, without Tieline: what works inside a site, what must not work across sites,
//! what happens to nodes, and that nothing is left behind. Needs the machine's own root.
#![allow(clippy::unwrap_used)]
// Measured times are part of what this suite is for.
#![allow(clippy::print_stdout)]

#[path = "support/real_nodes.rs"]
mod real_nodes;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::lab::{Endpoint, Lifetime, SiteKind, Topology};
use e2e::nodes::{Cni, NodeLab, Options, Pod, PodRanges, ProxyMode, enter};
use libtest_mimic::Arguments;
use real_nodes::{cast, nothing_crosses, only, pods_talk, services, trial};

/// Set for the copy of this binary that one test starts in order to kill it.
const VICTIM: &str = "NODES_SELFTEST_VICTIM";

/// From the start of the lab to all nodes Ready. 8–12 s on two idle cores.
const READY_WITHIN: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let mut arguments = Arguments::from_args();
    if !arguments.list {
        enter(Lifetime::WithParent);
    }
    if std::env::var_os(VICTIM).is_some() {
        victim().unwrap();
    }
    // The lab is one, and several tests break something in it.
    arguments.test_threads = Some(1);
    let trials = vec![
        trial(
            "a machine without root is told so and fails",
            without_root_it_fails,
        ),
        trial("nodes are Ready in time", ready),
        trial("every node and every pod has IPv4 and IPv6", both_families),
        trial("pods talk inside a site and not across sites", || {
            with_lab(|lab| pods_talk(lab, Cni::Bridge))
        }),
        trial("ClusterIP, NodePort and names work inside a site", || {
            with_lab(|lab| services(lab))
        }),
        trial(
            "kubectl exec and logs work where the API server reaches the kubelet",
            exec_and_logs,
        ),
        trial("the lab's own traffic runs between real pods", traffic),
        trial("a rebooted node comes back with its pods", reboot),
        trial(
            "a deleted node is created again under its name with new keys",
            create_again,
        ),
        trial("a new node joins a running cluster", join),
        trial(
            "without an allocator, nodes run host pods and are Ready once somebody gives pod ranges",
            somebody_else_allocates,
        ),
        trial(
            "a dropped lab leaves no process, no mount and no cgroup",
            clean_up,
        ),
        trial("nothing outlives a killed test", nothing_outlives),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(LAB.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit();
}

/// The lab that tests share: the bridge plug-in, nftables, IPv4 and IPv6. The suite `nodes_mesh` runs the same facts in every
/// other combination, and with IPv4 alone.
static LAB: Mutex<Option<NodeLab>> = Mutex::new(None);

/// `paris`, which the API server reaches, with two nodes, and `berlin` behind a NAT.
fn two_sites() -> Topology {
    Topology::empty()
        .site("paris", SiteKind::Public, [198, 51, 100, 0], 25)
        .nodes("paris", "shop", 2)
        .site("berlin", SiteKind::Nat, [10, 1, 0, 0], 24)
        .nodes("berlin", "shop", 1)
}

fn with_lab(test: impl FnOnce(&mut NodeLab) -> Result<()>) -> Result<()> {
    let mut shared = LAB.lock().unwrap_or_else(PoisonError::into_inner);
    if shared.is_none() {
        let lab = NodeLab::start(
            "nodes-bridge-nftables",
            two_sites().dual_stack(),
            Cni::Bridge,
            ProxyMode::Nftables,
        )?;
        lab.wait_ready(READY_WITHIN)?;
        println!("nodes Ready after {:.1?}", lab.age());
        lab.control_plane().apply(&real_nodes::pods())?;
        lab.wait_pods("default", "app", 5, PATIENCE)?;
        lab.wait_pods("kube-system", "k8s-app=kube-dns", 1, PATIENCE)?;
        println!("6 pods Ready after {:.1?}", lab.age());
        *shared = Some(lab);
    }
    test(shared.as_mut().context("no lab")?)
}

fn without_root_it_fails() -> Result<()> {
    let scratch = tempfile_for_everybody()?;
    let run = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(&scratch)
        .env_remove("TIELINE_LAB_STAGE")
        .env_remove("TIELINE_LAB_OUTER")
        .output()?;
    std::fs::remove_file(&scratch)?;
    let said = String::from_utf8_lossy(&run.stderr);
    ensure!(
        run.status.code() == Some(1),
        "exit {:?}: {said}",
        run.status
    );
    ensure!(
        said.contains("need the machine's own root"),
        "it said: {said}"
    );
    Ok(())
}

/// A copy of this program that every user may run; the checkout may be closed to others.
fn tempfile_for_everybody() -> Result<PathBuf> {
    let copy = std::env::temp_dir().join(format!("nodes-selftest-{}", std::process::id()));
    std::fs::copy(std::env::current_exe()?, &copy)?;
    Ok(copy)
}

fn ready() -> Result<()> {
    with_lab(|lab| {
        lab.wait_ready(Duration::from_secs(5))?;
        let labels = lab.control_plane().kubectl(&[
            "get",
            "nodes",
            "-o",
            "jsonpath={range .items[*]}{.metadata.name}={.metadata.labels.topology\\.kubernetes\\.io/region} {end}",
        ])?;
        ensure!(
            labels.trim() == "berlin-1=berlin paris-1=paris paris-2=paris",
            "{labels}"
        );
        Ok(())
    })
}

fn both_families() -> Result<()> {
    with_lab(|lab| {
        let fields = |kind: &str, path: &str| -> Result<Vec<String>> {
            let path = format!("jsonpath={{range .items[*]}}{path}{{'\\n'}}{{end}}");
            let printed = lab
                .control_plane()
                .kubectl(&["get", kind, "-A", "-o", &path])?;
            Ok(printed.lines().map(str::to_owned).collect())
        };
        let internal = "{.status.addresses[?(@.type=='InternalIP')].address}";
        for (what, count, lines) in [
            ("InternalIPs", 3, fields("nodes", internal)?),
            ("pod ranges", 3, fields("nodes", "{.spec.podCIDRs[*]}")?),
            ("pods", 6, fields("pods", "{.status.podIPs[*].ip}")?),
            (
                "service ranges",
                1,
                fields("servicecidrs", "{.spec.cidrs[*]}")?,
            ),
        ] {
            let both = lines
                .iter()
                .filter(|line| matches!(line.split_once(' '), Some((one, other)) if one.contains('.') && other.contains(':')));
            ensure!(
                both.count() == count && lines.len() == count,
                "{what}: {lines:?}"
            );
        }
        Ok(())
    })
}

fn exec_and_logs() -> Result<()> {
    with_lab(|lab| {
        let cast = cast(lab)?;
        let printed = lab.exec(&cast.first, &["/probe", "get", &cast.second.url(8080)?])?;
        ensure!(printed.contains(&cast.second.name), "{printed}");
        let logs = lab.logs(&cast.second)?;
        ensure!(
            logs.trim() == format!("{} serves on :8080", cast.second.name),
            "{logs}"
        );
        // Behind the NAT there is no way in.
        let refused =
            lab.control_plane()
                .kubectl(&["logs", "--request-timeout=5s", &cast.abroad.name]);
        ensure!(refused.is_err(), "{refused:?}");
        Ok(())
    })
}

fn traffic() -> Result<()> {
    with_lab(|lab| {
        let cast = cast(lab)?;
        inside_sites_only(lab, &[cast.first, cast.second, cast.abroad])
    })
}

/// The lab's matrix between real pods that have no servers yet: everything inside a site, nothing across.
fn inside_sites_only(lab: &NodeLab, pods: &[Pod]) -> Result<()> {
    let ends: Vec<Endpoint> = pods
        .iter()
        .map(|pod| lab.endpoint(pod))
        .collect::<Result<_>>()?;
    let _servers: Vec<_> = ends
        .iter()
        .map(|end| lab.lab().serve(end))
        .collect::<Result<_>>()?;
    nothing_crosses(lab, &ends)
}

fn reboot() -> Result<()> {
    with_lab(|lab| {
        let begun = Instant::now();
        lab.reboot("paris-2")?;
        back(lab, "paris-2")?;
        println!("rebooted, pods answer again after {:.1?}", begun.elapsed());
        Ok(())
    })
}

/// Waits until the pods of a node answer the pod of another.
fn back(lab: &NodeLab, node: &str) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let asked = lab
            .pods("default", "app=web")?
            .into_iter()
            .find(|pod| pod.node == node && pod.ready)
            .with_context(|| format!("no Ready pod on {node}"))
            .and_then(|pod| lab.ask(&cast(lab)?.beside, &pod.url(8080)?, 1));
        match asked {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= end => {
                return Err(error.context(format!("{node} is not back after {PATIENCE:?}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

fn create_again() -> Result<()> {
    with_lab(|lab| {
        let uid = |lab: &NodeLab| {
            lab.control_plane().kubectl(&[
                "get",
                "node",
                "paris-2",
                "-o",
                "jsonpath={.metadata.uid}",
            ])
        };
        let key = |lab: &NodeLab| -> Result<Vec<u8>> {
            Ok(std::fs::read(
                lab.node_path("paris-2", "/etc/kubernetes/kubelet.key")?,
            )?)
        };
        let (old_uid, old_key) = (uid(lab)?, key(lab)?);
        let begun = Instant::now();
        lab.delete("paris-2")?;
        ensure!(uid(lab).is_err(), "the Node object is still there");
        lab.create_again("paris-2")?;
        lab.wait_ready(READY_WITHIN)?;
        back(lab, "paris-2")?;
        println!("created again, pods answer after {:.1?}", begun.elapsed());
        ensure!(uid(lab)? != old_uid, "the same Node object");
        ensure!(key(lab)? != old_key, "the same key");
        Ok(())
    })
}

fn join() -> Result<()> {
    with_lab(|lab| {
        let begun = Instant::now();
        let name = lab.join("paris")?;
        ensure!(name == "paris-3", "{name}");
        lab.wait_ready(READY_WITHIN)?;
        back(lab, "paris-3")?;
        println!("joined, pods answer after {:.1?}", begun.elapsed());
        Ok(())
    })
}

/// As an agent is installed: it must run before the node's network does, privileged, with the host's devices and folders.
const HOST_PODS: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: host}
spec:
  selector: {matchLabels: {app: host}}
  template:
    metadata: {labels: {app: host}}
    spec:
      hostNetwork: true
      priorityClassName: system-node-critical
      terminationGracePeriodSeconds: 1
      tolerations: [{operator: Exists}]
      containers:
      - name: probe
        image: lab.local/probe:1
        imagePullPolicy: Never
        args: ["serve", ":9090"]
        securityContext: {privileged: true}
        readinessProbe: {tcpSocket: {port: 9090}, periodSeconds: 1}
        volumeMounts:
        - {name: tun, mountPath: /dev/net/tun}
        - {name: state, mountPath: /var/lib/host-pod}
        - {name: cni, mountPath: /etc/cni, readOnly: true}
      volumes:
      - {name: tun, hostPath: {path: /dev/net/tun, type: CharDevice}}
      - {name: state, hostPath: {path: /var/lib/host-pod, type: DirectoryOrCreate}}
      - {name: cni, hostPath: {path: /etc/cni, type: Directory}}
"#;

fn somebody_else_allocates() -> Result<()> {
    drop(LAB.lock().unwrap_or_else(PoisonError::into_inner).take());
    let topology = Topology::empty()
        .site("oslo", SiteKind::Routed, [172, 22, 5, 0], 24)
        .nodes("oslo", "shop", 2);
    let mut options = Options::new(
        "nodes-unallocated",
        topology,
        Cni::Bridge,
        ProxyMode::Nftables,
    );
    options.pod_ranges = PodRanges::SomebodyElse(vec!["10.64.0.0/10".parse()?]);
    let lab = NodeLab::start_with(options)?;
    lab.control_plane().apply(HOST_PODS)?;
    lab.wait_pods("default", "app=host", 2, PATIENCE)?;
    ensure!(
        lab.wait_ready(Duration::from_secs(1)).is_err(),
        "Ready without a pod range"
    );
    ensure!(lab.node_path("oslo-1", "/var/lib/host-pod")?.is_dir());
    for (node, range) in [("oslo-1", "10.64.7.0/24"), ("oslo-2", "10.64.9.0/24")] {
        let patch = format!(r#"{{"spec": {{"podCIDR": "{range}", "podCIDRs": ["{range}"]}}}}"#);
        lab.control_plane()
            .kubectl(&["patch", "node", node, "-p", &patch])?;
    }
    let took = lab.wait_ready(READY_WITHIN)?;
    println!("Ready {took:.1?} after the pod ranges were given");
    lab.control_plane().apply(&real_nodes::pods())?;
    let pods = lab.wait_pods("default", "app=web", 2, PATIENCE)?;
    let [one, other] = pods.as_slice() else {
        unreachable!("two pods were waited for");
    };
    ensure!(one.address()?.to_string().starts_with("10.64."), "{one:?}");
    let answer = only(lab.ask(one, &other.url(8080)?, 1)?)?;
    ensure!(answer.pod == other.name, "{answer:?}");
    Ok(())
}

fn clean_up() -> Result<()> {
    drop(LAB.lock().unwrap_or_else(PoisonError::into_inner).take());
    let topology = Topology::empty()
        .site("oslo", SiteKind::Routed, [172, 22, 5, 0], 24)
        .nodes("oslo", "shop", 1);
    let before = (processes(), mounts()?);
    let lab = NodeLab::start("nodes-clean-up", topology, Cni::Bridge, ProxyMode::Nftables)?;
    lab.wait_ready(READY_WITHIN)?;
    let folders = lab.cgroup_folders();
    ensure!(!folders.is_empty(), "the lab has no cgroup");
    let begun = Instant::now();
    drop(lab);
    println!("torn down in {:.1?}", begun.elapsed());
    let left: Vec<_> = folders.iter().filter(|folder| folder.exists()).collect();
    ensure!(left.is_empty(), "cgroups left: {left:?}");
    ensure!(
        mounts()? == before.1,
        "mounts before: {}\nafter: {}",
        before.1,
        mounts()?
    );
    let left: Vec<_> = processes().difference(&before.0).cloned().collect();
    ensure!(left.is_empty(), "processes left: {left:?}");
    Ok(())
}

/// Command lines of all processes of the lab, which has a PID namespace of its own.
fn processes() -> BTreeSet<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let text = std::fs::read(entry.path().join("cmdline")).ok()?;
            let text = String::from_utf8_lossy(&text).replace('\0', " ");
            let name = entry.file_name();
            let number = name.to_str()?.parse::<u32>().ok()?;
            (!text.is_empty()).then(|| format!("{number} {text}"))
        })
        .collect()
}

fn mounts() -> Result<String> {
    Ok(std::fs::read_to_string("/proc/self/mounts")?)
}

/// Starts a lab, says where its cgroups are, and waits to be killed.
fn victim() -> Result<()> {
    let topology = Topology::empty()
        .site("oslo", SiteKind::Routed, [172, 22, 5, 0], 24)
        .nodes("oslo", "shop", 1);
    let lab = NodeLab::start("nodes-victim", topology, Cni::Bridge, ProxyMode::Nftables)?;
    lab.wait_ready(READY_WITHIN)?;
    let folders: Vec<_> = lab
        .cgroup_folders()
        .iter()
        .map(|folder| folder.display().to_string())
        .collect();
    println!("cgroups {}", folders.join(" "));
    std::thread::sleep(Duration::from_secs(600));
    Ok(())
}

fn nothing_outlives() -> Result<()> {
    drop(LAB.lock().unwrap_or_else(PoisonError::into_inner).take());
    let before = processes();
    let mut victim = Command::new(std::env::current_exe()?)
        .env_remove("TIELINE_LAB_STAGE")
        .env_remove("TIELINE_LAB_OUTER")
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(victim.stdout.take().context("no output")?);
    let said = output
        .lines()
        .map_while(Result::ok)
        .find(|line| line.starts_with("cgroups "));
    let folders: Vec<PathBuf> = said
        .context("the victim ended before its lab was ready")?
        .split(' ')
        .skip(1)
        .map(PathBuf::from)
        .collect();
    ensure!(
        folders.iter().all(|folder| folder.exists()) && !folders.is_empty(),
        "not seen from here: {folders:?}"
    );
    let running = processes().difference(&before).count();
    ensure!(
        running > 10,
        "only {running} processes of the victim are seen"
    );
    // SIGKILL to the outermost process of the victim.
    victim.kill()?;
    victim.wait()?;
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let folders: Vec<_> = folders.iter().filter(|folder| folder.exists()).collect();
        let left: Vec<_> = processes().difference(&before).cloned().collect();
        if folders.is_empty() && left.is_empty() {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "20 s after the kill: cgroups {folders:?}, processes {left:?}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}
