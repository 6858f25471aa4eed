//! What happens when parts fail: traffic goes on or comes back by itself, and nothing leaks meanwhile.
#![allow(clippy::unwrap_used)]

#[path = "support/matrix.rs"]
mod matrix;
mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::lab::{Dump, Endpoint, Flows, Lifetime, Oracle, enter};
use e2e::wait::eventually;
use e2e::world::{Story, World};
use libtest_mimic::Arguments;
use matrix::matrix;
use support::{figures, listening, recovers, trial, within};

/// How long an outage of the operator or the API server lasts every day: longer than a Lease of the operator.
const OUTAGE: Duration = Duration::from_secs(20);
/// And in the matrix: longer than what clients wait for a silent API server.
const LONG_OUTAGE: Duration = Duration::from_secs(60);
/// After a crash of the agent, traffic is back within this, its restart included.
const RECOVERY_BOUND: Duration = Duration::from_secs(10);
/// What disappears from the kernel is put back within this.
const REPAIR_BOUND: Duration = Duration::from_secs(5);

fn main() {
    let mut arguments = Arguments::from_args();
    if !arguments.list {
        enter(Lifetime::WithParent);
    }
    // The world is one.
    arguments.test_threads = Some(1);
    let trials = vec![
        trial(
            "a deleted route, rule, table or device is back within 5 s",
            repairs,
        ),
        trial(
            "a killed agent that is started again carries traffic within 10 s, on a gateway too",
            agent_crash,
        ),
        trial(
            "the operator is killed for 20 s, somebody deletes its plan, and traffic goes on",
            || operator_outage(OUTAGE),
        ),
        matrix(trial(
            "the operator is killed for 60 s, somebody deletes its plan, and traffic goes on",
            || operator_outage(LONG_OUTAGE),
        )),
        trial(
            "the API server is stopped for 20 s, traffic goes on, and a rebooted node comes back from its disk",
            || api_outage(OUTAGE),
        ),
        matrix(trial(
            "the API server is stopped for 60 s, traffic goes on, and a rebooted node comes back from its disk",
            || api_outage(LONG_OUTAGE),
        )),
        trial(
            "with all agents killed and all tunnels removed nothing planned leaves a node, and sites stay whole",
            guard,
        ),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials);
    support::end();
    conclusion.exit();
}

fn three_sites(test: impl FnOnce(&mut World) -> Result<()>) -> Result<()> {
    within(Story::three_sites("faults-three-sites"), test)
}

/// Nothing planned on the underlay, neither as itself nor masqueraded.
fn nothing_leaves(oracle: &Oracle) -> Result<()> {
    oracle.report()?.expect_nothing_clear()
}

fn repairs() -> Result<()> {
    three_sites(|world| {
        let oracle = listening(world)?;
        let gateway = world
            .gateways("paris")?
            .first()
            .context("paris has no gateway")?
            .clone();
        let mut took = BTreeMap::new();
        // On a gateway and on another node: both have what is deleted here.
        let other = world
            .lab
            .nodes()
            .find(|node| node.spec().site == "oslo" && node.name() != "oslo-1");
        let other = other.context("oslo has one node only")?.name().to_owned();
        for (name, device) in [(gateway.as_str(), "tie0"), (&other, "tiei0")] {
            let node = world.lab.node(name)?;
            let route = |table: &str, with: &str| -> Result<String> {
                let all = node.ip(&format!("route show table {table}"))?;
                let line = all.lines().find(|line| line.contains(with));
                Ok(line
                    .with_context(|| format!("{name} has no route {with} in table {table}: {all}"))?
                    .to_owned())
            };
            let remote = first_words(&route("7468", "metric 100")?, 1);
            let guard = first_words(&route("7469", "unreachable")?, 2);
            let damages = [
                (
                    "a remote route",
                    format!("ip route del {remote} table 7468 metric 100"),
                ),
                (
                    "a guard route",
                    format!("ip route del {guard} table 7469 metric 4000"),
                ),
                ("a rule", "ip rule del pref 103".to_owned()),
                ("the guard's rule", "ip rule del pref 105".to_owned()),
                (
                    "a firewall table",
                    "nft delete table inet tieline".to_owned(),
                ),
                ("an address", format!("ip addr flush dev {device}")),
                ("a device", format!("ip link del {device}")),
            ];
            let whole = node.dump()?;
            for (what, command) in damages {
                let mut words = command.split_whitespace();
                let program = words.next().unwrap_or_default();
                let start = Instant::now();
                node.cmd(program, &words.collect::<Vec<_>>())?;
                let seen = node.dump()?;
                eventually(
                    &format!("{what} of {name} to be put back"),
                    REPAIR_BOUND,
                    || same(&whole, &node.dump()?),
                )?;
                let seconds = start.elapsed().as_secs_f64();
                // A repair can be faster than the look; it must have been seen missing, or the clock says so.
                ensure!(
                    whole != seen || seconds < 2.0,
                    "{what} of {name} was never missing"
                );
                took.insert(
                    format!("{what} of {name}"),
                    (seconds * 1000.0).round() / 1000.0,
                );
            }
        }
        recovers(world, Duration::from_secs(20))?;
        nothing_leaves(&oracle)?;
        figures(world, "seconds until repaired", serde_json::json!(took))
    })
}

fn same(before: &Dump, after: &Dump) -> Result<()> {
    let diff = before.diff(after);
    ensure!(diff.is_empty(), "{diff:#?}");
    Ok(())
}

fn first_words(text: &str, count: usize) -> String {
    text.split_whitespace()
        .take(count)
        .collect::<Vec<_>>()
        .join(" ")
}

fn agent_crash() -> Result<()> {
    three_sites(|world| {
        let oracle = listening(world)?;
        let gateway = world
            .gateways("oslo")?
            .first()
            .context("oslo has no gateway")?
            .clone();
        let leaf = world
            .lab
            .nodes()
            .find(|node| node.spec().site == "oslo" && node.name() != gateway);
        let leaf = leaf.context("oslo has one node only")?.name().to_owned();
        let mut took = BTreeMap::new();
        for (role, node) in [("another node", leaf), ("a gateway", gateway)] {
            let pairs = pairs_of(world, &node)?;
            let pings = world.lab.ping_pairs(&pairs, Duration::from_millis(20))?;
            std::thread::sleep(Duration::from_secs(1));
            world.kill_agent(&node)?;
            world.start_agent(&node)?;
            let restarted = Instant::now();
            eventually("traffic to be back", RECOVERY_BOUND * 2, || {
                let flows = Flows {
                    each: 1,
                    patience: Duration::from_millis(500),
                    ..Flows::default()
                };
                world.lab.matrix(&flows)?.expect_all()
            })?;
            ensure!(
                restarted.elapsed() < RECOVERY_BOUND,
                "{node}: {:?}",
                restarted.elapsed()
            );
            std::thread::sleep(Duration::from_secs(1));
            let report = pings.stop();
            let gap = report.longest_gap();
            took.insert(role, gap.as_secs_f64());
            ensure!(gap < RECOVERY_BOUND, "{node}: {report}");
        }
        nothing_leaves(&oracle)?;
        figures(
            world,
            "longest gap when the agent of a node crashes, seconds",
            serde_json::json!(took),
        )
    })
}

/// From a node's pod to one pod of every other segment, and back.
fn pairs_of(world: &World, node: &str) -> Result<Vec<(Endpoint, Endpoint)>> {
    let own = world.lab.endpoint(&format!("{node}-p0"))?;
    let mut others = BTreeMap::new();
    for end in world.lab.endpoints() {
        if end.segment != own.segment {
            others.insert(end.segment.clone(), end);
        }
    }
    Ok(others
        .into_values()
        .flat_map(|other| [(own.clone(), other.clone()), (other, own.clone())])
        .collect())
}

/// Pairs between all segments, for streams that run through an outage.
fn cross_pairs(world: &World) -> Vec<(Endpoint, Endpoint)> {
    let ends = world.lab.endpoints();
    let later = |index: usize| ends[index + 1..].iter();
    ends.iter()
        .enumerate()
        .flat_map(|(index, from)| later(index).map(move |to| (from.clone(), to.clone())))
        .filter(|(from, to)| from.segment != to.segment)
        .collect()
}

fn operator_outage(length: Duration) -> Result<()> {
    three_sites(|world| {
        let oracle = listening(world)?;
        let pings = world
            .lab
            .ping_pairs(&cross_pairs(world), Duration::from_millis(50))?;
        world.kill_operator()?;
        let plans = ["networkplans.tieline.dev", "-n", "tieline-system"];
        let kubectl = |world: &World, args: &[&str]| {
            let all = [args, &plans].concat();
            world.control_plane.kubectl(&all)
        };
        kubectl(world, &["delete", "--all"])?;
        std::thread::sleep(length);
        let report = pings.stop();
        world.start_operator()?;
        report.expect_no_loss()?;
        eventually("the plan", Duration::from_secs(30), || {
            let found = kubectl(world, &["get", "-o", "name"])?;
            ensure!(!found.is_empty(), "nobody has written it again");
            Ok(())
        })?;
        world.wait_ready(Duration::from_secs(60), |_| {})?;
        nothing_leaves(&oracle)
    })
}

fn api_outage(length: Duration) -> Result<()> {
    three_sites(|world| {
        let oracle = listening(world)?;
        let rebooted = world
            .gateways("oslo")?
            .first()
            .context("oslo has no gateway")?
            .clone();
        let pairs = cross_pairs(world);
        let (touched, untouched): (Vec<_>, Vec<_>) = pairs
            .into_iter()
            .partition(|(from, to)| from.name.starts_with("oslo") || to.name.starts_with("oslo"));
        ensure!(
            !touched.is_empty() && !untouched.is_empty(),
            "no pairs to watch"
        );
        let pings = world
            .lab
            .ping_pairs(&untouched, Duration::from_millis(50))?;
        let start = Instant::now();
        world.control_plane.stop();
        std::thread::sleep(Duration::from_secs(10));

        // A power cut on a gateway: keys and the last plan are on its disk, nobody else can tell it anything.
        world.kill_agent(&rebooted)?;
        world.reboot(&rebooted)?;
        let booted = Instant::now();
        let flows = Flows {
            each: 1,
            patience: Duration::from_secs(1),
            ..Flows::default()
        };
        // Its pods send before its agent runs, and the oracle listens.
        world.lab.restore_pods(&rebooted)?;
        let early = world.lab.matrix(&flows)?;
        ensure!(
            early.pairs_ok() < early.pairs_total(),
            "traffic of a node without tunnels arrived"
        );
        world.start_agent(&rebooted)?;
        eventually(
            "the rebooted gateway to carry traffic",
            Duration::from_secs(25),
            || world.lab.matrix(&flows)?.expect_all(),
        )?;
        let back = booted.elapsed();
        std::thread::sleep(length.saturating_sub(start.elapsed()));
        let report = pings.stop();
        world.control_plane.start_again()?;
        report.expect_no_loss()?;
        world.wait_ready(Duration::from_secs(90), |_| {})?;
        recovers(world, Duration::from_secs(20))?;
        nothing_leaves(&oracle)?;
        figures(
            world,
            "seconds until a rebooted gateway carries traffic without an API server",
            serde_json::json!(back.as_secs_f64()),
        )
    })
}

fn guard() -> Result<()> {
    three_sites(|world| {
        let oracle = listening(world)?;
        let names = world.node_names();
        for name in &names {
            world.kill_agent(name)?;
        }
        for name in &names {
            let node = world.lab.node(name)?;
            for device in devices(world, name)? {
                node.ip(&format!("link del {device}"))?;
            }
            ensure!(
                devices(world, name)?.is_empty(),
                "{name} still has {:?}",
                devices(world, name)?
            );
        }
        world.nothing_crosses(2, Duration::from_secs(2))?;
        // From the nodes themselves too: no conntrack, no bridge, the output path.
        for name in &names {
            for end in world.lab.endpoints() {
                if !end
                    .name
                    .starts_with(name.split('-').next().unwrap_or_default())
                {
                    let target = end.addresses[0].to_string();
                    let ping =
                        world
                            .lab
                            .node(name)?
                            .ns()
                            .output("ping", &["-c1", "-W1", &target], "")?;
                    ensure!(
                        !ping.status.success(),
                        "{name} reached {target} without a tunnel"
                    );
                }
            }
        }
        nothing_leaves(&oracle)?;

        let pair = [
            world.lab.endpoint("paris-1-p0")?,
            world.lab.endpoint("oslo-1-p0")?,
        ];
        world.leaks_without_the_guard(&oracle, "paris-1", &pair)?;

        for name in &names {
            world.start_agent(name)?;
        }
        world.wait_ready(Duration::from_secs(60), |_| {})?;
        recovers(world, Duration::from_secs(20))
    })
}

/// Tieline's devices on a node.
fn devices(world: &World, node: &str) -> Result<Vec<String>> {
    let links = world.lab.node(node)?.ip("-br link")?;
    Ok(links
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("tie"))
        .map(str::to_owned)
        .collect())
}
