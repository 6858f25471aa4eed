//! Reads one number of a program's `/metrics`, which is served on the loopback of its own host.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::NetNs;

/// Where an agent serves its metrics.
const AGENT: &str = "127.0.0.1:21980";

/// The value of a counter without labels.
pub(super) fn counter(ns: &NetNs, name: &str) -> Result<u64> {
    let page = ns.run(|| {
        let mut stream = TcpStream::connect(AGENT).with_context(|| format!("asking {AGENT}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    })?;
    value(&page, name).with_context(|| format!("no number {name} in the metrics of {}", ns.name()))
}

fn value(page: &str, name: &str) -> Option<u64> {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_whole_name() {
        let page = "# TYPE x_writes counter\nx_writes_total_more 3\nx_writes_total 12\n# EOF\n";
        assert_eq!(value(page, "x_writes_total"), Some(12));
        assert_eq!(value(page, "x_writes"), None);
    }
}
