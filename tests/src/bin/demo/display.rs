//! What the person in front of the demo sees.

// A demo speaks to its user.
#![allow(clippy::print_stdout)]

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use e2e::lab::{CaptureReport, Endpoint, MatrixReport, from_outside};
use e2e::world::World;

use crate::report::{Link, Report};

/// Steps with the seconds that each took.
pub(crate) struct Steps {
    colour: bool,
    start: Instant,
    current: Option<Instant>,
}

impl Steps {
    pub(crate) fn new(colour: bool) -> Self {
        Self {
            colour,
            start: Instant::now(),
            current: None,
        }
    }

    /// The step before is done, this one begins.
    pub(crate) fn begin(&mut self, what: &str) {
        self.done();
        println!("{:>6.1} s  {what}", self.start.elapsed().as_secs_f64());
        self.current = Some(Instant::now());
    }

    /// Something about the current step.
    pub(crate) fn note(&self, what: &str) {
        println!("          {}", self.dim(&shortened(what, 150)));
    }

    /// The last step is done.
    pub(crate) fn done(&mut self) {
        if let Some(begun) = self.current.take() {
            println!(
                "          {}",
                self.dim(&format!("done in {:.1} s", begun.elapsed().as_secs_f64()))
            );
        }
    }

    pub(crate) fn failed(&self, why: &str) {
        println!(
            "\nFAILED after {:.1} s: {why}",
            self.start.elapsed().as_secs_f64()
        );
    }

    fn dim(&self, text: &str) -> String {
        if self.colour {
            format!("\x1b[2m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// `kubectl get` of our kinds, without server noise.
pub(crate) fn objects(world: &World) -> Result<()> {
    let kinds = "clusterlinks.tieline.dev,clusters.tieline.dev,sites.tieline.dev,vpnattachments.tieline.dev,\
                 addressledgers.tieline.dev,networkplans.tieline.dev,peers.tieline.dev";
    println!("\n$ kubectl get tieline --all-namespaces");
    println!(
        "{}",
        world
            .control_plane
            .kubectl(&["get", kinds, "--all-namespaces"])?
            .trim_end()
    );
    println!("\n$ kubectl get nodes -o custom-columns=…");
    let columns = "custom-columns=NODE:.metadata.name,SITE:.metadata.labels.topology\\.kubernetes\\.io/region,\
                   ADDRESS:.status.addresses[0].address,POD-CIDR:.spec.podCIDR";
    println!(
        "{}",
        world
            .control_plane
            .kubectl(&["get", "nodes", "-o", columns])?
            .trim_end()
    );
    Ok(())
}

/// Who reaches whom: rows send, columns receive.
pub(crate) fn matrix(ends: &[Endpoint], matrix: &MatrixReport) {
    println!(
        "\nWho reaches whom (rows send, columns receive; TCP and UDP, each from several ports)"
    );
    println!("  ok  every flow answered, the receiver saw the sender's own address");
    println!(
        "  cni same site, carried by the CNI    SRC source address lost    --  some flow unanswered\n"
    );
    let width = ends.iter().map(|end| end.name.len()).max().unwrap_or(0);
    print!("{:width$} {:15}", "", "");
    for end in ends {
        print!(" {:>width$}", end.name);
    }
    println!();
    for from in ends {
        let address = from
            .addresses
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        print!("{:width$} {address:15}", from.name);
        for to in ends {
            print!(" {:>width$}", cell(matrix, &from.name, &to.name));
        }
        println!();
    }
}

fn cell(matrix: &MatrixReport, from: &str, to: &str) -> &'static str {
    let results: Vec<_> = matrix
        .pairs
        .iter()
        .filter(|pair| pair.from == from && pair.to == to)
        .collect();
    match results.first() {
        None => ".",
        Some(_) if results.iter().any(|pair| pair.ok < pair.total) => "--",
        Some(pair) if !pair.crosses => "cni",
        Some(_) if results.iter().any(|pair| !pair.source_kept) => "SRC",
        Some(_) => "ok",
    }
}

pub(crate) fn links(links: &[Link]) {
    println!(
        "\n{:14} {:14} {:>12} {:>12} {:>14}",
        "from", "to", "RTT p50", "RTT max", "TCP"
    );
    for link in links {
        println!(
            "{:14} {:14} {:>9.2} ms {:>9.2} ms {:>7.0} Mbit/s",
            link.from, link.to, link.rtt_ms_p50, link.rtt_ms_max, link.tcp_mbit_per_s
        );
    }
}

pub(crate) fn summary(report: &Report, capture: &CaptureReport) {
    println!(
        "\nReady            {:.1} s after kubectl apply",
        report.seconds_to_ready
    );
    println!(
        "a node joins     {:.3} s to its first packet (median of {}, slowest {:.3} s)",
        report.seconds_join_p50, report.joins, report.seconds_join_max
    );
    println!(
        "pairs            {} of {}",
        report.pairs_ok, report.pairs_total
    );
    println!(
        "clear text       {} of {} packets on the underlay",
        report.clear_text_packets, report.packets_seen
    );
    println!("WireGuard        {}", report.wireguard_backend);
    if capture.clear_packets() > 0 {
        println!("{capture}");
    }
}

pub(crate) fn where_next(world: &World, report: &Path, keep: bool) {
    println!("\nWhere to look next");
    println!("  the report        {}", report.display());
    println!("  logs              {}", world.lab.logs().display());
    let cli = world.programs().cli.display();
    println!("  the plan, offline {cli} plan -f examples/three-sites");
    println!("  a node, offline   {cli} node-config -f examples/three-sites --node paris-1");
    if !keep {
        println!("  look around       make demo KEEP=1");
    }
}

pub(crate) fn verdict(wrong: &[String]) {
    if wrong.is_empty() {
        println!("\nEverything works.");
    } else {
        println!("\nNOT everything works: {}.", wrong.join("; "));
    }
}

/// How to look around from another terminal, and how to stop.
pub(crate) fn keep(world: &World) -> Result<()> {
    let (pid, enter) = from_outside().context("this process is in no lab")?;
    let kubeconfig = world.control_plane.kubeconfig().display();
    println!("\nIt goes on running. From another terminal, as the same user:\n");
    println!("  alias lab='{enter} --'");
    println!(
        "  lab {} --kubeconfig {kubeconfig} get tieline --all-namespaces",
        world.kubectl_path().display()
    );
    println!(
        "  lab {} status --kubeconfig {kubeconfig}",
        world.programs().cli.display()
    );
    println!("  lab ip netns list                                 all hosts, switches and pods");
    println!("  lab ip netns exec paris-1 ip route show table 7468");
    println!("  lab ip netns exec paris-1 nft list table inet tieline");
    println!("  lab ip netns exec berlin-1-p0 ping 172.16.9.10");
    println!("\nStop it with Ctrl-C here, or with kill -KILL {pid}");
    Ok(())
}
