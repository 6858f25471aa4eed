//! The laboratory tested on itself, without any agent: an oracle that hears nothing or a NAT
//! that lets everything in would make every later test worthless.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::lab::{
    API4, API6, Endpoint, Family, Flows, Lab, Lifetime, NodeRules, Oracle, Planned, Pods, Protocol,
    RuleFlavour, SiteKind, Topology, enter,
};
use libtest_mimic::{Arguments, Trial};

/// Set for the copy of this binary that one test starts in order to kill it.
const VICTIM: &str = "LAB_SELFTEST_VICTIM";

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
            "a machine that cannot hold a lab is told so and fails",
            without_tools_it_fails,
        ),
        trial(
            "only a natted site cannot be reached from outside",
            reachability,
        ),
        trial(
            "a NAT answers only to the very address it was asked by",
            port_restricted,
        ),
        trial("pods reach each other inside a site and nowhere else", pods),
        trial(
            "planned packets that leave in clear are counted",
            real_leaks_are_heard,
        ),
        trial(
            "forged clear packets are counted, plain and inside VXLAN",
            positive_control,
        ),
        trial(
            "a fast transfer arrives intact and the capture hears all of it",
            bulk,
        ),
        trial("a ping stream loses nothing until the path is broken", ping),
        trial("a plain WireGuard box connects the VPN's LAN host", vpn),
        trial("a dump shows what changed and nothing else", dumps),
        trial("a rebooted node comes back as it was", reboot),
        trial("a node joins a running lab", join),
        trial(
            "iptables rules of a real node translate inside a site",
            iptables_rules,
        ),
        trial(
            "nftables rules of a real node translate inside a site",
            nft_rules,
        ),
        trial("a dropped lab leaves no namespace and no process", clean_up),
        trial("nothing outlives a killed test", nothing_outlives),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn trial(name: &'static str, test: fn() -> Result<()>) -> Trial {
    Trial::test(name, move || {
        test().map_err(|error| format!("{error:#}").into())
    })
}

/// The lab that tests share, under the name of its topology.
static LAB: Mutex<Option<(&str, Lab)>> = Mutex::new(None);

fn with_lab(
    name: &'static str,
    topology: Topology,
    test: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<()> {
    let mut shared = LAB.lock().unwrap_or_else(PoisonError::into_inner);
    if shared.as_ref().is_none_or(|(built, _)| *built != name) {
        // Names of namespaces are used once at a time.
        drop(shared.take());
        let start = Instant::now();
        let lab = Lab::build(&format!("selftest-{name}"), topology)?;
        lab.assign_pods(&prefixes(&lab))?;
        let took = start.elapsed();
        ensure!(
            took < Duration::from_secs(10),
            "building the lab took {took:?}"
        );
        *shared = Some((name, lab));
    }
    let (_, lab) = shared.as_mut().context("no lab")?;
    test(lab)
}

fn three_sites(test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    with_lab("three-sites", Topology::three_sites().dual_stack(), test)
}

/// Pod prefixes by hand: 10.<64 + site>.<node>.0/24 and fd64:<site>:<node>::/64.
fn prefixes(lab: &Lab) -> Pods {
    let site = |name: &str| lab.topology().find_site(name).map_or(0, |(index, _)| index);
    let mut counts = [0; 16];
    lab.topology()
        .nodes
        .iter()
        .map(|node| {
            let site = site(&node.site);
            counts[site] += 1;
            let number = counts[site];
            let v4 = format!("10.{}.{number}.0/24", 64 + site);
            let v6 = format!("fd64:{site}:{number}::/64");
            (
                node.name.clone(),
                vec![v4.parse().unwrap(), v6.parse().unwrap()],
            )
        })
        .collect()
}

fn planned(lab: &Lab) -> Vec<Planned> {
    let mut all: Vec<Planned> = lab
        .nodes()
        .flat_map(|node| {
            let segment = node.spec().segment();
            node.pod_prefixes()
                .into_iter()
                .map(move |net| Planned::new(net, segment.clone()))
        })
        .collect();
    all.push(Planned::new("172.16.9.0/24".parse().unwrap(), "vpn/hq"));
    all.push(Planned::new("fdaa:16:9::/64".parse().unwrap(), "vpn/hq"));
    all
}

/// The nodes themselves and the API server's host as ends of traffic, with servers.
fn hosts(lab: &Lab) -> Result<(Vec<Endpoint>, Vec<e2e::lab::Server>)> {
    let mut ends: Vec<Endpoint> = lab
        .nodes()
        .map(|node| Endpoint {
            name: node.name().to_owned(),
            segment: node.spec().site.clone(),
            addresses: std::iter::once(node.address4().into())
                .chain(node.address6().map(IpAddr::from))
                .collect(),
            ns: node.ns(),
        })
        .collect();
    ends.push(Endpoint {
        name: "api".into(),
        segment: "api".into(),
        addresses: vec![API4.into(), API6.into()],
        ns: lab.host("api")?.clone(),
    });
    let servers = ends
        .iter()
        .map(|end| lab.serve(end))
        .collect::<Result<_>>()?;
    Ok((ends, servers))
}

fn quick(each: u32) -> Flows {
    Flows {
        each,
        patience: Duration::from_millis(700),
        ..Flows::default()
    }
}

fn without_tools_it_fails() -> Result<()> {
    let run = Command::new(std::env::current_exe()?)
        .env_remove("TIELINE_LAB_STAGE")
        .env("PATH", "/nonexistent")
        .output()?;
    let said = String::from_utf8_lossy(&run.stderr);
    ensure!(run.status.code() == Some(1), "exit {:?}", run.status);
    ensure!(
        said.contains("no ip in PATH (Debian package iproute2)"),
        "it said: {said}"
    );
    Ok(())
}

fn reachability() -> Result<()> {
    three_sites(|lab| {
        let (ends, _servers) = hosts(lab)?;
        let report = lab.matrix_of(&ends, &quick(1))?;
        ensure!(report.pairs_total() == 42, "{} pairs", report.pairs_total());
        let natted = |name: &str| name.starts_with("berlin");
        for pair in &report.pairs {
            let inside = natted(&pair.from) && natted(&pair.to);
            let open = inside || !natted(&pair.to);
            ensure!(pair.ok == u32::from(open), "{pair}");
            let translated = natted(&pair.from) && !inside && pair.family == Family::V4;
            ensure!(!open || pair.source_kept != translated, "source of {pair}");
            let router = lab.router_address("berlin")?;
            ensure!(
                !translated || pair.seen == BTreeSet::from([router]),
                "source of {pair}"
            );
        }
        Ok(())
    })
}

fn port_restricted() -> Result<()> {
    three_sites(|lab| {
        // A hole made by talking to one public node: another must not come in through it.
        let (inside, asked, other) = (
            lab.node("berlin-1")?,
            lab.node("paris-1")?,
            lab.node("paris-2")?,
        );
        let bind = |node: &e2e::lab::Node, port: u16| {
            let address = node.address4();
            node.ns().run(move || {
                let socket = std::net::UdpSocket::bind((address, port))?;
                socket.set_read_timeout(Some(Duration::from_millis(300)))?;
                Ok(socket)
            })
        };
        let (nat, public, stranger) = (bind(inside, 9100)?, bind(asked, 9100)?, bind(other, 9100)?);
        nat.send_to(b"hole", (asked.address4(), 9100))?;
        let mut buffer = [0; 16];
        let (_, hole) = public.recv_from(&mut buffer)?;
        ensure!(
            hole.ip() == lab.router_address("berlin")?,
            "came from {hole}"
        );
        stranger.send_to(b"stranger", hole)?;
        let wrong_port = bind(asked, 9101)?;
        wrong_port.send_to(b"wrong port", hole)?;
        public.send_to(b"answer", hole)?;
        let (length, _) = nat.recv_from(&mut buffer)?;
        ensure!(
            &buffer[..length] == b"answer",
            "{:?} came in",
            String::from_utf8_lossy(&buffer[..length])
        );
        ensure!(
            nat.recv_from(&mut buffer).is_err(),
            "something else came in too"
        );
        Ok(())
    })
}

fn pods() -> Result<()> {
    three_sites(|lab| {
        let report = lab.matrix(&quick(1))?;
        ensure!(report.pairs_total() == 42, "{} pairs", report.pairs_total());
        for pair in &report.pairs {
            ensure!(pair.ok == u32::from(!pair.crosses), "{pair}");
            ensure!(pair.crosses || pair.source_kept, "source of {pair}");
        }
        Ok(())
    })
}

fn real_leaks_are_heard() -> Result<()> {
    three_sites(|lab| {
        let oracle = Oracle::start(lab, planned(lab))?;
        let inside = [lab.endpoint("paris-1-p0")?, lab.endpoint("paris-2-p0")?];
        lab.matrix_of(&inside, &quick(2))?.expect_all()?;
        let quiet = oracle.report()?;
        quiet.expect_nothing_clear()?;
        ensure!(quiet.frames > 0, "traffic inside a site crosses its switch");

        let leaking = [lab.endpoint("paris-1-p0")?, lab.endpoint("oslo-1-p0")?];
        lab.matrix_of(&leaking, &quick(1))?;
        let report = oracle.report()?;
        let count = |from: &str, to: &str| {
            report
                .clear
                .get(&(from.into(), to.into()))
                .copied()
                .unwrap_or(0)
        };
        ensure!(
            count("shop/paris", "shop/oslo") > 0 && count("shop/oslo", "shop/paris") > 0,
            "{report}"
        );
        ensure!(report.clear.len() == 2, "{report}");
        Ok(())
    })
}

fn positive_control() -> Result<()> {
    three_sites(|lab| {
        let mut oracle = Oracle::start(lab, planned(lab))?;
        let pairs: [(IpAddr, IpAddr); 2] = [
            ("10.64.1.5".parse()?, "10.65.1.5".parse()?),
            ("fd64:0:1::5".parse()?, "fd64:1:1::5".parse()?),
        ];
        for (from, to) in pairs {
            for site in ["berlin", "paris", "oslo"] {
                oracle.reset()?;
                oracle.inject(lab, site, from, to, 3)?;
                let report = oracle.report()?;
                // Once on the switch; the router knows no way on.
                ensure!(
                    report.clear_packets() == 3,
                    "{from} -> {to} at {site}: {report}"
                );
                ensure!(
                    report.expect_nothing_clear().is_err(),
                    "a report with clear text passed"
                );
            }
            oracle.reset()?;
            oracle.inject_vxlan(lab, "berlin", from, to, 3)?;
            let report = oracle.report()?;
            // The overlay's packet is routed: over its own switch, the WAN and the other site's switch.
            ensure!(
                report.clear_packets() == 9,
                "{from} -> {to} inside VXLAN: {report}"
            );
        }
        oracle.update(vec![Planned::new("10.64.0.0/10".parse()?, "all one")])?;
        oracle.reset()?;
        oracle.inject(lab, "berlin", pairs[0].0, pairs[0].1, 3)?;
        ensure!(
            oracle.report()?.clear_packets() == 0,
            "one segment alone is not clear text"
        );
        Ok(())
    })
}

fn bulk() -> Result<()> {
    three_sites(|lab| {
        let (from, to) = (lab.endpoint("oslo-1-p0")?, lab.endpoint("oslo-2-p0")?);
        // A capture that lost frames proves nothing. On a busy machine that can happen: then it is heard again.
        let mut report = None;
        for _ in 0..3 {
            let oracle = Oracle::start(lab, planned(lab))?;
            for family in [Family::V4, Family::V6] {
                let done = lab.bulk(&from, &to, family, 10 << 20, Duration::from_secs(20))?;
                ensure!(
                    done.bytes == 10 << 20 && done.mbit_per_s() > 10.0,
                    "{done:?}"
                );
            }
            let heard = oracle.report()?;
            let whole = heard.dropped == 0;
            report = Some(heard);
            if whole {
                break;
            }
        }
        report.context("nothing was heard")?.expect_nothing_clear()
    })
}

fn ping() -> Result<()> {
    three_sites(|lab| {
        let ends = [lab.endpoint("oslo-1-p0")?, lab.endpoint("oslo-2-p0")?];
        let stream = lab.ping(&ends, Duration::from_millis(10))?;
        std::thread::sleep(Duration::from_secs(1));
        let report = stream.stop();
        ensure!(
            report.pairs.len() == 4 && report.totals().0 >= 200,
            "{report}"
        );
        report.expect_no_loss()?;

        let stream = lab.ping(&ends, Duration::from_millis(10))?;
        std::thread::sleep(Duration::from_millis(300));
        lab.node("oslo-1")?.blackhole(true)?;
        std::thread::sleep(Duration::from_millis(400));
        lab.node("oslo-1")?.blackhole(false)?;
        std::thread::sleep(Duration::from_millis(500));
        let report = stream.stop();
        ensure!(
            report.losers().len() == 4 && report.expect_no_loss().is_err(),
            "{report}"
        );
        let gap = report.longest_gap();
        ensure!(
            (300..900).contains(&gap.as_millis()),
            "gap {gap:?} for a break of 400 ms: {report}"
        );

        lab.node("oslo-1")?.unplug()?;
        let cut = lab.matrix_of(&ends, &quick(1))?;
        lab.node("oslo-1")?.plug()?;
        ensure!(cut.answered().is_empty(), "answers without a cable: {cut}");
        lab.first_answer(&ends[0], &ends[1], Family::V4, Duration::from_secs(3))?;
        ensure!(lab.round_trips(&ends[0], &ends[1], Family::V4, 20)?.len() == 20);
        Ok(())
    })
}

fn vpn() -> Result<()> {
    three_sites(|lab| {
        let oracle = Oracle::start(lab, planned(lab))?;
        let (vpn, node) = (lab.vpn()?, lab.node("oslo-1")?);
        let ((box_private, box_public), (private, public)) = (vpn.new_keys()?, vpn.new_keys()?);
        vpn.up(&format!(
            "[Interface]\nPrivateKey = {box_private}\nListenPort = 51820\nAddress = 10.66.1.1/32\n\
             [Peer]\nPublicKey = {public}\nAllowedIPs = 10.66.0.0/16\n"
        ))?;
        let mut process = node.spawn(
            "wireguard-go",
            Command::new("wireguard-go")
                .args(["-f", "wgt"])
                .env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1"),
        )?;
        let end = Instant::now() + Duration::from_secs(5);
        while node.cmd("wg", &["show", "wgt"]).is_err() {
            ensure!(Instant::now() < end, "wireguard-go says: {}", process.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        let config = format!(
            "[Interface]\nPrivateKey = {private}\n[Peer]\nPublicKey = {box_public}\nAllowedIPs = 172.16.9.0/24\n\
             Endpoint = {}:51820\n",
            vpn.spec().address4
        );
        node.ns()
            .feed("wg", &["setconf", "wgt", "/dev/stdin"], &config)?;
        node.ns().ip_batch(&[
            "link set wgt mtu 1420 up",
            "route add 172.16.9.0/24 dev wgt src 10.66.1.1",
        ])?;
        let (from, to) = (lab.endpoint("oslo-1-p0")?, vpn.endpoint());
        lab.first_answer(&from, &to, Family::V4, Duration::from_secs(8))?;
        let flows = Flows {
            families: vec![Family::V4],
            protocols: vec![Protocol::Tcp],
            ..Flows::default()
        };
        let report = lab.matrix_of(&[from.clone(), to.clone()], &flows)?;
        report.expect_all()?;
        lab.bulk(&from, &to, Family::V4, 10 << 20, Duration::from_secs(30))?;
        ensure!(
            vpn.handshakes()?.get(&public).is_some_and(|time| *time > 0),
            "no handshake seen"
        );
        oracle.report()?.expect_nothing_clear()?;

        process.kill()?;
        vpn.down()?;
        ensure!(vpn.handshakes().is_err(), "the box still answers");
        ensure!(
            !node.ip("link")?.contains("wgt"),
            "the device outlived its process"
        );
        Ok(())
    })
}

fn dumps() -> Result<()> {
    three_sites(|lab| {
        let node = lab.node("paris-1")?;
        let before = node.dump()?;
        lab.matrix(&Flows {
            families: vec![Family::V4],
            ..quick(1)
        })?;
        let later = node.dump()?;
        ensure!(
            before == later,
            "traffic alone changed: {:?}",
            before.diff(&later)
        );
        node.ip("rule add pref 103 lookup 7468")?;
        node.ip("route add unreachable 10.64.0.0/10 table 7468")?;
        node.nft("table inet marker { chain c { type filter hook input priority 0; counter; }; }")?;
        let changed = node.dump()?;
        let diff = before.diff(&changed);
        for area in [
            "rules IPv4: +103",
            "routes IPv4: +unreachable 10.64.0.0/10",
            "nft: +table inet marker",
        ] {
            ensure!(
                diff.iter().any(|line| line.starts_with(area)),
                "{area} is not in {diff:?}"
            );
        }
        ensure!(
            changed.mentions("7468").len() == 2,
            "{:?}",
            changed.mentions("7468")
        );
        node.ip("rule del pref 103")?;
        node.ip("route flush table 7468")?;
        node.nft("delete table inet marker")?;
        let undone = node.dump()?;
        ensure!(before == undone, "left behind: {:?}", before.diff(&undone));
        Ok(())
    })
}

fn reboot() -> Result<()> {
    three_sites(|lab| {
        let node = lab.node("paris-2")?;
        let before = node.dump()?;
        std::fs::write(node.disk().join("kept"), "yes")?;
        let mut process = node.spawn("sleeper", Command::new("sleep").arg("1000"))?;
        ensure!(process.is_running() && node.ns().pids().len() == 1);
        node.ip("route add 10.99.0.0/16 dev eth0")?;

        node.reboot()?;
        ensure!(!process.is_running(), "a process outlived the reboot");
        ensure!(node.endpoints().is_empty(), "pods outlived the reboot");
        ensure!(node.cmd("hostname", &[])?.trim() == "paris-2");
        ensure!(std::fs::read_to_string(node.disk().join("kept"))? == "yes");
        lab.restore_pods("paris-2")?;
        let after = node.dump()?;
        ensure!(before == after, "{:?}", before.diff(&after));
        let pair = [lab.endpoint("paris-1-p0")?, lab.endpoint("paris-2-p0")?];
        lab.matrix_of(&pair, &quick(1))?.expect_all()
    })
}

fn join() -> Result<()> {
    three_sites(|lab| {
        let node = lab.add_node("paris", "shop")?;
        ensure!(node.name() == "paris-3");
        lab.assign_pods(&prefixes(lab))?;
        let ends: Vec<_> = ["paris-1-p0", "paris-2-p0", "paris-3-p0"]
            .iter()
            .map(|name| lab.endpoint(name))
            .collect::<Result<_>>()?;
        lab.matrix_of(&ends, &quick(1))?.expect_all()
    })
}

fn iptables_rules() -> Result<()> {
    masquerade(RuleFlavour::Iptables, "iptables")
}

fn nft_rules() -> Result<()> {
    masquerade(RuleFlavour::Nft, "nft")
}

/// With the CNI's own rules, another node's pod sees the node and not the pod: what a cross-site
/// packet has to survive is really there.
fn masquerade(flavour: RuleFlavour, name: &'static str) -> Result<()> {
    let topology = Topology::empty()
        .dual_stack()
        .site("oslo", SiteKind::Routed, [172, 22, 5, 0], 24)
        .nodes("oslo", "shop", 2);
    with_lab(name, topology, |lab| {
        lab.matrix(&quick(1))?.expect_all()?;
        lab.install_rules(&NodeRules {
            flavour,
            cluster_cidrs: vec!["10.64.0.0/16".parse()?, "fd64::/32".parse()?],
            service_cidrs: vec!["10.96.0.0/16".parse()?, "fd96::/112".parse()?],
        })?;
        let report = lab.matrix(&quick(2))?;
        ensure!(report.failures().is_empty(), "{report}");
        for pair in &report.pairs {
            let node = lab.node(pair.from.trim_end_matches("-p0"))?;
            let wanted = match pair.family {
                Family::V4 => IpAddr::from(node.address4()),
                Family::V6 => node.address6().context("dual-stack")?.into(),
            };
            ensure!(pair.seen == BTreeSet::from([wanted]), "{pair}");
        }
        for node in lab.nodes() {
            let dump = node.dump()?;
            ensure!(
                dump.mentions("masquerade").len() + dump.mentions("MASQUERADE").len() >= 4,
                "{dump}"
            );
            ensure!(
                dump.area("nft")
                    .iter()
                    .any(|line| line.to_lowercase().contains("invalid")),
                "{dump}"
            );
        }
        Ok(())
    })
}

fn clean_up() -> Result<()> {
    three_sites(|lab| {
        for node in lab.nodes() {
            // Left running on purpose: the lab has to end it.
            std::mem::forget(node.spawn("sleeper", Command::new("sleep").arg("1000"))?);
        }
        Ok(())
    })?;
    drop(LAB.lock().unwrap_or_else(PoisonError::into_inner).take());
    let names: Vec<_> = std::fs::read_dir("/run/netns")?
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    ensure!(names.is_empty(), "namespaces left: {names:?}");
    let left = processes("sleep");
    ensure!(left.is_empty(), "processes left: {left:?}");
    let links = Command::new("ip").args(["-br", "link"]).output()?;
    let links = String::from_utf8_lossy(&links.stdout).into_owned();
    ensure!(links.lines().count() == 1, "links left: {links}");
    Ok(())
}

/// Builds a lab with a process in it, says so, and waits to be killed.
fn victim() -> Result<()> {
    let topology = Topology::empty()
        .site("oslo", SiteKind::Routed, [172, 22, 5, 0], 24)
        .nodes("oslo", "shop", 1);
    let lab = Lab::build("selftest-victim", topology)?;
    let _sleeper = lab
        .node("oslo-1")?
        .spawn("sleeper", Command::new("sleep").arg("98765"))?;
    let mut out = std::io::stdout();
    std::io::Write::write_all(&mut out, b"ready\n")?;
    std::thread::sleep(Duration::from_secs(60));
    bail!("nobody killed the victim");
}

fn nothing_outlives() -> Result<()> {
    let mut outer = Command::new(std::env::current_exe()?)
        .env_remove("TIELINE_LAB_STAGE")
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(outer.stdout.take().context("no output")?).read_line(&mut line)?;
    ensure!(line == "ready\n", "the victim said {line:?}");
    // A process of a nested PID namespace is visible from out here.
    ensure!(
        processes("98765").len() == 1,
        "the victim's process is not there"
    );
    outer.kill()?;
    outer.wait()?;
    let end = Instant::now() + Duration::from_secs(3);
    while !processes("98765").is_empty() {
        ensure!(
            Instant::now() < end,
            "still there 3 s later: {:?}",
            processes("98765")
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Command lines of running processes that hold `word`.
fn processes(word: &str) -> Vec<String> {
    let Ok(all) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    all.flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .bytes()
                .all(|byte| byte.is_ascii_digit())
        })
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok())
        .filter(|line| line.contains(word))
        .collect()
}
