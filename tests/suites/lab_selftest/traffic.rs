//! Transfers and ping streams.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::lab::{Family, Oracle};

use super::stage::{planned, quick, three_sites};

pub(crate) fn bulk() -> Result<()> {
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

pub(crate) fn ping() -> Result<()> {
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
