//! Generation, drift and dependency checks: `cargo run -p xtask -- help`.
//!
//! | command | what it does |
//! |---|---|
//! | `crds` | writes `crds/yaml/` and the chart's `templates/crds/` from the Rust types |
//! | `crds --check` | fails when they are not what the types say |
//! | `docs` | writes `docs/api.md` from the Rust types, `docs/metrics.md` from what the programs serve, and the last table of `docs/troubleshooting.md` from the reasons that they give |
//! | `docs --check` | fails when they are not what those say |
//! | `deps` | fails when a crate uses what the workspace's rules forbid it, or modules of `core` or `operator` use each other in a circle |
//! | `image` | builds the programs and writes the image as an OCI archive, with its SBOMs |

#![allow(clippy::print_stdout)] // A command line tool: its output is its result.

mod crds;
mod deps;
mod docs;
mod image;
mod modules;

use clap::{Parser, Subcommand};

/// Generation, drift and dependency checks.
#[derive(Parser)]
#[command(name = "xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Write crds/yaml/ and the chart's templates/crds/ from the Rust types.
    Crds {
        /// Write nothing; fail when a file differs.
        #[arg(long)]
        check: bool,
    },
    /// Write docs/api.md, docs/metrics.md and the last table of docs/troubleshooting.md.
    Docs {
        /// Write nothing; fail when a page differs.
        #[arg(long)]
        check: bool,
    },
    /// Fail when a crate uses what the rules of ARCHITECTURE.md forbid it, or modules use each other in a circle.
    Deps,
    /// Build the programs, static, and write the image as an OCI archive with its SBOMs.
    Image(image::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Crds { check: false } => println!("{}", crds::write()?),
        Task::Crds { check: true } => println!("{}", crds::check()?),
        Task::Docs { check: false } => println!("{}", docs::write()?),
        Task::Docs { check: true } => println!("{}", docs::check()?),
        Task::Deps => println!("{}\n{}", deps::check()?, modules::check()?),
        Task::Image(arguments) => println!("{}", image::write(&arguments)?),
    }
    Ok(())
}

/// The root of the workspace.
fn root() -> anyhow::Result<std::path::PathBuf> {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    anyhow::Context::context(here.parent().map(Into::into), "xtask/ has no parent folder")
}
