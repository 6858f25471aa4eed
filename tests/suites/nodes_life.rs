//! The life of an installation on real nodes: installed, upgraded, withdrawn and installed again; nodes that reboot, come, go and
//! move; firewalls that somebody else runs. Needs the machine's own root.
#![allow(clippy::unwrap_used)]
// Measured times are part of what this suite is for.
#![allow(clippy::print_stdout)]

#[path = "nodes_life/bundle.rs"]
mod bundle;
#[path = "nodes_life/firewall.rs"]
mod firewall;
#[path = "nodes_life/install.rs"]
mod install;
#[path = "support/matrix.rs"]
mod matrix;
#[path = "nodes_life/nodes.rs"]
mod nodes;
#[path = "nodes_life/stage.rs"]
mod stage;

use anyhow::Result;
use e2e::lab::Lifetime;
use e2e::nodes::enter;
use libtest_mimic::{Arguments, Trial};
use matrix::matrix;

fn main() {
    let mut arguments = Arguments::from_args();
    if !arguments.list {
        enter(Lifetime::WithParent);
    }
    // Two clusters, one after the other, and most tests change something in theirs.
    arguments.test_threads = Some(1);
    let trials = vec![
        matrix(trial(
            "helm uninstall leaves every node as it was, and pods inside a site never notice",
            install::leaves_no_trace,
        )),
        matrix(trial(
            "helm install works right after helm uninstall",
            install::again_at_once,
        )),
        matrix(trial(
            "a forward chain of nft that drops is reported, and the rules it names let the mesh pass",
            firewall::nft_chain,
        )),
        matrix(trial(
            "iptables' FORWARD policy DROP is reported, and the rules it names let the mesh pass",
            firewall::iptables_policy,
        )),
        trial(
            "tieline gather brings the logs of every container, and no key of any node",
            bundle::gathered,
        ),
        trial(
            "helm upgrade under traffic: a bounded gap, nothing in clear, everybody at the new version",
            install::upgrade,
        ),
        trial(
            "a new node with the taint gets pods when its agent is ready, and nothing of them is heard",
            nodes::tainted,
        ),
        trial("a rebooted node is back in the mesh", nodes::rebooted),
        trial(
            "a new node's pod sends its first packet across sites 5 s after the node is Ready, and nobody else loses one",
            nodes::joined,
        ),
        matrix(trial(
            "a gateway whose address changes is followed",
            nodes::address_changed,
        )),
        trial(
            "a deleted gateway's site goes on without it",
            nodes::gateway_deleted,
        ),
        trial(
            "a node that is created again under its name joins with new keys",
            nodes::created_again,
        ),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials);
    stage::end();
    conclusion.exit();
}

fn trial(name: &'static str, test: fn() -> Result<()>) -> Trial {
    Trial::test(name, move || {
        test().map_err(|error| format!("{error:#}").into())
    })
}
