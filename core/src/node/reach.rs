//! Who reaches whom: directly, through the transit site, or not at all; and at which endpoints.

use crate::ids::SiteName;
use crate::network_plan::{NetworkPlan, PlanSite, Segment};
use crate::peer::{AcceptedPeer, Endpoint, EndpointHost, Scope};

/// How one segment reaches another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way<'a> {
    /// By rails between their gateways.
    Direct,
    /// Through the gateways of this segment of the transit site.
    Through(&'a Segment),
    /// Not at all: both are behind NAT, and nothing joins them.
    None,
}

/// Answers about reachability.
pub(super) struct Reach<'a> {
    plan: &'a NetworkPlan,
    transit: Option<&'a Segment>,
}

impl<'a> Reach<'a> {
    pub(super) fn new(plan: &'a NetworkPlan) -> Self {
        let transit = plan.transit.as_ref().and_then(|site| {
            let there = |it: &&Segment| it.site == *site && !it.gateways.is_empty();
            plan.segments.iter().find(there)
        });
        Self { plan, transit }
    }

    pub(super) fn site(&self, name: &SiteName) -> Option<&'a PlanSite> {
        self.plan.site(name)
    }

    /// Whether gateways of a site can be dialled from other sites.
    pub(super) fn dialable(&self, site: &SiteName) -> bool {
        self.site(site)
            .is_none_or(|site| !site.behind_nat || !site.public_addresses.is_empty())
    }

    fn direct(&self, one: &SiteName, other: &SiteName) -> bool {
        one == other || self.dialable(one) || self.dialable(other)
    }

    /// The same answer for both ends.
    pub(super) fn way(&self, from: &Segment, to: &Segment) -> Way<'a> {
        if self.direct(&from.site, &to.site) {
            return Way::Direct;
        }
        match self.transit {
            Some(x)
                if self.direct(&from.site, &x.site)
                    && self.direct(&x.site, &to.site)
                    && x.name != from.name
                    && x.name != to.name =>
            {
                Way::Through(x)
            }
            _ => Way::None,
        }
    }

    /// Whether a segment's gateways carry what others send each other.
    pub(super) fn is_transit(&self, segment: &Segment) -> bool {
        self.transit.is_some_and(|x| x.name == segment.name)
    }

    /// Where a node is reached from `from`, best first. `rank`: its rank, when it is a gateway.
    pub(super) fn endpoints(
        &self,
        from: &SiteName,
        to: &AcceptedPeer,
        rank: Option<u8>,
    ) -> Vec<Endpoint> {
        let of = |scope: Scope| {
            let mut found: Vec<Endpoint> = to
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.scope == scope)
                .cloned()
                .collect();
            // Addresses before names; the sort is stable: the Node object's addresses stay before those that its agent claims.
            found.sort_by_key(|endpoint| matches!(endpoint.host, EndpointHost::Name(_)));
            found
        };
        if *from == to.site {
            let mut found = of(Scope::Site);
            found.extend(of(Scope::Public));
            return found;
        }
        let site = self.site(&to.site);
        if let Some(site) = site.filter(|site| !site.public_addresses.is_empty()) {
            let at = usize::from(rank.unwrap_or(0));
            let chosen = site
                .public_addresses
                .get(at)
                .or(site.public_addresses.first());
            return chosen.cloned().into_iter().collect();
        }
        if site.is_some_and(|site| site.behind_nat) {
            return Vec::new();
        }
        let public = of(Scope::Public);
        if public.is_empty() {
            of(Scope::Site)
        } else {
            public
        }
    }
}
