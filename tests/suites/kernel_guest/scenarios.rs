//! What happens in the guest: two sites of two nodes on kernel WireGuard.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::control_plane::ControlPlane;
use e2e::guest::inside::{self, Reporter};
use e2e::lab::{API4, Dump, Endpoint, Family, Flows, Lab, Oracle, SiteKind, Topology};
use e2e::wait::eventually;
use e2e::world::{NEXT_VERSION, Programs, Story, World};

use crate::hearing::{listening, recovers};
use crate::losses::{losses, more};

/// Nothing in the guest is quick; a wait that ends earlier costs nothing.
const PATIENCE: Duration = Duration::from_secs(90);

/// The guest's name of the next version's agent.
pub(crate) const NEXT_AGENT: &str = "tieline-agent-next";

/// Whether a scenario is of the everyday test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// What only the kernel's WireGuard can show.
    EveryDay,
    /// What the labs outside show too, once more on this kernel.
    Matrix,
}

/// A part of what happens in the guest.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) when: When,
    run: Run,
}

#[derive(Clone, Copy)]
enum Run {
    /// In the mesh of all scenarios; leaves it whole.
    Mesh(fn(&mut World, &mut Reporter) -> Result<()>),
    /// These tests of the agent's own suite, by words of their names, which need no network of ours. No word: all of them.
    Platform(&'static [&'static str]),
}

/// In this order.
const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "the agents take the kernel's WireGuard by themselves, and the mesh is Ready",
        when: When::EveryDay,
        run: Run::Mesh(chosen),
    },
    Scenario {
        name: "every pod reaches every pod as itself over IPv4 and IPv6, and nothing is clear",
        when: When::EveryDay,
        run: Run::Mesh(matrix),
    },
    Scenario {
        name: "the firewall tables load, are read back as written, and come back when they are deleted",
        when: When::Matrix,
        run: Run::Mesh(firewall),
    },
    Scenario {
        name: "every agent is replaced by one of the next version under pings of 10 ms and no packet is lost",
        when: When::EveryDay,
        run: Run::Mesh(upgraded),
    },
    Scenario {
        name: "over a path with delay and loss everything arrives, and a lost device comes back",
        when: When::Matrix,
        run: Run::Mesh(netem),
    },
    Scenario {
        name: "with all agents killed and all tunnels removed nothing planned leaves a node",
        when: When::Matrix,
        run: Run::Mesh(guard),
    },
    Scenario {
        name: "a cleanup leaves every node as it was",
        when: When::EveryDay,
        run: Run::Mesh(cleanup),
    },
    Scenario {
        name: "two hosts of the agent's platform suite exchange packets while keys, ports and peers change",
        when: When::EveryDay,
        run: Run::Platform(&[
            "two_hosts_exchange_pings",
            "a_new_port_and_a_new_key",
            "changing_peers_loses_no_packet",
        ]),
    },
    Scenario {
        name: "the agent's platform suite passes on this kernel",
        when: When::Matrix,
        run: Run::Platform(&[]),
    },
];

/// All scenarios, in order.
pub(crate) fn all() -> impl Iterator<Item = &'static Scenario> {
    SCENARIOS.iter()
}

/// All that is wanted, one after the other; says how each went.
pub(crate) fn run() {
    let mut reporter = Reporter::open().unwrap();
    let wanted: Vec<String> =
        serde_json::from_slice(&inside::file("wanted.json").unwrap()).unwrap();
    let wanted = || {
        SCENARIOS
            .iter()
            .filter(|it| wanted.iter().any(|name| name == it.name))
    };
    inside::prepare().unwrap();
    let mut meshed = wanted()
        .filter(|it| matches!(it.run, Run::Mesh(_)))
        .peekable();
    if meshed.peek().is_some() {
        in_mesh(meshed, &mut reporter);
    }
    for scenario in wanted() {
        if let Run::Platform(words) = scenario.run {
            let test = |reporter: &mut Reporter| platform(reporter, words);
            reporter.scenario(scenario.name, test).unwrap();
        }
    }
}

/// Builds the mesh, and plays what happens in it.
fn in_mesh(scenarios: impl Iterator<Item = &'static Scenario>, reporter: &mut Reporter) {
    match up(reporter) {
        Ok(mut world) => {
            for scenario in scenarios {
                if let Run::Mesh(run) = scenario.run {
                    let test = |reporter: &mut Reporter| {
                        run(&mut world, reporter)?;
                        world.all_run()
                    };
                    reporter.scenario(scenario.name, test).unwrap();
                }
            }
            reporter.logs(world.lab.logs()).unwrap();
        }
        Err(error) => {
            let why = format!("{error:#}");
            for scenario in scenarios {
                let failed = anyhow::anyhow!("the mesh did not come up: {why}");
                reporter.scenario(scenario.name, |_| Err(failed)).unwrap();
            }
            reporter.logs(Path::new("/tmp/lab/kernel-guest")).unwrap();
        }
    }
}

fn up(reporter: &mut Reporter) -> Result<World> {
    let topology = Topology::empty()
        .site("berlin", SiteKind::Nat, [10, 1, 0, 0], 24)
        .nodes("berlin", "shop", 2)
        .site("paris", SiteKind::Public, [198, 51, 100, 0], 25)
        .nodes("paris", "shop", 2)
        .dual_stack();
    let story = Story {
        name: "kernel-guest",
        topology,
        example: "../tests/kernel-guest",
    };
    let start = Instant::now();
    let lab = Lab::build(story.name, story.topology.clone())?;
    inside::connect(&lab)?;
    let built = start.elapsed();
    ensure!(
        !loaded("wireguard")?,
        "wireguard was loaded before an agent asked for it"
    );
    let folder = Path::new("/tieline");
    let programs = Programs {
        agent: folder.join("tieline-agent"),
        operator: folder.join("runs-outside"),
        cli: folder.join("runs-outside"),
    };
    let control_plane = ControlPlane::attach(&folder.join("control-plane"), API4.into())?;
    let mut world = World::attach(story, programs, lab, control_plane)?;
    let nodes = world.node_names();
    let registered = start.elapsed();
    for node in &nodes {
        world.start_agent(node)?;
    }
    let started = start.elapsed();
    world.wait_ready(PATIENCE, |_| {})?;
    world.assign_pods()?;
    let seconds = |time: Duration| (time.as_secs_f64() * 10.0).round() / 10.0;
    reporter.figures(
        "kernel guest, seconds since the lab began",
        serde_json::json!({
            "lab": seconds(built), "nodes registered": seconds(registered), "agents started": seconds(started),
            "ready": seconds(start.elapsed()),
        }),
    )?;
    Ok(world)
}

fn loaded(module: &str) -> Result<bool> {
    let all = std::fs::read_to_string("/proc/modules")?;
    Ok(all
        .lines()
        .any(|line| line.split_whitespace().next() == Some(module)))
}

fn chosen(world: &mut World, reporter: &mut Reporter) -> Result<()> {
    let backend = world.backend()?;
    reporter.figures("backend", serde_json::json!(backend))?;
    ensure!(backend == "Kernel", "the agents use {backend}");
    ensure!(loaded("wireguard")?, "the kernel's module is not loaded");
    for node in world.lab.nodes() {
        let all = devices(world, node.name(), "")?;
        let kernel = devices(world, node.name(), "type wireguard")?;
        ensure!(
            !all.is_empty() && all == kernel,
            "{}: devices {all:?}, of the kernel's kind {kernel:?}",
            node.name()
        );
    }
    Ok(())
}

/// Tieline's devices on a node.
fn devices(world: &World, node: &str, which: &str) -> Result<Vec<String>> {
    let links = world
        .lab
        .node(node)?
        .ip(&format!("-br link show {which}"))?;
    Ok(links
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("tie"))
        .map(str::to_owned)
        .collect())
}

/// Nothing planned on the underlay, neither as itself nor masqueraded.
fn nothing_leaves(oracle: &Oracle) -> Result<()> {
    oracle.report()?.expect_nothing_clear()
}

fn matrix(world: &mut World, reporter: &mut Reporter) -> Result<()> {
    let oracle = listening(world)?;
    let flows = Flows {
        patience: Duration::from_secs(20),
        ..Flows::default()
    };
    let report = world.lab.matrix(&flows)?;
    report.expect_all()?;
    // Four pods, each to three others, in two families, over TCP and UDP, twice.
    ensure!(report.flows().0 == 4 * 3 * 2 * 2 * 2, "{report}");
    let heard = oracle.report()?;
    ensure!(
        heard.frames > 100,
        "the traffic did not cross the underlay: {heard}"
    );
    nothing_leaves(&oracle)?;
    reporter.figures(
        "clear text",
        serde_json::json!({"flows": report.flows().1, "clear": heard.clear_packets(), "frames": heard.frames}),
    )
}

fn firewall(world: &mut World, reporter: &mut Reporter) -> Result<()> {
    let nodes = world.node_names();
    for name in &nodes {
        let dump = world.lab.node(name)?.dump()?;
        for wanted in ["table inet tieline", "table netdev tieline", "hook egress"] {
            ensure!(
                !dump.mentions(wanted).is_empty(),
                "{name} has no `{wanted}`: {:#?}",
                dump.area("nft")
            );
        }
    }
    // What the kernel lists is what the agents wanted: nobody writes again.
    let writes = |world: &World| -> Result<Vec<u64>> {
        nodes.iter().map(|node| world.kernel_writes(node)).collect()
    };
    eventually("five seconds without a write", PATIENCE, || {
        let before = writes(world)?;
        std::thread::sleep(Duration::from_secs(5));
        let after = writes(world)?;
        ensure!(
            before == after,
            "kernel writes went from {before:?} to {after:?}"
        );
        Ok(())
    })?;
    let mut took = BTreeMap::new();
    for name in ["berlin-1", "paris-2"] {
        let node = world.lab.node(name)?;
        let whole = node.dump()?;
        for table in ["inet tieline", "netdev tieline"] {
            let start = Instant::now();
            node.nft(&format!("delete table {table}"))?;
            eventually(&format!("table {table} of {name}"), PATIENCE, || {
                same(&whole, &node.dump()?)
            })?;
            let seconds = (start.elapsed().as_secs_f64() * 100.0).round() / 100.0;
            took.insert(format!("{table} of {name}"), seconds);
        }
    }
    reporter.figures(
        "seconds until repaired, as looked at",
        serde_json::json!(took),
    )
}

fn same(before: &Dump, after: &Dump) -> Result<()> {
    let diff = before.diff(after);
    ensure!(diff.is_empty(), "{diff:#?}");
    Ok(())
}

/// Between the sites, from gateways and to other nodes.
fn cross_pairs(world: &World) -> Result<Vec<(Endpoint, Endpoint)>> {
    // Few, because an emulated CPU carries no more than some hundred packets a second through a dozen hops each.
    [("berlin-1-p0", "paris-2-p0"), ("paris-1-p0", "berlin-2-p0")]
        .into_iter()
        .map(|(from, to)| Ok((world.lab.endpoint(from)?, world.lab.endpoint(to)?)))
        .collect()
}

fn upgraded(world: &mut World, reporter: &mut Reporter) -> Result<()> {
    recovers(world, PATIENCE)?;
    let oracle = listening(world)?;
    let before = losses(world)?;
    let pings = world
        .lab
        .ping_pairs(&cross_pairs(world)?, Duration::from_millis(10))?;
    std::thread::sleep(Duration::from_secs(1));
    world.set_agent(Path::new("/tieline").join(NEXT_AGENT));
    // The old one ends in order or by a crash: on a gateway and on another node each.
    for (name, crash) in [
        ("berlin-1", false),
        ("berlin-2", true),
        ("paris-1", true),
        ("paris-2", false),
    ] {
        if crash {
            world.kill_agent(name)?;
        } else {
            world.stop_agent(name)?;
        }
        std::thread::sleep(Duration::from_millis(500));
        world.start_agent(name)?;
        // It is through with its first look at the kernel when its numbers are served and stand still.
        eventually("the new agent to have settled", PATIENCE, || {
            let before = world.kernel_writes(name)?;
            std::thread::sleep(Duration::from_secs(1));
            ensure!(world.kernel_writes(name)? == before, "{name} still writes");
            Ok(())
        })?;
    }
    std::thread::sleep(Duration::from_secs(1));
    let report = pings.stop_within(PATIENCE / 3);
    let (sent, lost) = report.totals();
    let slowest = report.pairs.iter().map(|pair| pair.slowest).max();
    reporter.figures(
        "four agents upgraded under pings of 10 ms",
        serde_json::json!({
            "sent": sent, "lost": lost, "slowest_ms": slowest.unwrap_or_default().as_millis(),
            "dropped_at": more(&before, &losses(world)?),
        }),
    )?;
    report.expect_no_loss()?;
    eventually("every agent to report its version", PATIENCE, || {
        let versions = world.agent_versions()?;
        ensure!(versions == NEXT_VERSION, "agents of {versions} run");
        Ok(())
    })?;
    nothing_leaves(&oracle)
}

fn netem(world: &mut World, reporter: &mut Reporter) -> Result<()> {
    const DELAY: Duration = Duration::from_millis(25);
    let oracle = listening(world)?;
    // What leaves a site and what comes into it; API server and mesh alike.
    let ends = [("rt-berlin", "wan0"), ("rt-berlin", "lan0")];
    let shape = |what: &str| -> Result<()> {
        for (host, device) in ends {
            let line = format!("qdisc {what} dev {device} root netem delay 25ms 3ms loss 3%");
            let line = if what == "del" {
                format!("qdisc del dev {device} root")
            } else {
                line
            };
            world
                .lab
                .host(host)?
                .cmd("tc", &line.split_whitespace().collect::<Vec<_>>())?;
        }
        Ok(())
    };
    shape("add")?;
    let pings = world
        .lab
        .ping_pairs(&cross_pairs(world)?, Duration::from_millis(20))?;
    let flows = Flows {
        each: 1,
        patience: Duration::from_secs(30),
        ..Flows::default()
    };
    let report = world.lab.matrix(&flows)?;
    let (from, to) = (
        world.lab.endpoint("paris-1-p0")?,
        world.lab.endpoint("berlin-2-p0")?,
    );
    let mut rates = BTreeMap::new();
    for family in [Family::V4, Family::V6] {
        let sent = world.lab.bulk(&from, &to, family, 1 << 20, PATIENCE)?;
        rates.insert(
            family.to_string(),
            (sent.mbit_per_s() * 10.0).round() / 10.0,
        );
    }
    let pings = pings.stop();
    let (sent, lost) = pings.totals();
    let median = pings.pairs.iter().map(|pair| pair.median).min();
    let median = median.unwrap_or_default();
    nothing_leaves(&oracle)?;

    // A new session over that path: its handshake may lose packets too.
    world.lab.node("paris-1")?.ip("link del tie0")?;
    let start = Instant::now();
    eventually("traffic through the device made anew", PATIENCE, || {
        let flows = Flows {
            each: 1,
            patience: Duration::from_secs(5),
            ..Flows::default()
        };
        world.lab.matrix(&flows)?.expect_all()
    })?;
    let back = start.elapsed();
    shape("del")?;
    reporter.figures(
        "25 ms and 3 percent each way",
        serde_json::json!({
            "pings": sent, "lost": lost, "median_ms": median.as_millis(), "mbit_per_s": rates,
            "new device carries all pairs after seconds": (back.as_secs_f64() * 10.0).round() / 10.0,
        }),
    )?;
    report.expect_all()?;
    // The path was as bad as it claims, and the mesh no worse.
    ensure!(median >= 2 * DELAY, "the median round trip was {median:?}");
    let percent = lost as f64 * 100.0 / sent as f64;
    ensure!(
        (1.0..15.0).contains(&percent),
        "{percent:.1} % of the pings were lost: {pings}"
    );
    recovers(world, PATIENCE)?;
    // While the device was away, the gateway told senders of its own site so, over the CNI: no clear text between sites.
    oracle.report()?.expect_nothing_clear()
}

fn guard(world: &mut World, _: &mut Reporter) -> Result<()> {
    let oracle = listening(world)?;
    let nodes = world.node_names();
    for name in &nodes {
        world.kill_agent(name)?;
    }
    for name in &nodes {
        for device in devices(world, name, "")? {
            world.lab.node(name)?.ip(&format!("link del {device}"))?;
        }
    }
    world.nothing_crosses(1, Duration::from_secs(3))?;
    nothing_leaves(&oracle)?;

    let pair = [
        world.lab.endpoint("paris-1-p0")?,
        world.lab.endpoint("berlin-1-p0")?,
    ];
    world.leaks_without_the_guard(&oracle, "paris-1", &pair)?;
    for name in &nodes {
        world.start_agent(name)?;
    }
    world.wait_ready(PATIENCE, |_| {})?;
    recovers(world, PATIENCE)
}

fn cleanup(world: &mut World, reporter: &mut Reporter) -> Result<()> {
    let nodes = world.node_names();
    // Before Tieline: rebooted nodes with a CNI and no agent.
    for name in &nodes {
        world.stop_agent(name)?;
        world.lab.node(name)?.reboot()?;
    }
    for name in &nodes {
        world.lab.restore_pods(name)?;
    }
    let dump = |world: &World, name: &str| world.lab.node(name)?.dump();
    let mut before = BTreeMap::new();
    for name in &nodes {
        before.insert(name, dump(world, name)?);
    }
    for name in &nodes {
        world.start_agent(name)?;
    }
    world.wait_ready(PATIENCE, |_| {})?;
    recovers(world, PATIENCE)?;
    let mut lines = 0;
    for name in &nodes {
        let with = dump(world, name)?;
        let ours = with.mentions("tie").len() + with.mentions("7468").len();
        ensure!(ours > 20, "{name} carries no mesh: {with}");
        lines += ours;
        world.stop_agent(name)?;
        world.clean_up(name)?;
        let left = before[name].diff(&dump(world, name)?);
        ensure!(left.is_empty(), "{name}: cleanup left {left:#?}");
        ensure!(
            !world.agent_state(name)?.exists(),
            "{name}: cleanup left the state folder"
        );
    }
    reporter.figures(
        "cleanup",
        serde_json::json!({"nodes": nodes.len(), "lines of ours before": lines, "after": 0}),
    )
}

fn platform(reporter: &mut Reporter, words: &[&str]) -> Result<()> {
    if words.is_empty() {
        return platform_tests(reporter, &[]);
    }
    // A harness takes one filter.
    words
        .iter()
        .try_for_each(|word| platform_tests(reporter, &[word]))
}

fn platform_tests(reporter: &mut Reporter, filter: &[&str]) -> Result<()> {
    let output = Command::new("/tieline/platform")
        .args(["--test-threads=2", "--color=never"])
        .args(filter)
        .output()
        .context("starting the platform suite")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find(|line| line.starts_with("test result:"));
    reporter.figures("platform suite", serde_json::json!(line))?;
    ensure!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(
        line.is_some_and(|line| line.contains(" 0 failed") && !line.contains(" 0 passed")),
        "{said}"
    );
    Ok(())
}
