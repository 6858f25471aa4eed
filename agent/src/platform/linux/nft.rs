//! Runs `nft`, with scripts and requests as arguments and standard input only: no shell, no files.

use std::io;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// An `nft` that takes longer hangs on a lock.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest part of a script that an error shows, in bytes.
const SHOWN: usize = 200;

/// Loads a script in one transaction: all of it, or nothing.
pub(super) async fn load(script: &str) -> io::Result<()> {
    run(&["-f", "-"], script).await.map(drop)
}

/// Whether the kernel would take a script; nothing is changed.
pub(super) async fn would_load(script: &str) -> bool {
    run(&["-c", "-f", "-"], script).await.is_ok()
}

/// The kernel's own listing of a table without counter values; `None`: there is no such table.
pub(super) async fn list_table(family: &str, name: &str) -> io::Result<Option<String>> {
    match run(&["-s", "list", "table", family, name], "").await {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && error.raw_os_error().is_none() => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// All base chains of all tables, as nft's JSON.
pub(super) async fn list_chains() -> io::Result<serde_json::Value> {
    Ok(serde_json::from_str(
        &run(&["-j", "list", "chains"], "").await?,
    )?)
}

/// A base chain with its rules, as nft's JSON; nothing when a name is none that nft writes, because its arguments are a script.
pub(super) async fn list_chain(chain: &str) -> Option<serde_json::Value> {
    let words: Vec<&str> = chain.split(' ').collect();
    let plain = |word: &&str| {
        word.starts_with(|first: char| first.is_ascii_alphabetic())
            && word
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || "_-./".contains(letter))
    };
    if words.len() != 3 || !words.iter().all(plain) {
        return None;
    }
    let arguments = [&["-j", "list", "chain"], &words[..]].concat();
    serde_json::from_str(&run(&arguments, "").await.ok()?).ok()
}

async fn run(arguments: &[&str], input: &str) -> io::Result<String> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), NotInstalled(error)))?;
    let stdin = child.stdin.take();
    let talk = async {
        if let Some(mut stdin) = stdin {
            // nft that stops reading says why on its standard error.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(PATIENCE, talk)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "nft does not end"))??;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let first = complaint.lines().next().unwrap_or("nft failed").to_owned();
    let kind = if first.contains("No such file or directory") {
        io::ErrorKind::NotFound
    } else {
        io::ErrorKind::Other
    };
    Err(io::Error::new(kind, explain(&first, input)))
}

#[derive(Debug, thiserror::Error)]
#[error("cannot run nft: install the package nftables")]
struct NotInstalled(#[source] io::Error);

/// nft's complaint with the line of the script that it is about: `/dev/stdin:12:5-9: Error: …`.
fn explain(complaint: &str, script: &str) -> String {
    let line = complaint
        .split(':')
        .nth(1)
        .and_then(|number| number.parse::<usize>().ok())
        .and_then(|number| script.lines().nth(number.checked_sub(1)?));
    match line {
        Some(line) => {
            let line: String = line.trim().chars().take(SHOWN).collect();
            format!("{complaint} (in {line:?})")
        }
        None => complaint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_shows_the_line_it_is_about() {
        let script = "table netdev tieline {\n  chain out { type filter hook egress device eth9 priority 0; }\n}";
        let text = explain("/dev/stdin:2:3-7: Error: No such file or directory", script);
        assert!(text.contains("device eth9"), "{text}");
    }
}
