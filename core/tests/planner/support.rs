//! Fleets in few words.

use std::net::IpAddr;
use tieline_core::check::check;
use tieline_core::cidr::Prefix;
use tieline_core::fleet::{Addressing, Topology};
use tieline_core::fleet::{Cluster, Fleet, Granularity, Link, Mode, Node, Site, SiteSource, Vpn};
use tieline_core::ids::{ClusterName, Lineage, LinkName, NodeId, NodeName, SiteName, VpnName};
use tieline_core::keys::PublicKey;
use tieline_core::ledger::{Grant, LedgerName, Ledgers, State, Use};
use tieline_core::network_plan::{Class, NetworkPlan, Segment};
use tieline_core::notice::Notice;
use tieline_core::peer::Scope;
use tieline_core::plan::{Before, NodePlan, Proposal, plan};

/// Label that names a node's site.
pub const SITE_LABEL: &str = "topology.kubernetes.io/region";

pub fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub fn link_name(text: &str) -> LinkName {
    LinkName::new(text).unwrap()
}

pub fn cluster_name(text: &str) -> ClusterName {
    ClusterName::new(text).unwrap()
}

pub fn site_name(text: &str) -> SiteName {
    SiteName::new(text).unwrap()
}

pub fn vpn_name(text: &str) -> VpnName {
    VpnName::new(text).unwrap()
}

pub fn node_id(cluster: &str, node: &str) -> NodeId {
    NodeId {
        cluster: cluster_name(cluster),
        node: NodeName::new(node).unwrap(),
    }
}

pub fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| p(text)).collect()
}

/// A cluster whose nodes name their site by label.
pub fn new_cluster(assign: bool) -> Cluster {
    Cluster {
        sites: SiteSource::FromNodeLabel(SITE_LABEL.to_owned()),
        pod_cidrs: Default::default(),
        assign,
        service_cidrs: Default::default(),
        gateway_selector: Default::default(),
    }
}

/// Nothing planned yet.
pub fn nothing() -> Before {
    Before {
        lineage: Lineage::new("lineage0test").unwrap(),
        ledgers: Ledgers::new(),
        plans: Default::default(),
    }
}

/// What stands after a proposal was written.
pub fn written(before: &Before, proposal: &Proposal) -> Before {
    Before {
        lineage: before.lineage.clone(),
        ledgers: proposal.ledgers.clone(),
        plans: proposal.plans.clone(),
    }
}

/// A fleet that is changed step by step, with what was planned so far.
#[derive(Debug, Clone)]
pub struct World {
    pub fleet: Fleet,
    pub before: Before,
}

impl World {
    pub fn new() -> Self {
        Self {
            fleet: Fleet::default(),
            before: nothing(),
        }
    }

    /// A link with pod pools.
    pub fn link(&mut self, name: &str, pools: &[&str]) -> &mut Link {
        self.fleet
            .links
            .entry(link_name(name))
            .or_insert_with(|| Link {
                clusters: Default::default(),
                sites: Default::default(),
                vpns: Default::default(),
                addressing: Addressing {
                    pod_pools: prefixes(pools),
                    ..Addressing::default()
                },
                topology: Topology {
                    granularity: Granularity::Site,
                    gateways_per_site: 1,
                    transit_site: None,
                },
                mode: Mode::Apply,
            })
    }

    /// A member cluster whose nodes name their site by label.
    pub fn cluster(&mut self, link: &str, name: &str, assign: bool) -> &mut Cluster {
        self.link(link, &[]).clusters.insert(cluster_name(name));
        self.fleet
            .clusters
            .entry(cluster_name(name))
            .or_insert_with(|| new_cluster(assign))
    }

    /// A ready node in a site.
    pub fn node(&mut self, cluster: &str, name: &str, site: &str, pod_cidrs: &[&str]) -> &mut Node {
        let node = self.fleet.nodes.entry(node_id(cluster, name)).or_default();
        node.labels.insert(SITE_LABEL.to_owned(), site.to_owned());
        node.pod_cidrs = prefixes(pod_cidrs);
        node.ready = true;
        node
    }

    pub fn address(&mut self, cluster: &str, node: &str, address: &str, scope: Scope) {
        let address: IpAddr = address.parse().unwrap();
        self.fleet
            .nodes
            .get_mut(&node_id(cluster, node))
            .unwrap()
            .addresses
            .push((address, scope));
    }

    pub fn remove_node(&mut self, cluster: &str, name: &str) {
        self.fleet.nodes.remove(&node_id(cluster, name)).unwrap();
    }

    /// A member site's LAN.
    pub fn lan(&mut self, link: &str, name: &str, cidrs: &[&str]) {
        self.link(link, &[]).sites.insert(site_name(name));
        self.site(name, cidrs);
    }

    /// A site's facts.
    pub fn site(&mut self, name: &str, cidrs: &[&str]) -> &mut Site {
        let site = self.fleet.sites.entry(site_name(name)).or_default();
        site.cidrs = prefixes(cidrs).into();
        site
    }

    pub fn vpn(&mut self, link: &str, name: &str, site: &str, ranges: &[&str]) -> &mut Vpn {
        self.link(link, &[]).vpns.insert(vpn_name(name));
        self.fleet
            .vpns
            .entry(vpn_name(name))
            .or_insert_with(|| Vpn {
                site: site_name(site),
                prefixes: prefixes(ranges).into(),
                allow_clusters: Default::default(),
                allow_sites: Default::default(),
                peer_public_key: PublicKey::from_bytes([9; 32]).unwrap(),
                endpoint: None,
                preshared_key: false,
            })
    }

    /// Plans, has it checked, and plans again: the second time nothing may change.
    pub fn look(&self) -> Proposal {
        let proposal = plan(&self.fleet, &self.before);
        assert_eq!(check(&self.fleet, &self.before, &proposal), []);
        let after = written(&self.before, &proposal);
        let again = plan(&self.fleet, &after);
        assert_same(&proposal, &again, "planning twice changed something");
        assert_eq!(check(&self.fleet, &after, &again), []);
        proposal
    }

    /// Plans and writes.
    pub fn go(&mut self) -> Proposal {
        let proposal = self.look();
        self.before = written(&self.before, &proposal);
        proposal
    }
}

/// Fails with the lines that differ.
pub fn assert_same(one: &Proposal, other: &Proposal, why: &str) {
    if one != other {
        let (one, other) = (format!("{one:#?}"), format!("{other:#?}"));
        let only = |a: &str, b: &str| {
            let b: Vec<&str> = b.lines().collect();
            a.lines()
                .filter(|line| !b.contains(line))
                .collect::<Vec<_>>()
                .join("\n")
        };
        panic!(
            "{why}\n--- only in one:\n{}\n--- only in the other:\n{}",
            only(&one, &other),
            only(&other, &one)
        );
    }
}

/// What a proposal says, for assertions.
pub trait Said {
    fn plan_of(&self, link: &str) -> &NetworkPlan;
    fn node(&self, cluster: &str, node: &str) -> &NodePlan;
    fn is_planned(&self, cluster: &str, node: &str) -> bool;
    fn segment(&self, link: &str, segment: &str) -> &Segment;
    fn grants(&self, ledger: &str) -> Vec<String>;
    fn refusal(&self, kind: &str, name: &str) -> &Notice;
    fn waiting(&self, kind: &str, name: &str) -> &Notice;
    fn is_quiet(&self) -> bool;
}

impl Said for Proposal {
    fn plan_of(&self, link: &str) -> &NetworkPlan {
        &self.plans[&link_name(link)]
    }

    fn node(&self, cluster: &str, node: &str) -> &NodePlan {
        self.nodes
            .get(&node_id(cluster, node))
            .unwrap_or_else(|| panic!("{cluster}/{node} is not planned: {:#?}", self.report))
    }

    fn is_planned(&self, cluster: &str, node: &str) -> bool {
        self.nodes.contains_key(&node_id(cluster, node))
    }

    fn segment(&self, link: &str, segment: &str) -> &Segment {
        let plan = self.plan_of(link);
        plan.segments
            .iter()
            .find(|s| s.name.as_str() == segment)
            .unwrap_or_else(|| panic!("no segment {segment} in {plan:#?}"))
    }

    fn grants(&self, ledger: &str) -> Vec<String> {
        let ledger = &self.ledgers[&LedgerName::parse(ledger).unwrap()];
        ledger.grants.iter().map(grant_text).collect()
    }

    fn refusal(&self, kind: &str, name: &str) -> &Notice {
        notice(&self.report.refusals, kind, name)
    }

    fn waiting(&self, kind: &str, name: &str) -> &Notice {
        notice(&self.report.waiting, kind, name)
    }

    fn is_quiet(&self) -> bool {
        self.report.refusals.is_empty() && self.report.waiting.is_empty()
    }
}

fn notice<'n>(notices: &'n [Notice], kind: &str, name: &str) -> &'n Notice {
    let found: Vec<_> = notices
        .iter()
        .filter(|n| n.about.to_string() == format!("{kind} {name}"))
        .collect();
    assert_eq!(
        found.len(),
        1,
        "notices on {kind} {name} among {notices:#?}"
    );
    found[0]
}

/// `10.64.0.0/16 Pod Cluster shop Active`
pub fn grant_text(grant: &Grant) -> String {
    let used_for = match grant.used_for {
        Use::Pod => "Pod",
        Use::Mesh => "Mesh",
    };
    let state = match grant.state {
        State::Active => "Active",
        State::Imported => "Imported",
        State::Released => "Released",
    };
    format!("{} {used_for} {} {state}", grant.prefix, grant.owner)
}

/// `10.64.0.0/20 Pod`
pub fn contents(segment: &Segment) -> Vec<String> {
    segment
        .prefixes
        .iter()
        .map(|entry| {
            let class = match entry.class {
                Class::Pod => "Pod",
                Class::Service => "Service",
                Class::Lan => "Lan",
                Class::Vpn => "Vpn",
                Class::Mesh => "Mesh",
            };
            format!("{} {class}", entry.prefix)
        })
        .collect()
}

/// `0 shop.a`
pub fn gateways(segment: &Segment) -> Vec<String> {
    segment
        .gateways
        .iter()
        .map(|gateway| format!("{} {}", gateway.rank, gateway.peer))
        .collect()
}
