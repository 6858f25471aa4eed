//! Who reaches whom, before anything of ours runs.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::lab::{API4, API6, Endpoint, Family, Lab};

use super::stage::{quick, three_sites};

pub(crate) fn without_tools_it_fails() -> Result<()> {
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

pub(crate) fn reachability() -> Result<()> {
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

pub(crate) fn port_restricted() -> Result<()> {
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

pub(crate) fn pods() -> Result<()> {
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
