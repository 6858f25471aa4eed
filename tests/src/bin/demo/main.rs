//! The demo: six nodes in three sites and the company VPN on this machine, from nothing to encrypted traffic.
//!
//! Runs as an ordinary user where user namespaces allow it. Everything lives in namespaces that end with this process.

mod display;
mod report;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use e2e::lab::{Endpoint, Family, Flows, Lifetime, Oracle, enter};
use e2e::world::{Joins, Story, World};

use display::Steps;
use report::{Link, Report};

/// How many nodes join and leave again, for the median.
const JOINS: usize = 5;
/// Bytes of each throughput measurement.
const BULK: u64 = 10 << 20;

/// Starts the lab, applies examples/three-sites, waits until it is Ready and shows what works.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Options {
    /// Where the report goes, as JSON.
    #[arg(long, default_value = "target/demo/report.json")]
    report: PathBuf,
    /// Leave everything running afterwards, until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    enter(if options.keep {
        Lifetime::Own
    } else {
        Lifetime::WithParent
    });
    let mut steps = Steps::new(std::io::stdout().is_terminal());
    match run(&options, &mut steps) {
        Ok(code) => code,
        Err(error) => {
            steps.failed(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options, steps: &mut Steps) -> Result<ExitCode> {
    steps.begin("building the lab and starting a control plane in it");
    let mut world = World::build(Story::three_sites("demo"))?;
    steps.begin("starting the operator and an agent on every node");
    world.install()?;

    steps.begin("applying examples/three-sites");
    let applied = Instant::now();
    world.apply_example()?;
    steps.begin("configuring the VPN's box from the Secret that the operator wrote");
    world.connect_vpn()?;
    steps.begin("waiting until the ClusterLink is Ready");
    world.wait_ready(Duration::from_secs(120), |why| steps.note(why))?;
    let seconds_to_ready = applied.elapsed().as_secs_f64();
    steps.begin("starting pods on the ranges that the nodes were given");
    world.assign_pods()?;

    steps.begin("sending from every end to every other, with an eavesdropper on every link");
    let oracle = Oracle::start(&world.lab, world.planned()?)?;
    positive_control(&world, oracle, steps)
        .and_then(|oracle| finish(options, steps, &mut world, &oracle, seconds_to_ready))
}

/// A forged clear packet must be counted, or a count of 0 means nothing.
fn positive_control(world: &World, mut oracle: Oracle, steps: &mut Steps) -> Result<Oracle> {
    let ends = world.lab.endpoints();
    let from = ends.first().context("no pods")?;
    let to = ends
        .iter()
        .find(|end| end.segment != from.segment)
        .context("one segment only")?;
    oracle.inject(&world.lab, "berlin", from.addresses[0], to.addresses[0], 1)?;
    let heard = oracle.report()?.clear_packets();
    anyhow::ensure!(
        heard > 0,
        "the eavesdropper did not hear a forged clear packet, so its count is worth nothing"
    );
    steps.note(
        "the eavesdropper heard a forged clear packet, as it should; its count starts again at 0",
    );
    oracle.reset()?;
    Ok(oracle)
}

fn finish(
    options: &Options,
    steps: &mut Steps,
    world: &mut World,
    oracle: &Oracle,
    seconds_to_ready: f64,
) -> Result<ExitCode> {
    let flows = Flows {
        // Ready means that every path has had its handshake; one lost SYN is forgiven.
        patience: Duration::from_secs(2),
        ..Flows::default()
    };
    let matrix = world.lab.matrix(&flows)?;
    steps.begin("measuring round trips and throughput between the sites");
    let links = links(world, steps);
    steps.begin("letting nodes join and leave");
    let joins = joins(world, steps)?;
    let capture = oracle.report()?;
    steps.done();

    let report = Report::new(world, &matrix, &capture, &links, &joins, seconds_to_ready)?;
    display::objects(world)?;
    display::matrix(&world.lab.endpoints(), &matrix);
    display::links(&links);
    display::summary(&report, &capture);
    report.write(&options.report)?;
    let verdict = report.verdict();
    display::where_next(world, &options.report, options.keep);
    display::verdict(&verdict);
    if options.keep {
        display::keep(world)?;
        // Signals end process 1 of the namespace and with it everything.
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
    Ok(if verdict.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One end of every segment to one of every other.
fn links(world: &World, steps: &Steps) -> Vec<Link> {
    let mut ends: Vec<Endpoint> = Vec::new();
    for end in world.lab.endpoints() {
        if ends.iter().all(|chosen| chosen.segment != end.segment) {
            ends.push(end);
        }
    }
    let mut links = Vec::new();
    for (index, from) in ends.iter().enumerate() {
        for to in &ends[index + 1..] {
            // A pair that does not work is the matrix's to tell; the others are still worth measuring.
            match link(world, from, to) {
                Ok(link) => links.push(link),
                Err(error) => steps.note(&format!("{error:#}")),
            }
        }
    }
    links
}

fn link(world: &World, from: &Endpoint, to: &Endpoint) -> Result<Link> {
    let times = world.lab.round_trips(from, to, Family::V4, 50)?;
    let bulk = world
        .lab
        .bulk(from, to, Family::V4, BULK, Duration::from_secs(60))?;
    Ok(Link {
        from: from.name.clone(),
        to: to.name.clone(),
        rtt_ms_p50: report::milliseconds(times.get(times.len() / 2).copied().unwrap_or_default()),
        rtt_ms_max: report::milliseconds(times.last().copied().unwrap_or_default()),
        tcp_mbit_per_s: bulk.mbit_per_s().round(),
    })
}

fn joins(world: &mut World, steps: &mut Steps) -> Result<Joins> {
    let to = world.lab.endpoint("oslo-1-p0")?;
    let mut joins = Joins::default();
    for _ in 0..JOINS {
        let join = world.join("paris", &to)?;
        steps.note(&format!(
            "{} spoke to {} after {:.3} s",
            join.node,
            to.name,
            join.first_packet.as_secs_f64()
        ));
        joins.push(&join);
        world.leave(&join.node)?;
    }
    world.wait_ready(Duration::from_secs(30), |_| {})?;
    Ok(joins)
}
