//! `bench-core NAME`: measures one thing and prints its samples.

mod node;
mod plan;
mod ranges;

use anyhow::{Result, bail};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("plan") => plan::measure(),
        Some("node") => node::measure(),
        Some("ranges") => ranges::measure(),
        _ => bail!("write one of: plan, node, ranges"),
    }
}
