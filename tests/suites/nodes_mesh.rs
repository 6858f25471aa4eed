//! The main job on real nodes: helm, kubelets, real pods, CNI plug-ins, kube-proxy and CoreDNS, in every combination of three
//! CNIs and two proxy modes, one of them dual-stack. Needs the machine's own root.
#![allow(clippy::unwrap_used)]
// Measured times are part of what this suite is for.
#![allow(clippy::print_stdout)]

#[path = "nodes_mesh/access.rs"]
mod access;
#[path = "nodes_mesh/allocators.rs"]
mod allocators;
#[path = "support/matrix.rs"]
mod matrix;
#[path = "nodes_mesh/mesh.rs"]
mod mesh;
#[path = "support/real_nodes.rs"]
mod real_nodes;
#[path = "nodes_mesh/world.rs"]
mod world;

use anyhow::Result;
use e2e::lab::Lifetime;
use e2e::nodes::{Cni, ProxyMode, enter};
use libtest_mimic::{Arguments, Trial};
use matrix::matrix;
use real_nodes::trial;
use world::{World, within};

/// The combination of every day: the only dual-stack one, so that it says the most. Flannel and iptables, the most frequent one
/// of real clusters, is the one of the suite `nodes_docs`.
const EVERY_DAY: (Cni, ProxyMode) = (Cni::Bridge, ProxyMode::Nftables);
/// All of them.
const COMBINATIONS: [(Cni, ProxyMode); 6] = [
    (Cni::Flannel, ProxyMode::Iptables),
    (Cni::Flannel, ProxyMode::Nftables),
    (Cni::Plain, ProxyMode::Nftables),
    (Cni::Plain, ProxyMode::Iptables),
    (Cni::Bridge, ProxyMode::Iptables),
    (Cni::Bridge, ProxyMode::Nftables),
];

fn main() {
    let mut arguments = Arguments::from_args();
    if !arguments.list {
        enter(Lifetime::WithParent);
    }
    // The lab is one, and the order of the tests saves building it again.
    arguments.test_threads = Some(1);
    let mut trials = Vec::new();
    for (cni, proxy) in COMBINATIONS {
        let cases = combination(cni, proxy).into_iter();
        if (cni, proxy) == EVERY_DAY {
            trials.extend(cases);
        } else {
            trials.extend(cases.map(matrix));
        }
    }
    // Every day, the second cluster of `nodes_life` is one of these.
    trials.push(matrix(trial(
        "nodes without pod ranges get them from Tieline, IPv4 and IPv6, and everything works",
        allocators::tieline_assigns,
    )));
    let conclusion = libtest_mimic::run(&arguments, trials);
    world::end();
    conclusion.exit();
}

/// In this order, because each begins where the one before it ends.
fn combination(cni: Cni, proxy: ProxyMode) -> Vec<Trial> {
    let dual_stack = if world::dual_stack(cni, proxy) {
        ", dual-stack"
    } else {
        ""
    };
    let named = format!("{} and {}{dual_stack}", world::word(cni), proxy.as_str());
    let say = |what: &str| format!("{named}: {what}");
    let test = |what: &str, run: fn(&mut World) -> Result<()>| {
        trial(say(what), move || within(cni, proxy, run))
    };
    let mut trials = vec![
        test(
            "without Tieline pods, services and names work inside a site and nowhere else",
            mesh::without,
        ),
        test(
            "helm install and the example are Ready within 60 s, every pod reaches every pod as itself, nothing is clear",
            mesh::everybody,
        ),
        test(
            "a service of another site works from pods and from nodes, by address, by name and as NodePort",
            mesh::services_elsewhere,
        ),
        test(
            "kubectl exec and logs work on pods of every site that the API server reaches",
            mesh::exec_and_logs,
        ),
        test(
            "doctor names the CNI and where it masquerades",
            mesh::cni_named,
        ),
    ];
    if (cni, proxy) == (Cni::Bridge, ProxyMode::Nftables) {
        trials.extend([
            test(
                "operator and agents use their own service accounts and nothing else",
                access::own_accounts,
            ),
            test(
                "a pod with the default service account can do nothing to Tieline's objects",
                access::strangers,
            ),
            test(
                "assign: true is refused while kube-controller-manager allocates, which keeps running",
                allocators::refused,
            ),
        ]);
    }
    trials.extend([
        test(
            "helm uninstall takes the mesh away, and from before the install until then no packet inside a site is lost",
            mesh::uninstalled,
        ),
        test(
            "after the uninstall nodes hold what they held before the install",
            mesh::nothing_left,
        ),
    ]);
    trials
}
