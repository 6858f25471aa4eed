//! Why there is no address, in words: clashes with both sides and free alternatives, and exhausted pools.

use super::hub::{Hub, occupies};
use super::members::Members;
use super::ranges::Holder;
use super::report::{Reporter, listed};
use super::space::{Busy, FreeSpace};
use crate::cidr::{Family, Prefix};
use crate::ids::LinkName;
use crate::ledger::Use;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

impl<'a> Hub<'a> {
    /// Why a link's pools have no block left, and what would help.
    pub(super) fn exhausted(
        &mut self,
        link: &'a LinkName,
        used_for: Use,
        family: Family,
        len: u8,
    ) -> String {
        let pools: Vec<Prefix> = self
            .pools(link, used_for)
            .iter()
            .copied()
            .filter(|pool| pool.family() == family)
            .collect();
        let field = if used_for == Use::Pod {
            "podPools"
        } else {
            "meshPools"
        };
        if pools.is_empty() {
            return format!(
                "ClusterLink {link} has no {family} range in addressing.{field}: add one"
            );
        }
        let largest = pools
            .iter()
            .filter_map(|pool| self.space(link, *pool, used_for).largest())
            .min();
        let covering: BTreeSet<String> = pools
            .iter()
            .flat_map(|pool| {
                self.ranges
                    .overlapping(*pool)
                    .filter(|(prefix, held)| {
                        prefix.contains(*pool) && occupies(*held, used_for, link)
                    })
                    .map(|(prefix, held)| format!("{held} ({prefix})"))
            })
            .collect();
        let mut text = format!(
            "addressing.{field} of ClusterLink {link} ({}) have no free /{len}",
            listed(&pools)
        );
        if !covering.is_empty() {
            text += &format!(", because {} cover what is in them", listed(&covering));
        }
        let family_field = if family == Family::V4 { "v4" } else { "v6" };
        let alternative = self
            .alternatives(family, len)
            .first()
            .map(|free| format!(", for example {free}"))
            .unwrap_or_default();
        match largest {
            Some(largest) if used_for == Use::Pod => {
                text += &format!(
                    "; the largest free range is a /{largest}: add a pool{alternative}, or set addressing.clusterPrefixLength.{family_field} to {largest} or more"
                );
            }
            _ => text += &format!(": add a pool{alternative}"),
        }
        text
    }

    /// Free ranges of a length in private space, outside everything that is known.
    pub(super) fn alternatives(&self, family: Family, len: u8) -> Vec<Prefix> {
        let private: [Prefix; 3] = match family {
            Family::V4 => [
                Prefix::containing(IpAddr::from([10, 0, 0, 0]), 8),
                Prefix::containing(IpAddr::from([172, 16, 0, 0]), 12),
                Prefix::containing(IpAddr::from([192, 168, 0, 0]), 16),
            ],
            Family::V6 => {
                [Prefix::containing(IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0)), 8); 3]
            }
        };
        let busy = private
            .iter()
            .flat_map(|root| self.ranges.overlapping(*root))
            .map(|(prefix, _)| prefix);
        FreeSpace::new(family, private, &Busy::of(family, busy)).peek(len)
    }

    /// One notice for each clash, with both sides and free alternatives.
    pub(super) fn report_clashes(&self, members: &Members<'a>, report: &mut Reporter) {
        let mut free: BTreeMap<(Family, u8), Vec<Prefix>> = BTreeMap::new();
        for clash in &self.clashes {
            let key = (clash.prefix.family(), clash.prefix.len());
            let alternatives = free
                .entry(key)
                .or_insert_with(|| self.alternatives(key.0, key.1));
            // All of them, also those that came later in this run: the next run must say the same.
            let held = self.clashing(clash.prefix, clash.new, members);
            let sides = listed(
                held.iter()
                    .map(|(prefix, held)| format!("{prefix} ({held})")),
            );
            let effect = match clash.new {
                Holder::Services(_) => {
                    "is not reachable from other members; everything else of the cluster works"
                }
                Holder::Ground(_) => "is not kept free for the site",
                _ => "is left out",
            };
            let help = if alternatives.is_empty() {
                "no private range of this size is free: write a smaller one".to_owned()
            } else {
                format!("free ranges of this size: {}", listed(alternatives.iter()))
            };
            let (kind, name) = match clash.new {
                Holder::Lan(site) | Holder::Ground(site) => ("Site", site.as_str()),
                Holder::Vpn(vpn) => ("VpnAttachment", vpn.as_str()),
                Holder::Pods(cluster)
                | Holder::Services(cluster)
                | Holder::Mesh(cluster)
                | Holder::Address(cluster) => ("Cluster", cluster.as_str()),
                Holder::Idle | Holder::DefaultMesh => continue,
                Holder::Reserved(link) | Holder::Pool(link) | Holder::MeshPool(link) => {
                    ("ClusterLink", link.as_str())
                }
            };
            report.refuse(
                kind,
                name,
                clash.link,
                "RangeClash",
                format!(
                    "{} {} overlaps {sides}, which was first, and {effect}; {help}",
                    clash.subject, clash.prefix
                ),
            );
        }
    }
}
