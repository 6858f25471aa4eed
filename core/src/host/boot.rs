//! What holds a host's planned ranges closed from its boot until the agent runs.
//!
//! A reboot empties the kernel, and pods may start before the agent does. The part of a host's state that needs no tunnel
//! (rules, the guard's routes, the firewall) is therefore also kept as text that the host's own `ip` and `nft` load, so that
//! nothing of ours has to run that early, and anyone can read what is loaded.

use super::firewall::{Ruleset, TableFamily};
use super::{HostState, ROUTE_PROTOCOL, Selector, Target};
use crate::cidr::Family;
use std::fmt::Write;

/// The guard as input of the host's tools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BootGuard {
    /// For `ip -4 -force -batch`: what is there already is an error that `-force` passes over.
    pub ipv4: String,
    /// For `ip -6 -force -batch`.
    pub ipv6: String,
    /// For `nft -f`. Without the netdev table, whose devices may not exist so early.
    pub nft: String,
}

impl BootGuard {
    /// The part of a host's state that stands without tunnels.
    #[must_use]
    pub fn of(state: &HostState) -> Self {
        let firewall = state.firewall.as_ref();
        let forwarding = firewall.map(|ruleset| Ruleset {
            tables: ruleset
                .tables
                .iter()
                .filter(|table| table.family != TableFamily::Netdev)
                .cloned()
                .collect(),
        });
        Self {
            ipv4: batch(state, Family::V4),
            ipv6: batch(state, Family::V6),
            nft: forwarding.map_or_else(String::new, |ruleset| ruleset.script()),
        }
    }
}

/// Routes before rules: a rule must never lead into a table that is not full yet.
fn batch(state: &HostState, family: Family) -> String {
    let mut text = String::new();
    for (key, route) in &state.routes {
        let kind = match route.target {
            Target::Unreachable => "unreachable",
            Target::Throw => "throw",
            Target::Devices(_) => continue,
        };
        if key.prefix.family() == family {
            let _ = writeln!(
                text,
                "route add {kind} {} table {} metric {} proto {ROUTE_PROTOCOL}",
                key.prefix, key.table, key.metric
            );
        }
    }
    let standing =
        |rule: &&super::Rule| rule.family == family && !matches!(rule.selector, Selector::From(_));
    for rule in state.rules.iter().filter(standing) {
        let selector = match &rule.selector {
            Selector::Mark { mark, mask } => format!("fwmark {mark:#x}/{mask:#x}"),
            Selector::To(prefix) => format!("to {prefix}"),
            Selector::All | Selector::From(_) => "from all".to_owned(),
        };
        let _ = write!(
            text,
            "rule add pref {} {selector} table {} protocol kernel",
            rule.preference, rule.table
        );
        if let Some(len) = rule.suppress_prefix_len {
            let _ = write!(text, " suppress_prefixlength {len}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cidr::Prefix;
    use crate::host::{DeviceName, Route, RouteKey, Rule};

    #[test]
    fn what_needs_a_tunnel_is_left_out_and_routes_come_before_rules() {
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        let key = |table, text, metric| RouteKey {
            table,
            prefix: prefix(text),
            metric,
        };
        let rule = |preference, family, selector, table, suppress_prefix_len| Rule {
            preference,
            family,
            selector,
            table,
            suppress_prefix_len,
        };
        let state = HostState {
            routes: [
                (key(7468, "10.64.0.0/10", 4000), Target::Unreachable),
                (key(7468, "10.64.1.0/24", 100), Target::Throw),
                (
                    key(7468, "10.65.0.0/16", 100),
                    Target::Devices(vec![DeviceName::outer(0)]),
                ),
                (key(7469, "fd00:64::/48", 4000), Target::Unreachable),
            ]
            .map(|(key, target)| (key, Route::bare(target)))
            .into(),
            rules: [
                rule(103, Family::V4, Selector::All, 7468, None),
                rule(
                    104,
                    Family::V4,
                    Selector::To(prefix("10.64.0.0/16")),
                    254,
                    Some(0),
                ),
                rule(
                    102,
                    Family::V4,
                    Selector::From(DeviceName::outer(0)),
                    7470,
                    None,
                ),
                rule(105, Family::V6, Selector::All, 7469, None),
            ]
            .into(),
            ..HostState::default()
        };
        let guard = BootGuard::of(&state);
        assert_eq!(
            guard.ipv4,
            "route add unreachable 10.64.0.0/10 table 7468 metric 4000 proto 84\n\
             route add throw 10.64.1.0/24 table 7468 metric 100 proto 84\n\
             rule add pref 103 from all table 7468 protocol kernel\n\
             rule add pref 104 to 10.64.0.0/16 table 254 protocol kernel suppress_prefixlength 0\n"
        );
        assert_eq!(
            guard.ipv6,
            "route add unreachable fd00:64::/48 table 7469 metric 4000 proto 84\n\
             rule add pref 105 from all table 7469 protocol kernel\n"
        );
        assert!(guard.nft.is_empty());
    }
}
