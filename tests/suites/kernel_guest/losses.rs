//! Where packets got lost: the kernel's own counters, which tell an overrun queue from a missing route.

use std::collections::BTreeMap;

use anyhow::Result;
use e2e::world::World;

/// What kernels of nodes and pods dropped so far, by place and reason.
pub(crate) fn losses(world: &World) -> Result<BTreeMap<String, u64>> {
    let mut all = BTreeMap::new();
    let nodes = world.lab.nodes().map(|node| node.ns());
    let pods = world.lab.endpoints().into_iter().map(|end| end.ns);
    for ns in nodes.chain(pods) {
        let snmp = ns.cmd("cat", &["/proc/thread-self/net/snmp"])?;
        let lines: Vec<&str> = snmp.lines().collect();
        for pair in lines.chunks(2) {
            let [names, values] = pair else { continue };
            let words = names.split_whitespace().zip(values.split_whitespace());
            for (name, value) in words.filter(|(name, _)| is_drop(name)) {
                let kind = names.split(':').next().unwrap_or_default();
                all.insert(
                    format!("{} {kind} {name}", ns.name()),
                    value.parse().unwrap_or(0),
                );
            }
        }
        let snmp6 = ns.cmd("cat", &["/proc/thread-self/net/snmp6"])?;
        for line in snmp6.lines() {
            if let Some((name, value)) = line.split_once(char::is_whitespace)
                && is_drop(name)
            {
                all.insert(
                    format!("{} {name}", ns.name()),
                    value.trim().parse().unwrap_or(0),
                );
            }
        }
        let links: serde_json::Value = serde_json::from_str(&ns.ip("-s -j link show")?)?;
        for link in links.as_array().into_iter().flatten() {
            for at in ["rx/dropped", "tx/dropped", "rx/errors", "tx/errors"] {
                let value = link.pointer(&format!("/stats64/{at}"));
                all.insert(
                    format!("{} {} {at}", ns.name(), link["ifname"]),
                    value.and_then(serde_json::Value::as_u64).unwrap_or(0),
                );
            }
        }
    }
    let softnet = std::fs::read_to_string("/proc/net/softnet_stat")?;
    for (cpu, line) in softnet.lines().enumerate() {
        let dropped = line.split_whitespace().nth(1).unwrap_or("0");
        all.insert(
            format!("backlog of CPU {cpu}"),
            u64::from_str_radix(dropped, 16)?,
        );
    }
    Ok(all)
}

fn is_drop(name: &str) -> bool {
    ["Error", "Discard", "NoRoute", "NoPorts"]
        .iter()
        .any(|word| name.contains(word))
}

/// What came on top of `before`.
pub(crate) fn more(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    after
        .iter()
        .map(|(what, count)| {
            (
                what.clone(),
                count - before.get(what).copied().unwrap_or(0).min(*count),
            )
        })
        .filter(|(_, count)| *count > 0)
        .collect()
}
