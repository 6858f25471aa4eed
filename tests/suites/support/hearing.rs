//! Who hears what on the underlay, and who reaches whom.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::lab::{Flows, Oracle};
use e2e::world::{World, eventually};

/// An eavesdropper that is known to hear: a forged clear packet on every site's switch was counted.
pub(crate) fn listening(world: &World) -> Result<Oracle> {
    let planned = world.planned()?;
    let ends = world.lab.endpoints();
    let from = ends.first().context("no pods")?;
    let to = ends
        .iter()
        .find(|end| end.segment != from.segment)
        .context("one segment only")?;
    let mut oracle = Oracle::start(&world.lab, planned)?;
    for site in &world.lab.topology().sites {
        oracle.reset()?;
        let (from, to) = (from.addresses[0], to.addresses[0]);
        oracle.inject(&world.lab, &site.name, from, to, 3)?;
        let report = oracle.report()?;
        ensure!(
            report.clear_packets() >= 3,
            "positive control at {}: {report}",
            site.name
        );
    }
    oracle.reset()?;
    Ok(oracle)
}

/// Everybody reaches everybody again within `patience`.
pub(crate) fn recovers(world: &World, patience: Duration) -> Result<()> {
    let flows = Flows {
        each: 1,
        patience: Duration::from_secs(2),
        ..Flows::default()
    };
    eventually("every pair to work again", patience, || {
        world.lab.matrix(&flows)?.expect_all()
    })
}
