//! NetworkPlan and the plan of `core`.

use super::fleet::foreign_endpoint;
use super::{Invalid, Object, texts};
use crate::cluster_link::Granularity;
use crate::network_plan::{
    MAX_PLAN_BYTES, NetworkPlanSpec, PlanCluster, PlanGateway, PlanPrefix, PlanSegment, PlanSite,
    PlanVpn, PrefixClass,
};
use crate::vpn_attachment::Allow;
use thiserror::Error;
use tieline_core::ids::LinkName;
use tieline_core::network_plan as core;
use tieline_core::notice::Kind;
use tieline_core::peer::{Endpoint, Scope};

/// A plan that no object may hold. A retry with the same plan cannot help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the plan of ClusterLink {link} has {bytes} bytes, more than the {MAX_PLAN_BYTES} that one NetworkPlan may have: use topology.granularity Site, let fewer and larger prefixes stand for many, or split the link"
)]
pub struct PlanTooLarge {
    /// The link.
    pub link: LinkName,
    /// Size of the plan's JSON in bytes.
    pub bytes: usize,
}

/// A NetworkPlan.
///
/// # Errors
/// [`Invalid`] names the first field that does not hold what it should.
pub fn network_plan(object: &crate::NetworkPlan) -> Result<core::NetworkPlan, Invalid> {
    let at = Object::new(Kind::NetworkPlan, &object.metadata);
    let spec = &object.spec;
    let clusters = each(&spec.clusters, "spec.clusters", |field, it| {
        cluster(at, field, it)
    })?;
    let sites = each(&spec.sites, "spec.sites", |field, it| site(at, field, it))?;
    let segments = each(&spec.segments, "spec.segments", |field, it| {
        segment(at, field, it)
    })?;
    Ok(core::NetworkPlan {
        link: at.parse("spec.link", &spec.link)?,
        lineage: at.parse("spec.lineage", &spec.lineage)?,
        revision: spec.revision,
        super_nets: at.parse_all("spec.superNets", &spec.super_nets)?,
        clusters: sorted(clusters, |it| &it.name),
        sites: sorted(sites, |it| &it.name),
        segments: sorted(segments, |it| &it.name),
        vpns: each(&spec.vpns, "spec.vpns", |field, it| vpn(at, field, it))?,
        bypass: at.parse_all("spec.bypass", &spec.bypass)?,
        transit: spec
            .transit
            .as_ref()
            .map(|name| at.parse("spec.transit", name))
            .transpose()?,
        granularity: match spec.granularity {
            Granularity::Site => tieline_core::fleet::Granularity::Site,
            Granularity::Node => tieline_core::fleet::Granularity::Node,
        },
    })
}

fn each<S, T>(
    specs: &[S],
    field: &str,
    read: impl Fn(&str, &S) -> Result<T, Invalid>,
) -> Result<Vec<T>, Invalid> {
    specs
        .iter()
        .enumerate()
        .map(|(index, spec)| read(&format!("{field}[{index}]"), spec))
        .collect()
}

/// Whoever wrote the object may have listed in any order; a plan is searched by name.
fn sorted<T, N: Ord>(mut list: Vec<T>, name: impl Fn(&T) -> &N) -> Vec<T> {
    list.sort_by(|one, other| name(one).cmp(name(other)));
    list
}

fn cluster(at: Object<'_>, field: &str, spec: &PlanCluster) -> Result<core::PlanCluster, Invalid> {
    Ok(core::PlanCluster {
        name: at.parse(format_args!("{field}.name"), &spec.name)?,
        pod_cidrs: at.parse_all(format_args!("{field}.podCidrs"), &spec.pod_cidrs)?,
        service_cidrs: at.parse_all(format_args!("{field}.serviceCidrs"), &spec.service_cidrs)?,
    })
}

fn site(at: Object<'_>, field: &str, spec: &PlanSite) -> Result<core::PlanSite, Invalid> {
    Ok(core::PlanSite {
        name: at.parse(format_args!("{field}.name"), &spec.name)?,
        cidrs: at.parse_all(format_args!("{field}.cidrs"), &spec.cidrs)?,
        behind_nat: spec.behind_nat,
        public_addresses: each(
            &spec.public_addresses,
            &format!("{field}.publicAddresses"),
            |field, text| {
                Endpoint::parse(text, Scope::Public).map_err(|error| at.invalid(field, error))
            },
        )?,
    })
}

fn segment(at: Object<'_>, field: &str, spec: &PlanSegment) -> Result<core::Segment, Invalid> {
    Ok(core::Segment {
        name: at.parse(format_args!("{field}.name"), &spec.name)?,
        site: at.parse(format_args!("{field}.site"), &spec.site)?,
        cluster: spec
            .cluster
            .as_ref()
            .map(|name| at.parse(format_args!("{field}.cluster"), name))
            .transpose()?,
        prefixes: each(&spec.prefixes, &format!("{field}.prefixes"), |field, it| {
            Ok(core::ClassPrefix {
                prefix: at.parse(format_args!("{field}.prefix"), &it.prefix)?,
                class: class(it.class),
            })
        })?,
        gateways: each(&spec.gateways, &format!("{field}.gateways"), |field, it| {
            Ok(core::Gateway {
                rank: at.at_most(format_args!("{field}.rank"), it.rank, 3)?,
                peer: at.parse(format_args!("{field}.peer"), &it.peer)?,
            })
        })?,
    })
}

fn class(class: PrefixClass) -> core::Class {
    match class {
        PrefixClass::Pod => core::Class::Pod,
        PrefixClass::Service => core::Class::Service,
        PrefixClass::Lan => core::Class::Lan,
        PrefixClass::Vpn => core::Class::Vpn,
        PrefixClass::Mesh => core::Class::Mesh,
    }
}

fn vpn(at: Object<'_>, field: &str, spec: &PlanVpn) -> Result<core::PlanVpn, Invalid> {
    let allow = spec.allow.clone().unwrap_or_default();
    Ok(core::PlanVpn {
        name: at.parse(format_args!("{field}.name"), &spec.name)?,
        site: at.parse(format_args!("{field}.site"), &spec.site)?,
        segment: at.parse(format_args!("{field}.segment"), &spec.segment)?,
        index: at.at_most(format_args!("{field}.index"), spec.index, 15)?,
        prefixes: at.parse_all(format_args!("{field}.prefixes"), &spec.prefixes)?,
        allow: core::Allow {
            clusters: at.names(format_args!("{field}.allow.clusters"), &allow.clusters)?,
            sites: at.names(format_args!("{field}.allow.sites"), &allow.sites)?,
        },
        peer_public_key: at.parse(format_args!("{field}.peerPublicKey"), &spec.peer_public_key)?,
        endpoint: spec
            .endpoint
            .as_ref()
            .map(|text| foreign_endpoint(at, &format!("{field}.endpoint"), text))
            .transpose()?,
        preshared_key: spec.preshared_key,
    })
}

/// The spec of the NetworkPlan that holds a plan.
///
/// # Errors
/// [`PlanTooLarge`] when its JSON exceeds [`MAX_PLAN_BYTES`].
pub fn plan_spec(plan: &core::NetworkPlan) -> Result<NetworkPlanSpec, PlanTooLarge> {
    let spec = NetworkPlanSpec {
        link: plan.link.to_string(),
        lineage: plan.lineage.to_string(),
        revision: plan.revision,
        super_nets: texts(plan.super_nets.iter()),
        clusters: plan.clusters.iter().map(cluster_spec).collect(),
        sites: plan.sites.iter().map(site_spec).collect(),
        segments: plan.segments.iter().map(segment_spec).collect(),
        vpns: plan.vpns.iter().map(vpn_spec).collect(),
        bypass: texts(plan.bypass.iter()),
        transit: plan.transit.as_ref().map(ToString::to_string),
        granularity: match plan.granularity {
            tieline_core::fleet::Granularity::Site => Granularity::Site,
            tieline_core::fleet::Granularity::Node => Granularity::Node,
        },
    };
    // The types hold texts and numbers only, which JSON can always hold.
    let bytes = serde_json::to_vec(&spec).map_or(usize::MAX, |json| json.len());
    if bytes > MAX_PLAN_BYTES {
        return Err(PlanTooLarge {
            link: plan.link.clone(),
            bytes,
        });
    }
    Ok(spec)
}

fn cluster_spec(cluster: &core::PlanCluster) -> PlanCluster {
    PlanCluster {
        name: cluster.name.to_string(),
        pod_cidrs: texts(cluster.pod_cidrs.iter()),
        service_cidrs: texts(cluster.service_cidrs.iter()),
    }
}

fn site_spec(site: &core::PlanSite) -> PlanSite {
    PlanSite {
        name: site.name.to_string(),
        cidrs: texts(site.cidrs.iter()),
        behind_nat: site.behind_nat,
        public_addresses: texts(&site.public_addresses),
    }
}

fn segment_spec(segment: &core::Segment) -> PlanSegment {
    let prefixes = segment.prefixes.iter().map(|it| PlanPrefix {
        prefix: it.prefix.to_string(),
        class: match it.class {
            core::Class::Pod => PrefixClass::Pod,
            core::Class::Service => PrefixClass::Service,
            core::Class::Lan => PrefixClass::Lan,
            core::Class::Vpn => PrefixClass::Vpn,
            core::Class::Mesh => PrefixClass::Mesh,
        },
    });
    PlanSegment {
        name: segment.name.to_string(),
        site: segment.site.to_string(),
        cluster: segment.cluster.as_ref().map(ToString::to_string),
        prefixes: prefixes.collect(),
        gateways: segment
            .gateways
            .iter()
            .map(|it| PlanGateway {
                peer: it.peer.to_string(),
                rank: it.rank,
            })
            .collect(),
    }
}

fn vpn_spec(vpn: &core::PlanVpn) -> PlanVpn {
    PlanVpn {
        name: vpn.name.to_string(),
        site: vpn.site.to_string(),
        segment: vpn.segment.to_string(),
        index: vpn.index,
        prefixes: texts(vpn.prefixes.iter()),
        allow: Some(Allow {
            clusters: texts(&vpn.allow.clusters),
            sites: texts(&vpn.allow.sites),
        }),
        peer_public_key: vpn.peer_public_key.to_string(),
        endpoint: vpn.endpoint.as_ref().map(ToString::to_string),
        preshared_key: vpn.preshared_key,
    }
}
