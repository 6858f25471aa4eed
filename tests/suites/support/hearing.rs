//! Who hears what on the underlay, and who reaches whom.

use std::time::Duration;

use anyhow::Result;
use e2e::lab::{Flows, Oracle};
use e2e::wait::eventually;
use e2e::world::World;

/// An eavesdropper that is known to hear ([`Oracle::proven`]).
pub(crate) fn listening(world: &World) -> Result<Oracle> {
    Oracle::proven(&world.lab, world.planned()?, &world.lab.endpoints())
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
