//! Whether what leaves in clear is heard.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use e2e::lab::{Oracle, Planned};

use super::stage::{planned, quick, three_sites};

pub(crate) fn real_leaks_are_heard() -> Result<()> {
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

pub(crate) fn positive_control() -> Result<()> {
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
