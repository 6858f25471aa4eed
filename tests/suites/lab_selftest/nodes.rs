//! Dumps of nodes, and nodes that reboot and join.

use std::process::Command;

use anyhow::{Result, ensure};
use e2e::lab::{Family, Flows};

use super::stage::{prefixes, quick, three_sites};

pub(crate) fn dumps() -> Result<()> {
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

pub(crate) fn reboot() -> Result<()> {
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

pub(crate) fn join() -> Result<()> {
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
