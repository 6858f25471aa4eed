//! The program `tieline` under the name by which kubectl finds plugins.

fn main() -> std::process::ExitCode {
    tieline_cli::run()
}
