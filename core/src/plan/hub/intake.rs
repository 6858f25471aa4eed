//! What is claimed and what is in use: sites' networks, pod ranges of clusters and nodes, services, VPNs.
//!
//! Each claim is checked against everything before it; the first owner keeps. Nothing new is cut here.

use super::book::{Clash, HubBook};
use super::membership::Membership;
use super::ranges::Holder;
use crate::cidr::{Prefix, PrefixSet};
use crate::fleet::Fleet;
use crate::ids::{LinkName, SiteName};
use crate::ledger::Use;
use crate::plan::exchange::Wish;
use std::collections::BTreeMap;

/// Sites' own ranges come before new imports: hosts cannot be renumbered.
pub(super) fn claim_lans<'a>(
    fleet: &'a Fleet,
    members: &Membership<'a>,
    inhabited: &BTreeMap<SiteName, &'a LinkName>,
    hub: &mut HubBook<'a>,
) {
    let member_sites: BTreeMap<&SiteName, &LinkName> = members
        .links
        .iter()
        .flat_map(|link| members.sites_of(link).map(move |site| (site, *link)))
        .collect();
    for (name, site) in &fleet.sites {
        let (new, link) = match member_sites.get(name) {
            Some(link) => (Holder::Lan(name), Some(*link)),
            // What a link that is only shown exports is recorded already.
            None if members.link_of_site(name).is_some() => continue,
            None => (Holder::Ground(name), inhabited.get(name).copied()),
        };
        for prefix in site.cidrs.iter() {
            if hub.lans.contains(&(name, prefix)) {
                continue;
            }
            match hub.claim(prefix, new, members) {
                Ok(()) if matches!(new, Holder::Lan(_)) => {
                    hub.lans.insert((name, prefix));
                }
                Ok(()) => {}
                Err(_) => {
                    // Not reachable, but nothing new is to lie there either.
                    hub.avoid(prefix, Holder::Ground(name));
                    if link.is_some() {
                        let subject = format!("cidrs of Site {name}:");
                        hub.note(Clash {
                            new,
                            subject,
                            prefix,
                            link,
                        });
                    }
                }
            }
        }
    }
}

/// Records `pods.cidrs`, and tells the cluster which of them somebody else has.
pub(super) fn import_cluster<'a>(wish: &Wish<'a>, hub: &mut HubBook<'a>, members: &Membership<'a>) {
    for prefix in wish.cluster.pod_cidrs.iter() {
        if hub.is_others(wish, prefix, members) {
            hub.holdings_mut(wish).lost.push(prefix);
            let subject = format!("pods.cidrs of Cluster {}:", wish.name);
            hub.note(Clash {
                new: Holder::Pods(wish.name),
                subject,
                prefix,
                link: Some(wish.link),
            });
        } else {
            hub.import(wish, prefix);
            hub.add_block(wish, prefix);
        }
    }
}

pub(super) fn claim_services_and_vpns<'a>(
    fleet: &'a Fleet,
    members: &Membership<'a>,
    wishes: &[Wish<'a>],
    hub: &mut HubBook<'a>,
) {
    let mut vpns = Vec::new();
    for link in &members.links {
        vpns.extend(members.vpns_of(link).map(|name| (name, *link)));
    }
    vpns.sort_unstable();
    for Wish {
        name,
        link,
        cluster,
        ..
    } in wishes
    {
        for prefix in cluster.service_cidrs.iter() {
            let known = hub.services.contains(&(name, prefix));
            let subject = || format!("serviceCidrs of Cluster {name}:");
            if !known && claim(hub, members, prefix, Holder::Services(name), link, subject) {
                hub.services.insert((name, prefix));
            }
        }
    }
    for (name, link) in vpns {
        for prefix in fleet.vpns[name].prefixes.iter() {
            let known = hub.vpns.contains(&(name, prefix));
            let subject = || format!("prefixes of VpnAttachment {name}:");
            if !known && claim(hub, members, prefix, Holder::Vpn(name), link, subject) {
                hub.vpns.insert((name, prefix));
            }
        }
    }
    // What is not exported is not to be given away either; it clashes with nobody.
    for (name, cluster) in &fleet.clusters {
        for prefix in cluster.service_cidrs.iter() {
            hub.avoid(prefix, Holder::Services(name));
        }
    }
    for (name, ranges) in &fleet.services_in_use {
        for prefix in ranges.iter() {
            hub.avoid(prefix, Holder::Services(name));
        }
    }
    for (name, vpn) in &fleet.vpns {
        for prefix in vpn.prefixes.iter() {
            hub.avoid(prefix, Holder::Vpn(name));
        }
    }
}

/// Claims a range that stands in a spec. Who had it first keeps it, and the other is told.
fn claim<'a>(
    hub: &mut HubBook<'a>,
    members: &Membership<'a>,
    prefix: Prefix,
    new: Holder<'a>,
    link: &'a LinkName,
    subject: impl Fn() -> String,
) -> bool {
    let claimed = hub.claim(prefix, new, members).is_ok();
    if !claimed {
        hub.note(Clash {
            new,
            subject: subject(),
            prefix,
            link: Some(link),
        });
    }
    claimed
}

/// Blocks are not cut over addresses that nodes have, also where nobody wrote down the site's ranges.
pub(super) fn avoid_node_addresses<'a>(
    fleet: &'a Fleet,
    members: &Membership<'a>,
    hub: &mut HubBook<'a>,
) {
    let pools = all_pools(members, hub);
    for (id, node) in &fleet.nodes {
        for (address, _) in &node.addresses {
            if pools.contains_address(*address) {
                hub.ranges
                    .insert(Prefix::host(*address), Holder::Address(&id.cluster));
            }
        }
    }
}

/// All that planned links may grant from.
pub(super) fn all_pools(members: &Membership<'_>, hub: &HubBook<'_>) -> PrefixSet {
    let pools = members
        .links
        .iter()
        .flat_map(|link| [Use::Pod, Use::Mesh].map(|used_for| hub.pools.of(link, used_for)));
    pools.flatten().copied().collect()
}
