//! Why there is no address, in words: clashes with both sides and free alternatives, and exhausted pools.

use super::book::{Clash, HubBook};
use super::membership::Membership;
use super::pools::field;
use super::ranges::{Holder, occupies};
use crate::cidr::{Family, Prefix};
use crate::ids::{LinkName, NodeId, NodeName};
use crate::ledger::Use;
use crate::notice::{About, Reason};
use crate::plan::exchange::{BlockAsk, NodeClash, Wish};
use crate::plan::lengths::Lengths;
use crate::plan::report::{Reporter, listed};
use crate::plan::space::{Busy, FreeSpace};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

impl<'a> HubBook<'a> {
    /// Why a link's pools have no block left, and what would help.
    pub(super) fn exhausted(
        &mut self,
        link: &'a LinkName,
        used_for: Use,
        family: Family,
        len: u8,
    ) -> String {
        let pools: Vec<Prefix> = self
            .pools
            .of(link, used_for)
            .iter()
            .copied()
            .filter(|pool| pool.family() == family)
            .collect();
        let field = field(used_for);
        if pools.is_empty() {
            return format!(
                "ClusterLink {link} has no {family} range in addressing.{field}: add one"
            );
        }
        let largest = pools
            .iter()
            .filter_map(|pool| self.space(link, *pool, used_for).free.largest())
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
    pub(super) fn report_clashes(&self, members: &Membership<'a>, report: &mut Reporter) {
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
            let about = match clash.new {
                Holder::Lan(site) | Holder::Ground(site) => About::Site(site.clone()),
                Holder::Vpn(vpn) => About::VpnAttachment(vpn.clone()),
                Holder::Pods(cluster)
                | Holder::Services(cluster)
                | Holder::Mesh(cluster)
                | Holder::Address(cluster) => About::Cluster(cluster.clone()),
                Holder::Idle | Holder::DefaultMesh => continue,
                Holder::Reserved(link) | Holder::Pool(link) | Holder::MeshPool(link) => {
                    About::ClusterLink(link.clone())
                }
            };
            report.refuse(
                about,
                clash.link,
                Reason::RangeClash,
                format!(
                    "{} {} overlaps {sides}, which was first, and {effect}; {help}",
                    clash.subject, clash.prefix
                ),
            );
        }
    }
}

impl<'a> HubBook<'a> {
    /// Says that a cluster has no first block.
    pub(super) fn report_no_block(
        &mut self,
        wish: &Wish<'a>,
        ask: BlockAsk,
        report: &mut Reporter,
    ) {
        let BlockAsk {
            used_for,
            family,
            len,
        } = ask;
        let why = self.exhausted(wish.link, used_for, family, len);
        report.refuse(
            About::Cluster(wish.name.clone()),
            Some(wish.link),
            Reason::PoolExhausted,
            format!(
                "Cluster {} needs one more {family} block, a /{len}, but {why}",
                wish.name
            ),
        );
    }

    /// Says which nodes have no share, and why.
    pub(super) fn report_missing(
        &mut self,
        wish: &Wish<'a>,
        missing: &BTreeMap<(Use, Family), Vec<NodeName>>,
        report: &mut Reporter,
    ) {
        for ((used_for, family), nodes) in missing {
            let blocks = &self.holdings(wish).blocks;
            let has_block =
                *used_for == Use::Mesh || blocks.iter().any(|block| block.family() == *family);
            if !has_block {
                continue; // the missing block is reported already
            }
            let lengths = Lengths::of(wish.addressing, *used_for, *family);
            let what = match used_for {
                Use::Pod => "pods",
                Use::Mesh => "the mesh",
            };
            let why = self.exhausted(wish.link, *used_for, *family, lengths.block);
            report.refuse(
                About::Cluster(wish.name.clone()),
                Some(wish.link),
                Reason::PoolExhausted,
                format!(
                    "{} node(s) of Cluster {} have no {family} range for {what}, a /{} each: {}. The cluster's blocks are full, and {why}",
                    nodes.len(),
                    wish.name,
                    lengths.node,
                    listed(nodes)
                ),
            );
        }
    }

    /// Says what the pod ranges of left-out nodes meet. At the end of the run, so that the next run says the same.
    pub(super) fn note_clashing_nodes(
        &mut self,
        wish: &Wish<'a>,
        nodes: &[NodeClash],
        members: &Membership<'a>,
        report: &mut Reporter,
    ) {
        type Sides<'a> = Vec<(Prefix, Holder<'a>)>;
        let id = |node: &NodeName| NodeId {
            cluster: wish.name.clone(),
            node: node.clone(),
        };
        let mut clashes: BTreeMap<Sides<'a>, Vec<(Prefix, &NodeName)>> = BTreeMap::new();
        for clash in nodes {
            let lost = &self.holdings(wish).lost;
            // The clash of a whole range is reported once, with the cluster.
            let mut seen = clash.pod_cidrs.iter();
            if seen.any(|prefix| lost.iter().any(|lost| lost.contains(*prefix))) {
                continue;
            }
            let elsewhere = clash.pod_cidrs.iter().find_map(|prefix| {
                let held = self.clashing(*prefix, Holder::Pods(wish.name), members);
                (!held.is_empty()).then_some((*prefix, held))
            });
            if let Some((prefix, held)) = elsewhere {
                let nodes = clashes.entry(held).or_default();
                nodes.push((prefix, &clash.node));
            } else if let Some((prefix, other, owner)) = &clash.within {
                report.refuse(
                    About::Node(id(&clash.node)),
                    Some(wish.link),
                    Reason::RangeClash,
                    format!(
                        "podCIDR {prefix} of node {} overlaps {other} of node {owner} in Cluster {}, which was first; the node is left out: delete one of the two Node objects, and let it register again with a podCIDR of its own",
                        clash.node, wish.name
                    ),
                );
            }
        }
        for nodes in clashes.into_values() {
            let names = listed(nodes.iter().map(|(_, node)| node));
            let subject = format!("podCIDR of node {names} in Cluster {}:", wish.name);
            self.note(Clash {
                new: Holder::Pods(wish.name),
                subject,
                prefix: nodes[0].0,
                link: Some(wish.link),
            });
        }
    }
}
