//! The main job on real parts: a real API server, the operator, an agent on every node, packets.
#![allow(clippy::unwrap_used)]

#[path = "lab_mesh/diagnosis.rs"]
mod diagnosis;
#[path = "lab_mesh/everything.rs"]
mod everything;
#[path = "support/matrix.rs"]
mod matrix;
#[path = "lab_mesh/removal.rs"]
mod removal;
mod support;
#[path = "lab_mesh/vpn.rs"]
mod vpn;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use diagnosis::diagnosis;
use e2e::lab::{Endpoint, Family, Flows, Lifetime, Protocol, RuleFlavour, enter};
use e2e::wait::eventually;
use e2e::world::{Joins, Story, World};
use everything::{everything_works, works_with_rules};
use libtest_mimic::Arguments;
use matrix::matrix;
use removal::removal;
use support::{figures, listening, trial, within};
use vpn::vpn_allow;

/// How many joins are measured.
const JOINS: usize = 10;
/// How long "changes nothing" is watched every day, and in the matrix.
const QUIET: Duration = Duration::from_secs(10);
const LONG_QUIET: Duration = Duration::from_secs(60);
/// Facts for a diagnosis alone are read late and written later still: up to two minutes after what came before.
const AT_REST: Duration = Duration::from_secs(180);

fn main() {
    let mut arguments = Arguments::from_args();
    if !arguments.list {
        enter(Lifetime::WithParent);
    }
    // The world is one, and the order of the tests saves building it again.
    arguments.test_threads = Some(1);
    let trials = vec![
        trial(
            "every pod and the VPN's host reach each other as themselves, and nothing is clear",
            every_pair,
        ),
        trial(
            "10 MiB over TCP arrive intact between all sites and the VPN",
            bulk,
        ),
        trial(
            "what the VPN's allow does not name is dropped and counted",
            vpn_allow,
        ),
        trial(
            "all of it works among iptables rules of flannel, the bridge plug-in and kube-proxy",
            iptables,
        ),
        trial(
            "all of it works among nftables rules of flannel, the bridge plug-in and kube-proxy",
            nft,
        ),
        trial(
            "for ten seconds nothing is written to the API or to a kernel",
            || quiet(QUIET),
        ),
        matrix(trial(
            "for a minute nothing is written to the API or to a kernel",
            || quiet(LONG_QUIET),
        )),
        trial(
            "doctor finds nothing wrong in a mesh that works, and names a chain that drops with the rule to add",
            diagnosis,
        ),
        trial(
            "ten nodes join one after the other and nobody else loses a packet",
            joins,
        ),
        trial(
            "a removed link and a cleanup leave every node as it was, and the grants remain",
            removal,
        ),
        trial("dual-stack: all of it works over IPv4 and IPv6", dual_stack),
        trial(
            "dual-stack: 10 MiB over IPv6 arrive intact between all sites and the VPN",
            dual_stack_bulk,
        ),
        trial(
            "dual-stack: all of it works among iptables rules in both families",
            dual_stack_iptables,
        ),
        trial(
            "dual-stack: all of it works among nftables rules in both families",
            dual_stack_nft,
        ),
        trial(
            "two gateways: every pod reaches every pod as itself, and nothing is clear",
            two_gateways,
        ),
        trial(
            "two gateways: 256 flows all work and each of the four tunnels carries 10 to 40 percent",
            shares,
        ),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials);
    support::end();
    conclusion.exit();
}

fn three_sites(test: impl FnOnce(&mut World) -> Result<()>) -> Result<()> {
    within(Story::three_sites("mesh-three-sites"), test)
}

fn both_families(test: impl FnOnce(&mut World) -> Result<()>) -> Result<()> {
    within(Story::dual_stack("mesh-dual-stack"), test)
}

fn gateways(test: impl FnOnce(&mut World) -> Result<()>) -> Result<()> {
    within(Story::two_gateways("mesh-two-gateways"), test)
}

fn every_pair() -> Result<()> {
    three_sites(|world| {
        let ends = world.lab.endpoints();
        ensure!(ends.len() == 7, "six pods and hq-host, not {}", ends.len());
        let report = everything_works(world)?;
        figures(
            world,
            "clear text",
            serde_json::json!({"clear": report.clear_packets(), "frames": report.frames}),
        )
    })
}

/// One end of every segment: a pod that is not on a gateway, and the VPN's host.
fn one_of_each(world: &World) -> Result<Vec<Endpoint>> {
    let mut chosen = BTreeMap::new();
    for end in world.lab.endpoints() {
        chosen.insert(end.segment.clone(), end);
    }
    ensure!(chosen.len() > 1, "one segment only");
    Ok(chosen.into_values().collect())
}

fn transfers(world: &World, family: Family) -> Result<()> {
    let oracle = listening(world)?;
    let ends = one_of_each(world)?;
    let mut rates = BTreeMap::new();
    for from in &ends {
        for to in ends.iter().filter(|to| to.name != from.name) {
            let sent = world
                .lab
                .bulk(from, to, family, 10 << 20, Duration::from_secs(60))?;
            rates.insert(
                format!("{} -> {}", from.name, to.name),
                sent.mbit_per_s().round(),
            );
        }
    }
    oracle.report()?.expect_nothing_clear()?;
    figures(
        world,
        "Mbit/s of one TCP connection",
        serde_json::json!(rates),
    )
}

fn bulk() -> Result<()> {
    three_sites(|world| transfers(world, Family::V4))
}

fn iptables() -> Result<()> {
    three_sites(|world| works_with_rules(world, RuleFlavour::Iptables))
}

fn nft() -> Result<()> {
    three_sites(|world| works_with_rules(world, RuleFlavour::Nft))
}

fn quiet(time: Duration) -> Result<()> {
    three_sites(|world| {
        let nodes = world.node_names();
        let writes = |world: &World| -> Result<Vec<(String, u64)>> {
            nodes
                .iter()
                .map(|node| Ok((node.clone(), world.kernel_writes(node)?)))
                .collect()
        };
        // What came before may still settle: a handshake's age, a status.
        eventually(
            "five seconds without a write",
            Duration::from_secs(60),
            || {
                let (kernel, mark) = (writes(world)?, world.control_plane.audit_mark());
                std::thread::sleep(Duration::from_secs(5));
                let ours = our_writes(world, mark)?;
                ensure!(ours.is_empty() && writes(world)? == kernel, "{ours:?}");
                Ok(())
            },
        )?;
        let kernel = eventually("that time without a write", AT_REST, || {
            // The same manifests again: a second run of anything changes nothing.
            let (kernel, mark) = (writes(world)?, world.control_plane.audit_mark());
            let end = Instant::now() + time;
            world.apply_example()?;
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
            let ours = our_writes(world, mark)?;
            ensure!(
                ours.is_empty(),
                "API writes while nothing happened: {ours:#?}"
            );
            let after = writes(world)?;
            ensure!(
                kernel == after,
                "kernel writes while nothing happened: before {kernel:?}, after {after:?}"
            );
            Ok(kernel)
        })?;
        ensure!(
            kernel.iter().all(|(_, writes)| *writes > 0),
            "the counters count nothing: {kernel:?}"
        );
        Ok(())
    })
}

/// Writes by the operator and the agents.
fn our_writes(world: &World, mark: e2e::control_plane::AuditMark) -> Result<Vec<String>> {
    let writes = world.control_plane.audit_writes_since(mark)?;
    Ok(writes
        .iter()
        .filter(|write| {
            write
                .user
                .starts_with("system:serviceaccount:tieline-system:")
        })
        .map(ToString::to_string)
        .collect())
}

fn joins() -> Result<()> {
    three_sites(|world| {
        let oracle = listening(world)?;
        let ends = world.lab.endpoints();
        let pairs: Vec<(Endpoint, Endpoint)> = ends
            .iter()
            .enumerate()
            .flat_map(|(index, from)| {
                ends[index + 1..]
                    .iter()
                    .map(|to| (from.clone(), to.clone()))
            })
            .collect();
        let to = world.lab.endpoint("oslo-1-p0")?;
        let pings = world.lab.ping_pairs(&pairs, Duration::from_millis(10))?;
        std::thread::sleep(Duration::from_secs(1));
        let mut joins = Joins::default();
        for run in 0..JOINS {
            let join = world.join("paris", &to)?;
            joins.push(&join);
            if run == 0 {
                // The newcomer is a full member: its pods reach all others.
                world.wait_ready(Duration::from_secs(30), |_| {})?;
                oracle.update(world.planned()?)?;
                world.assign_pods()?;
                world
                    .lab
                    .matrix(&Flows {
                        patience: Duration::from_secs(2),
                        ..Flows::default()
                    })?
                    .expect_all()?;
            }
            world.leave(&join.node)?;
            std::thread::sleep(Duration::from_millis(500));
        }
        let report = pings.stop();
        let (sent, lost) = report.totals();
        let (p50, max) = (joins.p50().as_secs_f64(), joins.max().as_secs_f64());
        figures(
            world,
            "node join to first packet",
            serde_json::json!({
                "runs": joins.count(), "seconds_p50": p50, "seconds_max": max, "pings": sent, "pings_lost": lost,
            }),
        )?;
        report.expect_no_loss()?;
        // The newcomer asks before it has a plan.
        oracle.report()?.expect_nothing_clear_but_from_hosts()?;
        ensure!(
            joins.max() < Duration::from_secs(5),
            "the slowest join took {max:.3} s"
        );
        Ok(())
    })
}

fn dual_stack() -> Result<()> {
    both_families(|world| {
        for end in world.lab.endpoints() {
            ensure!(
                end.addresses.len() == 2,
                "{} has {:?}",
                end.name,
                end.addresses
            );
        }
        everything_works(world).map(drop)
    })
}

fn dual_stack_bulk() -> Result<()> {
    both_families(|world| transfers(world, Family::V6))
}

fn dual_stack_iptables() -> Result<()> {
    both_families(|world| works_with_rules(world, RuleFlavour::Iptables))
}

fn dual_stack_nft() -> Result<()> {
    both_families(|world| works_with_rules(world, RuleFlavour::Nft))
}

fn two_gateways() -> Result<()> {
    gateways(|world| {
        for site in ["dublin", "oslo"] {
            ensure!(
                world.gateways(site)?.len() == 2,
                "{site}: {:?}",
                world.gateways(site)?
            );
        }
        everything_works(world).map(drop)
    })
}

fn shares() -> Result<()> {
    gateways(|world| {
        // Pods on nodes that are no gateways: both choices on the way are open.
        let plain = |site: &str| -> Result<Endpoint> {
            let gateways = world.gateways(site)?;
            let node = world.lab.nodes().find(|node| {
                node.spec().site == site && !gateways.iter().any(|it| it == node.name())
            });
            world.lab.endpoint(&format!(
                "{}-p0",
                node.context("all nodes are gateways")?.name()
            ))
        };
        let pair = [plain("dublin")?, plain("oslo")?];
        let tunnels: Vec<(String, &str)> = world
            .gateways("dublin")?
            .into_iter()
            .flat_map(|node| [(node.clone(), "tie0"), (node, "tie1")])
            .collect();
        let sent = |world: &World| -> Result<Vec<u64>> {
            tunnels
                .iter()
                .map(|(node, device)| Ok(world.lab.node(node)?.device_bytes(device)?.1))
                .collect()
        };
        let oracle = listening(world)?;
        let before = sent(world)?;
        let flows = Flows {
            each: 256,
            patience: Duration::from_secs(20),
            families: vec![Family::V4],
            protocols: vec![Protocol::Tcp],
        };
        let report = world.lab.matrix_of(&pair, &flows)?;
        ensure!(report.flows().0 == 512, "{report}");
        report.expect_all()?;
        let carried: Vec<u64> = sent(world)?
            .iter()
            .zip(&before)
            .map(|(after, before)| after - before)
            .collect();
        let total: u64 = carried.iter().sum();
        let percent: BTreeMap<String, f64> = tunnels
            .iter()
            .zip(&carried)
            .map(|((node, device), bytes)| {
                (
                    format!("{node} {device}"),
                    (*bytes as f64 * 1000.0 / total as f64).round() / 10.0,
                )
            })
            .collect();
        figures(
            world,
            "share of 2 x 256 flows by tunnel, percent",
            serde_json::json!(percent),
        )?;
        ensure!(
            percent.values().all(|share| (10.0..=40.0).contains(share)),
            "{percent:?}"
        );
        oracle.report()?.expect_nothing_clear()
    })
}
