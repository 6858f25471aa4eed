//! The laboratory of real nodes tested on itself, without Tieline: what works inside a site, what must not work across sites,
//! and that nothing is left behind. Needs the machine's own root.
#![allow(clippy::unwrap_used)]
// Measured times are part of what this suite is for.
#![allow(clippy::print_stdout)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::lab::{Endpoint, Flows, Lifetime, SiteKind, Topology};
use e2e::nodes::{Answer, Cni, DNS_SERVICE, NodeLab, Options, Pod, PodRanges, ProxyMode, enter};
use libtest_mimic::{Arguments, Trial};

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
        trial("bridge and nftables: nodes are Ready in time", || {
            ready(Cni::Bridge, ProxyMode::Nftables)
        }),
        trial(
            "bridge and nftables: pods talk inside a site and not across sites",
            || pods_talk(Cni::Bridge, ProxyMode::Nftables),
        ),
        trial(
            "bridge and nftables: ClusterIP, NodePort and names work inside a site",
            || services(Cni::Bridge, ProxyMode::Nftables),
        ),
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
        trial("flannel and iptables: nodes are Ready in time", || {
            ready(Cni::Flannel, ProxyMode::Iptables)
        }),
        trial(
            "flannel and iptables: pods talk inside a site and not across sites",
            || pods_talk(Cni::Flannel, ProxyMode::Iptables),
        ),
        trial(
            "flannel and iptables: ClusterIP, NodePort and names work inside a site",
            || services(Cni::Flannel, ProxyMode::Iptables),
        ),
        trial("plain and nftables: nodes are Ready in time", || {
            ready(Cni::Plain, ProxyMode::Nftables)
        }),
        trial(
            "plain and nftables: pods talk inside a site and not across sites",
            || pods_talk(Cni::Plain, ProxyMode::Nftables),
        ),
        trial(
            "plain and nftables: ClusterIP, NodePort and names work inside a site",
            || services(Cni::Plain, ProxyMode::Nftables),
        ),
        trial("bridge and iptables: pods, services and names work", || {
            all(Cni::Bridge, ProxyMode::Iptables)
        }),
        trial(
            "flannel and nftables: pods, services and names work",
            || all(Cni::Flannel, ProxyMode::Nftables),
        ),
        trial("plain and iptables: pods, services and names work", || {
            all(Cni::Plain, ProxyMode::Iptables)
        }),
        trial(
            "six nodes in three sites: no site's pods reach another's, overlay or not",
            three_sites,
        ),
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

fn trial(name: &'static str, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        test().map_err(|error| format!("{error:#}").into())
    })
}

/// The lab that tests share, with what it was started as.
static LAB: Mutex<Option<(Cni, ProxyMode, NodeLab)>> = Mutex::new(None);

/// `paris`, which the API server reaches, with two nodes, and `berlin` behind a NAT.
fn two_sites() -> Topology {
    Topology::empty()
        .site("paris", SiteKind::Public, [198, 51, 100, 0], 25)
        .nodes("paris", "shop", 2)
        .site("berlin", SiteKind::Nat, [10, 1, 0, 0], 24)
        .nodes("berlin", "shop", 1)
}

fn with_lab(
    cni: Cni,
    proxy: ProxyMode,
    test: impl FnOnce(&mut NodeLab) -> Result<()>,
) -> Result<()> {
    let mut shared = LAB.lock().unwrap_or_else(PoisonError::into_inner);
    if shared
        .as_ref()
        .is_none_or(|(a, b, _)| (*a, *b) != (cni, proxy))
    {
        // Names of namespaces are used once at a time.
        drop(shared.take());
        let name = format!("nodes-{cni:?}-{}", proxy.as_str()).to_lowercase();
        let lab = NodeLab::start(&name, two_sites(), cni, proxy)?;
        lab.wait_ready(READY_WITHIN)?;
        println!("{cni:?}/{proxy:?}: nodes Ready after {:.1?}", lab.age());
        lab.control_plane().apply(PODS)?;
        lab.wait_pods("default", "app", 6, PATIENCE)?;
        lab.wait_pods("kube-system", "k8s-app=kube-dns", 1, PATIENCE)?;
        println!("{cni:?}/{proxy:?}: 7 pods Ready after {:.1?}", lab.age());
        *shared = Some((cni, proxy, lab));
    }
    let (.., lab) = shared.as_mut().context("no lab")?;
    test(lab)
}

/// Two pods a node, and a service for those of each site.
const PODS: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations: [{operator: Exists}]
      containers:
      - name: probe
        image: lab.local/probe:1
        imagePullPolicy: Never
        args: ["serve", ":8080"]
        env:
        - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        ports: [{containerPort: 8080}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: other}
spec:
  selector: {matchLabels: {app: other}}
  template:
    metadata: {labels: {app: other}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations: [{operator: Exists}]
      containers:
      - name: probe
        image: lab.local/probe:1
        imagePullPolicy: Never
        args: ["serve", ":8080"]
        env:
        - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
# Without selector: the test names the endpoints of one site.
apiVersion: v1
kind: Service
metadata: {name: paris}
spec: {type: NodePort, ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080}]}
"#;

struct Cast {
    /// Pods of paris: two on the first node, one on the second, and one of berlin.
    first: Pod,
    beside: Pod,
    second: Pod,
    abroad: Pod,
}

fn cast(lab: &NodeLab) -> Result<Cast> {
    let on = |app: &str, node: &str| {
        lab.pods("default", &format!("app={app}"))?
            .into_iter()
            .find(|pod| pod.node == node)
            .with_context(|| format!("no pod of {app} on {node}"))
    };
    Ok(Cast {
        first: on("web", "paris-1")?,
        beside: on("other", "paris-1")?,
        second: on("web", "paris-2")?,
        abroad: on("web", "berlin-1")?,
    })
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

fn ready(cni: Cni, proxy: ProxyMode) -> Result<()> {
    with_lab(cni, proxy, |lab| {
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

fn all(cni: Cni, proxy: ProxyMode) -> Result<()> {
    pods_talk(cni, proxy)?;
    services(cni, proxy)
}

fn pods_talk(cni: Cni, proxy: ProxyMode) -> Result<()> {
    with_lab(cni, proxy, |lab| {
        let cast = cast(lab)?;
        let own = cast.first.address()?;
        let one_node = only(lab.ask(&cast.first, &cast.beside.url(8080)?, 1)?)?;
        ensure!(one_node.client == own, "on one node: {one_node:?}");
        let across = only(lab.ask(&cast.first, &cast.second.url(8080)?, 1)?)?;
        ensure!(across.pod == cast.second.name, "{across:?}");
        // Bridge with ipMasq translates whatever leaves the node; the others keep the address inside a site.
        let node: IpAddr = lab.lab().node("paris-1")?.address4().into();
        let wanted = if cni == Cni::Bridge { node } else { own };
        ensure!(
            across.client == wanted,
            "across nodes: {across:?}, wanted client {wanted}"
        );
        for (from, to) in [(&cast.first, &cast.abroad), (&cast.abroad, &cast.second)] {
            let answers = lab.ask(from, &to.url(8080)?, 1);
            ensure!(
                answers.is_err(),
                "{} on {} reached {} on {}: {answers:?}",
                from.name,
                from.node,
                to.name,
                to.node
            );
        }
        Ok(())
    })
}

fn services(cni: Cni, proxy: ProxyMode) -> Result<()> {
    with_lab(cni, proxy, |lab| {
        let cast = cast(lab)?;
        let slice = serde_json::json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "paris-1", "labels": {"kubernetes.io/service-name": "paris"}},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": [cast.first.address()?], "conditions": {"ready": true}},
                {"addresses": [cast.second.address()?], "conditions": {"ready": true}},
            ],
        });
        lab.control_plane().apply(&slice.to_string())?;
        let address = lab.control_plane().kubectl(&[
            "get",
            "service",
            "paris",
            "-o",
            "jsonpath={.spec.clusterIP}",
        ])?;
        let both = BTreeSet::from([cast.first.name.clone(), cast.second.name.clone()]);
        let url = format!("http://{address}/");
        let seen = until(|| lab.ask(&cast.beside, &url, 20))?;
        ensure!(servers(&seen) == both, "ClusterIP from a pod: {seen:?}");
        let seen = until(|| lab.ask_from_node("paris-2", &url, 20))?;
        ensure!(servers(&seen) == both, "ClusterIP from a node: {seen:?}");
        let node = lab.lab().node("paris-2")?.address4();
        let url = format!("http://{node}:30080/");
        let seen = until(|| lab.ask_from_node("paris-1", &url, 20))?;
        ensure!(servers(&seen) == both, "NodePort: {seen:?}");

        // CoreDNS runs in paris.
        for from in [&cast.first, &cast.second] {
            let found = lab.lookup(from, "paris.default.svc.cluster.local")?;
            ensure!(found == [address.parse::<IpAddr>()?], "{found:?}");
            let short = lab.lookup(from, "kube-dns.kube-system")?;
            ensure!(short == [DNS_SERVICE.parse::<IpAddr>()?], "{short:?}");
        }
        let seen = lab.ask(&cast.beside, "http://paris/", 1)?;
        ensure!(both.is_superset(&servers(&seen)), "by name: {seen:?}");
        // The API server, from a pod.
        let output = lab.probe(&cast.first, &["connect", "kubernetes.default:443"])?;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    })
}

fn exec_and_logs() -> Result<()> {
    with_lab(Cni::Bridge, ProxyMode::Nftables, |lab| {
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
    with_lab(Cni::Bridge, ProxyMode::Nftables, |lab| {
        let cast = cast(lab)?;
        inside_sites_only(lab, &[cast.first, cast.second, cast.abroad])
    })
}

/// The lab's matrix between real pods: everything inside a site, nothing across.
fn inside_sites_only(lab: &NodeLab, pods: &[Pod]) -> Result<()> {
    let ends: Vec<Endpoint> = pods
        .iter()
        .map(|pod| lab.endpoint(pod))
        .collect::<Result<_>>()?;
    let _servers: Vec<_> = ends
        .iter()
        .map(|end| lab.lab().serve(end))
        .collect::<Result<_>>()?;
    let flows = Flows {
        each: 1,
        patience: Duration::from_millis(1500),
        ..Flows::default()
    };
    let report = lab.lab().matrix_of(&ends, &flows)?;
    let (crossing, inside): (Vec<_>, Vec<_>) = report.pairs.iter().partition(|pair| pair.crosses);
    ensure!(
        !crossing.is_empty() && !inside.is_empty(),
        "nothing to see: {report:?}"
    );
    for pair in inside {
        ensure!(pair.ok == pair.total, "{pair:?}");
    }
    for pair in crossing {
        ensure!(pair.ok == 0, "{pair:?}");
    }
    Ok(())
}

fn three_sites() -> Result<()> {
    drop(LAB.lock().unwrap_or_else(PoisonError::into_inner).take());
    let lab = NodeLab::start(
        "nodes-three-sites",
        Topology::three_sites().without_vpn(),
        Cni::Flannel,
        ProxyMode::Nftables,
    )?;
    lab.wait_ready(READY_WITHIN)?;
    println!("six nodes Ready after {:.1?}", lab.age());
    lab.control_plane().apply(PODS)?;
    let pods = lab.wait_pods("default", "app=web", 6, PATIENCE)?;
    println!("their pods Ready after {:.1?}", lab.age());
    inside_sites_only(&lab, &pods)
}

fn reboot() -> Result<()> {
    with_lab(Cni::Bridge, ProxyMode::Nftables, |lab| {
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
    with_lab(Cni::Bridge, ProxyMode::Nftables, |lab| {
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
    with_lab(Cni::Bridge, ProxyMode::Nftables, |lab| {
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
    lab.control_plane().apply(PODS)?;
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

fn only(answers: Vec<Answer>) -> Result<Answer> {
    let count = answers.len();
    answers
        .into_iter()
        .next()
        .filter(|_| count == 1)
        .with_context(|| format!("{count} answers"))
}

fn servers(answers: &[Answer]) -> BTreeSet<String> {
    answers.iter().map(|answer| answer.pod.clone()).collect()
}

/// kube-proxy needs a moment after a change.
fn until<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match attempt() {
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(200)),
            result => return result,
        }
    }
}
