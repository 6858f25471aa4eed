//! The program `tieline`.

fn main() -> std::process::ExitCode {
    tieline_cli::run()
}
