//! The demo on real Kubernetes nodes: kubelets, containerd, a CNI, kube-proxy and CoreDNS in three sites, and Tieline installed by
//! helm as a user installs it. Needs the machine's own root; everything ends with this process.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use e2e::lab::{Endpoint, Flows, Lifetime, MatrixReport, Topology, from_outside};
use e2e::nodes::{Cni, NodeLab, ProxyMode, Tieline, enter, probes};

const PATIENCE: Duration = Duration::from_secs(120);

/// Starts six real nodes in three sites, installs the chart, applies examples/three-sites and shows what works.
#[derive(Debug, Parser)]
#[command(name = "demo-nodes")]
struct Options {
    /// The CNI.
    #[arg(long, value_enum, default_value = "flannel")]
    cni: CniName,
    /// How kube-proxy writes its rules.
    #[arg(long, value_enum, default_value = "nftables")]
    proxy: ProxyName,
    /// A copy of the administrator's kubeconfig goes here.
    #[arg(long, default_value = "target/demo/nodes.kubeconfig")]
    kubeconfig: PathBuf,
    /// Leave everything running afterwards, until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CniName {
    /// The bridge plug-in with ipMasq.
    Bridge,
    /// flannel over VXLAN.
    Flannel,
    /// The ptp plug-in; nodes translate nothing.
    Plain,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProxyName {
    /// Native nftables.
    Nftables,
    /// iptables.
    Iptables,
}

/// One address for all pods.
const SERVICE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
"#;

fn main() -> ExitCode {
    let options = Options::parse();
    enter(if options.keep {
        Lifetime::Own
    } else {
        Lifetime::WithParent
    });
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo-nodes: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    let begun = Instant::now();
    let say = |what: &str| println!("{:6.1} s  {what}", begun.elapsed().as_secs_f64());
    let cni = match options.cni {
        CniName::Bridge => Cni::Bridge,
        CniName::Flannel => Cni::Flannel,
        CniName::Plain => Cni::Plain,
    };
    let proxy = match options.proxy {
        ProxyName::Nftables => ProxyMode::Nftables,
        ProxyName::Iptables => ProxyMode::Iptables,
    };
    say("starting a control plane and six nodes in berlin (behind a NAT), paris and oslo");
    let topology = Topology::three_sites().without_vpn();
    let lab = NodeLab::start_with(Tieline::options("demo-nodes", topology, cni, proxy)?)?;
    lab.wait_ready(PATIENCE)?;
    say("all nodes are Ready; starting a pod on each");
    lab.control_plane()
        .apply(&format!("{}---{SERVICE}", probes("web", None)))?;
    let pods = lab.wait_pods("default", "app=web", 6, PATIENCE)?;
    let ends: Vec<Endpoint> = pods
        .iter()
        .map(|pod| {
            let mut end = lab.endpoint(pod)?;
            end.name.clone_from(&pod.node);
            Ok(end)
        })
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
    let before = lab.lab().matrix_of(&ends, &flows)?;
    matrix("Before Tieline", &ends, &before);

    say("helm install, kubectl apply of examples/three-sites, and waiting");
    let tieline = Tieline::at(&lab)?;
    let took = tieline.bring_up(&lab)?;
    say(&format!("Ready {took:.1?} after helm install began"));
    let oracle = tieline.listening(&lab, &ends)?;
    let flows = Flows {
        // A handshake whose first packet a NAT ate is tried again after 5 s.
        patience: Duration::from_secs(12),
        ..Flows::default()
    };
    let after = lab.lab().matrix_of(&ends, &flows)?;
    let heard = oracle.report()?;
    objects(&lab)?;
    matrix("With Tieline", &ends, &after);
    let works = after.expect_all().is_ok() && heard.expect_nothing_clear().is_ok();
    println!(
        "\n{} of {} pairs, {} clear packets of {} on the underlay",
        after.pairs_ok(),
        after.pairs_total(),
        heard.clear_packets(),
        heard.frames
    );
    drop(oracle);
    keep_kubeconfig(&lab, &options.kubeconfig)?;
    println!(
        "{}",
        if works {
            "Everything works."
        } else {
            "NOT everything works."
        }
    );
    if options.keep {
        where_next(&lab, &tieline, &options.kubeconfig)?;
        // Signals end process 1 of the namespace and with it everything.
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
    println!("Look around: make demo-nodes KEEP=1");
    Ok(works)
}

/// `kubectl get` of Tieline's kinds and of its pods.
fn objects(lab: &NodeLab) -> Result<()> {
    let kinds = "clusterlinks.tieline.dev,clusters.tieline.dev,sites.tieline.dev,addressledgers.tieline.dev,\
                 networkplans.tieline.dev,peers.tieline.dev";
    for (shown, arguments) in [
        (
            "tieline --all-namespaces",
            ["get", kinds, "--all-namespaces"].as_slice(),
        ),
        (
            "pods -n tieline-system -o wide",
            &["get", "pods", "-n", "tieline-system", "-o", "wide"],
        ),
    ] {
        println!("\n$ kubectl get {shown}");
        println!("{}", lab.control_plane().kubectl(arguments)?.trim_end());
    }
    Ok(())
}

/// Who reaches whom: rows send, columns receive.
fn matrix(title: &str, ends: &[Endpoint], report: &MatrixReport) {
    println!(
        "\n{title}: a pod on each node (rows send, columns receive; ok: as itself, cni: inside the site, --: not)\n"
    );
    print!("{:10}", "");
    for to in ends {
        print!(" {:>9}", to.name);
    }
    println!();
    for from in ends {
        print!("{:10}", from.name);
        for to in ends {
            let mut results = report
                .pairs
                .iter()
                .filter(|pair| pair.from == from.name && pair.to == to.name)
                .peekable();
            let cell = match results.peek() {
                None => ".",
                Some(first) => {
                    let crosses = first.crosses;
                    if results.any(|pair| pair.ok < pair.total || (crosses && !pair.source_kept)) {
                        "--"
                    } else if crosses {
                        "ok"
                    } else {
                        "cni"
                    }
                }
            };
            print!(" {cell:>9}");
        }
        println!();
    }
    println!();
}

fn keep_kubeconfig(lab: &NodeLab, path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(lab.control_plane().kubeconfig(), path)
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(())
}

/// How to look around from another terminal, and how to stop.
fn where_next(lab: &NodeLab, tieline: &Tieline, kubeconfig: &Path) -> Result<()> {
    let (pid, inside) = from_outside().context("this process is in no lab")?;
    let kubeconfig = fs::canonicalize(kubeconfig)?;
    ensure!(kubeconfig.is_file(), "the kubeconfig is gone");
    println!("\nIt goes on running. From another terminal, as root:\n");
    println!("  alias lab='{inside} --'");
    println!(
        "  alias k='lab {} --kubeconfig {}'",
        lab.control_plane().binaries().kubectl.display(),
        kubeconfig.display()
    );
    println!("  k get nodes -o wide; k get pods -A -o wide; k -n tieline-system get peers");
    println!("  k -n tieline-system exec deploy/tieline-operator -- /bin/tieline status");
    println!("  lab ip netns exec paris-1 ip route show table 7468");
    println!("  lab ip netns exec paris-1 nft list table inet tieline");
    println!(
        "  lab {} uninstall tieline -n tieline-system --kubeconfig {}",
        tieline.helm_path().display(),
        kubeconfig.display()
    );
    println!("\nLogs of nodes: {}", lab.lab().logs().display());
    println!("Stop it with Ctrl-C here, or with kill -KILL {pid}");
    Ok(())
}
