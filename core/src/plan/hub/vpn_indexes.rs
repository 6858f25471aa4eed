//! Device indexes of VPNs, sticky and unique within a site over all links.

use super::exports::StandingExports;
use crate::ids::{SiteName, VpnName};
use crate::plan::proposal::Before;
use std::collections::BTreeMap;

/// VPNs that a site can have: device indexes 0 to 15.
pub(super) const VPNS_PER_SITE: u8 = 16;

/// Device indexes of VPNs, unique within a site over all links.
pub(super) struct VpnIndexes<'a> {
    taken: BTreeMap<(&'a SiteName, u8), &'a VpnName>,
}

impl<'a> VpnIndexes<'a> {
    /// What plans use already.
    pub(super) fn reserve(before: &'a Before, standing: &StandingExports<'a>) -> Self {
        let mut taken = BTreeMap::new();
        for plan in before.plans.values() {
            for vpn in plan
                .vpns
                .iter()
                .filter(|vpn| standing.has_vpn(&plan.link, &vpn.name))
            {
                taken.entry((&vpn.site, vpn.index)).or_insert(&vpn.name);
            }
        }
        Self { taken }
    }

    /// The index of a VPN: what it has, else the lowest free one.
    pub(super) fn of(&mut self, name: &'a VpnName, site: &'a SiteName) -> Option<u8> {
        if let Some((_, index)) = self
            .taken
            .range((site, 0)..=(site, u8::MAX))
            .find(|(_, owner)| **owner == name)
            .map(|(key, _)| *key)
        {
            return Some(index);
        }
        let index = (0..VPNS_PER_SITE).find(|index| !self.taken.contains_key(&(site, *index)))?;
        self.taken.insert((site, index), name);
        Some(index)
    }
}
