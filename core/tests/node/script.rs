//! Every firewall that a node may get is loaded by the real `nft`, in a network namespace of its own.
//!
//! The one test of this crate that starts a program: only nft knows whether it takes a script.
#![allow(clippy::disallowed_methods)]

use crate::fleet::{Shape, SiteShape, facts, world};
use std::io::Write;
use std::process::{Command, Stdio};
use tieline_core::fleet::Granularity;
use tieline_core::host::firewall::{Ruleset, SetName};
use tieline_core::node::{node_config, resolve};

/// Loads scripts one after the other in one new namespace, twice each, and returns the last listing.
pub(crate) fn load(scripts: &[String]) -> Result<String, String> {
    let mut child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-ec"])
        // eth0 is what the egress guard hooks into; scripts are separated by a line of their own.
        .arg(
            "ip link add eth0 type veth peer name far\n\
             script=''\n\
             while IFS= read -r line; do\n\
               if [ \"$line\" = '---' ]; then printf '%s\\n' \"$script\" | nft -f - ; script=''\n\
               else script=\"$script\n$line\"; fi\n\
             done\n\
             nft list ruleset",
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("this test needs `unshare`: {error}"))?;
    let mut text = String::new();
    for script in scripts {
        // Loading what is loaded already must work as well as loading it anew.
        for _ in 0..2 {
            text += script;
            text += "---\n";
        }
    }
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .map_err(|error| error.to_string())?;
    let output = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!(
            "{}\nin\n{text}",
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}

/// The firewalls of every kind of node.
fn rulesets() -> Vec<Ruleset> {
    let site = |vpn, behind_nat| SiteShape {
        nodes: vec![3, 2],
        ranks: vec![0, 1],
        behind_nat,
        lan: true,
        vpn,
    };
    let shape = Shape {
        sites: vec![site(false, true), site(true, false), site(false, true)],
        transit: Some(1),
        granularity: Granularity::Site,
        ipv6: true,
        services: true,
        imported: false,
    };
    let world = world(&shape);
    let members = world.peers.iter().map(|(name, peer)| {
        let config = node_config(&world.plan, &world.peers, Some(name));
        resolve(&config, &facts(peer)).firewall.unwrap()
    });
    let stranger = facts(world.peers.values().next().unwrap());
    let guard = resolve(&node_config(&world.plan, &world.peers, None), &stranger);
    members.chain(guard.firewall).collect()
}

#[test]
fn what_is_planned_is_loaded_after_what_is_excepted_from_it() {
    for ruleset in rulesets() {
        for table in &ruleset.tables {
            let first = table
                .sets
                .iter()
                .position(|set| set.name == SetName::Planned);
            let rest = &table.sets[first.unwrap()..];
            assert!(
                rest.iter().all(|set| set.name == SetName::Planned),
                "{table}"
            );
        }
    }
}

#[test]
fn nft_loads_the_firewall_of_every_kind_of_node_and_removes_it_again() {
    let mut scripts: Vec<String> = rulesets().iter().map(Ruleset::script).collect();
    scripts.sort_unstable();
    scripts.dedup();
    assert!(scripts.len() > 4);
    let listing = load(&scripts).unwrap();
    assert!(listing.contains("table inet tieline") && listing.contains("table netdev tieline"));
    scripts.push(Ruleset::removal_script(true));
    assert_eq!(load(&scripts).unwrap(), "");
}
