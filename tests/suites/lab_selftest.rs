//! The laboratory tested on itself, without any agent: an oracle that hears nothing or a NAT
//! that lets everything in would make every later test worthless.
#![allow(clippy::unwrap_used)]

#[path = "lab_selftest/ends.rs"]
mod ends;
#[path = "lab_selftest/nodes.rs"]
mod nodes;
#[path = "lab_selftest/oracle.rs"]
mod oracle;
#[path = "lab_selftest/reach.rs"]
mod reach;
#[path = "lab_selftest/rules.rs"]
mod rules;
#[path = "lab_selftest/stage.rs"]
mod stage;
#[path = "lab_selftest/traffic.rs"]
mod traffic;
#[path = "lab_selftest/vpn.rs"]
mod vpn;

use anyhow::Result;
use e2e::lab::{Lifetime, enter};
use libtest_mimic::{Arguments, Trial};

fn main() {
    let mut arguments = Arguments::from_args();
    if !arguments.list {
        enter(Lifetime::WithParent);
    }
    if std::env::var_os(ends::VICTIM).is_some() {
        ends::victim().unwrap();
    }
    // The lab is one, and several tests break something in it.
    arguments.test_threads = Some(1);
    let trials = vec![
        trial(
            "a machine that cannot hold a lab is told so and fails",
            reach::without_tools_it_fails,
        ),
        trial(
            "only a natted site cannot be reached from outside",
            reach::reachability,
        ),
        trial(
            "a NAT answers only to the very address it was asked by",
            reach::port_restricted,
        ),
        trial(
            "pods reach each other inside a site and nowhere else",
            reach::pods,
        ),
        trial(
            "planned packets that leave in clear are counted",
            oracle::real_leaks_are_heard,
        ),
        trial(
            "forged clear packets are counted, plain and inside VXLAN",
            oracle::positive_control,
        ),
        trial(
            "a fast transfer arrives intact and the capture hears all of it",
            traffic::bulk,
        ),
        trial(
            "a ping stream loses nothing until the path is broken",
            traffic::ping,
        ),
        trial(
            "a plain WireGuard box connects the VPN's LAN host",
            vpn::vpn,
        ),
        trial("a dump shows what changed and nothing else", nodes::dumps),
        trial("a rebooted node comes back as it was", nodes::reboot),
        trial("a node joins a running lab", nodes::join),
        trial(
            "iptables rules of a real node translate inside a site",
            rules::iptables_rules,
        ),
        trial(
            "nftables rules of a real node translate inside a site",
            rules::nft_rules,
        ),
        trial(
            "a dropped lab leaves no namespace and no process",
            ends::clean_up,
        ),
        trial("nothing outlives a killed test", ends::nothing_outlives),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn trial(name: &'static str, test: fn() -> Result<()>) -> Trial {
    Trial::test(name, move || {
        test().map_err(|error| format!("{error:#}").into())
    })
}
