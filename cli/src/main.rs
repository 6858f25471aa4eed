//! The program `tieline`.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The version that this build reports; only this file is compiled again for another one.
const VERSION: &str = match option_env!("TIELINE_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

fn main() -> std::process::ExitCode {
    tieline_cli::run(VERSION)
}
