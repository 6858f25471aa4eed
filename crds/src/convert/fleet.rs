//! What users write, and Kubernetes Nodes, to the inputs of the planner. The defaults of absent fields are decided here.

use super::{Invalid, Object};
use crate::cluster::Sites;
use crate::cluster_link::{Addressing, Granularity, Mode, PrefixLength, Topology};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use std::net::IpAddr;
use tieline_core::cidr::{Family, Prefix};
use tieline_core::fleet;
use tieline_core::ids::{ClusterName, LinkName, NodeId, SiteName, VpnName};
use tieline_core::notice::Kind;
use tieline_core::peer::{Endpoint, Scope};

/// A ClusterLink.
///
/// # Errors
/// [`Invalid`] names the first field that does not hold what it should.
pub fn link(object: &crate::ClusterLink) -> Result<(LinkName, fleet::Link), Invalid> {
    let at = Object::new(Kind::ClusterLink, &object.metadata);
    let members = &object.spec.members;
    let link = fleet::Link {
        clusters: at.names("spec.members.clusters", &members.clusters)?,
        sites: at.names("spec.members.sites", &members.sites)?,
        vpns: at.names("spec.members.vpnAttachments", &members.vpn_attachments)?,
        addressing: object
            .spec
            .addressing
            .as_ref()
            .map_or_else(|| Ok(fleet::Addressing::default()), |it| addressing(at, it))?,
        topology: object
            .spec
            .topology
            .as_ref()
            .map_or_else(|| Ok(fleet::Topology::default()), |it| topology(at, it))?,
        mode: match object.spec.mode.unwrap_or_default() {
            Mode::Apply => fleet::Mode::Apply,
            Mode::Plan => fleet::Mode::Plan,
        },
    };
    if link.clusters.is_empty() && link.sites.is_empty() && link.vpns.is_empty() {
        return Err(at.invalid(
            "spec.members",
            "name at least one member under clusters, sites or vpnAttachments",
        ));
    }
    Ok((at.own_name()?, link))
}

fn addressing(at: Object<'_>, spec: &Addressing) -> Result<fleet::Addressing, Invalid> {
    let addressing = fleet::Addressing {
        pod_pools: at.parse_all("spec.addressing.podPools", &spec.pod_pools)?,
        cluster_prefix_len: per_family(
            at,
            "clusterPrefixLength",
            spec.cluster_prefix_length,
            fleet::Addressing::CLUSTER_LEN,
        )?,
        node_prefix_len: per_family(
            at,
            "nodePrefixLength",
            spec.node_prefix_length,
            fleet::Addressing::NODE_LEN,
        )?,
        mesh_pools: at.parse_all("spec.addressing.meshPools", &spec.mesh_pools)?,
        reserved: at.parse_all("spec.addressing.reserved", &spec.reserved)?,
    };
    for family in Family::BOTH {
        let (node, cluster) = (
            addressing.node_prefix_len.of(family),
            addressing.cluster_prefix_len.of(family),
        );
        if node < cluster {
            return Err(at.invalid(
                "spec.addressing.nodePrefixLength",
                format_args!("a node's {family} range of /{node} does not fit into its cluster's block of /{cluster}: write {cluster} or more"),
            ));
        }
    }
    Ok(addressing)
}

fn per_family(
    at: Object<'_>,
    field: &str,
    spec: Option<PrefixLength>,
    default: fleet::PerFamily,
) -> Result<fleet::PerFamily, Invalid> {
    let spec = spec.unwrap_or_default();
    Ok(fleet::PerFamily {
        v4: at.at_most(
            format_args!("spec.addressing.{field}.v4"),
            spec.v4.unwrap_or(default.v4),
            32,
        )?,
        v6: at.at_most(
            format_args!("spec.addressing.{field}.v6"),
            spec.v6.unwrap_or(default.v6),
            128,
        )?,
    })
}

fn topology(at: Object<'_>, spec: &Topology) -> Result<fleet::Topology, Invalid> {
    let gateways_per_site = spec.gateways_per_site.unwrap_or(1);
    if !(1..=4).contains(&gateways_per_site) {
        return Err(at.invalid(
            "spec.topology.gatewaysPerSite",
            format_args!("{gateways_per_site} gateways are not possible: write 1 to 4"),
        ));
    }
    Ok(fleet::Topology {
        granularity: match spec.granularity.unwrap_or_default() {
            Granularity::Site => fleet::Granularity::Site,
            Granularity::Node => fleet::Granularity::Node,
        },
        gateways_per_site,
        transit_site: spec
            .transit_site
            .as_ref()
            .map(|name| at.parse("spec.topology.transitSite", name))
            .transpose()?,
    })
}

/// A Cluster.
///
/// # Errors
/// [`Invalid`] names the first field that does not hold what it should.
pub fn cluster(object: &crate::Cluster) -> Result<(ClusterName, fleet::Cluster), Invalid> {
    let at = Object::new(Kind::Cluster, &object.metadata);
    let pods = object.spec.pods.clone().unwrap_or_default();
    let cluster = fleet::Cluster {
        sites: site_source(at, &object.spec.sites)?,
        pod_cidrs: at.parse_all("spec.pods.cidrs", &pods.cidrs)?,
        assign: pods.assign.unwrap_or(false),
        service_cidrs: at.parse_all("spec.serviceCidrs", &object.spec.service_cidrs)?,
        gateway_selector: object
            .spec
            .gateways
            .as_ref()
            .map(|it| it.node_selector.clone())
            .unwrap_or_default(),
    };
    Ok((at.own_name()?, cluster))
}

fn site_source(at: Object<'_>, spec: &Sites) -> Result<fleet::SiteSource, Invalid> {
    match (&spec.name, &spec.from_node_label, &spec.by_selector) {
        (Some(name), None, None) => Ok(fleet::SiteSource::Name(at.parse("spec.sites.name", name)?)),
        (None, Some(label), None) if !label.is_empty() => {
            Ok(fleet::SiteSource::FromNodeLabel(label.clone()))
        }
        (None, None, Some(rules)) if !rules.is_empty() => {
            let rules = rules.iter().enumerate().map(|(index, rule)| {
                let field = format!("spec.sites.bySelector[{index}]");
                if rule.node_selector.is_empty() {
                    return Err(at.invalid(
                        format_args!("{field}.nodeSelector"),
                        "write at least one label; for all nodes, write sites.name",
                    ));
                }
                Ok(fleet::SiteRule {
                    site: at.parse(format_args!("{field}.site"), &rule.site)?,
                    selector: rule.node_selector.clone(),
                })
            });
            Ok(fleet::SiteSource::BySelector(
                rules.collect::<Result<_, _>>()?,
            ))
        }
        _ => Err(at.invalid(
            "spec.sites",
            "write exactly one of: name, fromNodeLabel, bySelector",
        )),
    }
}

/// A Site.
///
/// # Errors
/// [`Invalid`] names the first field that does not hold what it should.
pub fn site(object: &crate::Site) -> Result<(SiteName, fleet::Site), Invalid> {
    let at = Object::new(Kind::Site, &object.metadata);
    let underlay = object.spec.underlay.clone().unwrap_or_default();
    let public = underlay
        .public_addresses
        .iter()
        .enumerate()
        .map(|(index, text)| {
            Endpoint::parse(text, Scope::Public).map_err(|error| {
                at.invalid(
                    format_args!("spec.underlay.publicAddresses[{index}]"),
                    error,
                )
            })
        });
    let site = fleet::Site {
        cidrs: at.parse_all("spec.cidrs", &object.spec.cidrs)?,
        behind_nat: underlay.behind_nat.unwrap_or(false),
        public_addresses: public.collect::<Result<_, _>>()?,
    };
    Ok((at.own_name()?, site))
}

/// A VpnAttachment.
///
/// # Errors
/// [`Invalid`] names the first field that does not hold what it should.
pub fn vpn(object: &crate::VpnAttachment) -> Result<(VpnName, fleet::Vpn), Invalid> {
    let at = Object::new(Kind::VpnAttachment, &object.metadata);
    let spec = &object.spec;
    if let Some(other) = at.name.strip_suffix("-config") {
        return Err(at.invalid(
            "metadata.name",
            format_args!("choose a name that does not end in -config: the Secret for this attachment's key would be the one for the configuration of VpnAttachment {other}"),
        ));
    }
    let Some(wireguard) = &spec.wireguard else {
        return Err(at.invalid(
            "spec",
            "write how the other side connects, exactly one of: wireguard",
        ));
    };
    if spec.prefixes.is_empty() {
        return Err(at.invalid(
            "spec.prefixes",
            "write at least one range that lies behind the VPN",
        ));
    }
    let allow = spec.allow.clone().unwrap_or_default();
    let vpn = fleet::Vpn {
        site: at.parse("spec.site", &spec.site)?,
        prefixes: at.parse_all("spec.prefixes", &spec.prefixes)?,
        allow_clusters: at.names("spec.allow.clusters", &allow.clusters)?,
        allow_sites: at.names("spec.allow.sites", &allow.sites)?,
        peer_public_key: at.parse("spec.wireguard.peerPublicKey", &wireguard.peer_public_key)?,
        endpoint: wireguard
            .endpoint
            .as_ref()
            .map(|text| foreign_endpoint(at, "spec.wireguard.endpoint", text))
            .transpose()?,
        preshared_key: wireguard.preshared_key_secret.is_some(),
    };
    Ok((at.own_name()?, vpn))
}

/// Where a foreign box listens: its port is not ours to guess.
pub(super) fn foreign_endpoint(
    at: Object<'_>,
    field: &str,
    text: &str,
) -> Result<Endpoint, Invalid> {
    let endpoint =
        Endpoint::parse(text, Scope::Public).map_err(|error| at.invalid(field, error))?;
    if endpoint.port.is_none() {
        return Err(at.invalid(
            field,
            format_args!("{text:?} has no port: write host:port, like {endpoint}:51820"),
        ));
    }
    Ok(endpoint)
}

/// A Kubernetes Node of a cluster. Addresses that are no IP addresses (host names) are left out.
///
/// # Errors
/// [`Invalid`] names the first field that does not hold what it should.
pub fn node(cluster: &ClusterName, object: &Node) -> Result<(NodeId, fleet::Node), Invalid> {
    let at = Object::new(Kind::Node, &object.metadata);
    let spec = object.spec.clone().unwrap_or_default();
    let status = object.status.clone().unwrap_or_default();
    let pod_cidrs = match (spec.pod_cidrs, spec.pod_cidr) {
        (Some(cidrs), _) if !cidrs.is_empty() => at.parse_all("spec.podCIDRs", &cidrs)?,
        (_, Some(cidr)) if !cidr.is_empty() => vec![at.parse("spec.podCIDR", &cidr)?],
        _ => Vec::new(),
    };
    let addresses = status
        .addresses
        .unwrap_or_default()
        .into_iter()
        .filter_map(|address| {
            let scope = match address.type_.as_str() {
                "InternalIP" => Scope::Site,
                "ExternalIP" => Scope::Public,
                _ => return None,
            };
            Some((address.address.parse::<IpAddr>().ok()?, scope))
        });
    let node = fleet::Node {
        labels: object.metadata.labels.clone().unwrap_or_default(),
        pod_cidrs,
        addresses: addresses.collect(),
        ready: status
            .conditions
            .unwrap_or_default()
            .iter()
            .any(|it| it.type_ == "Ready" && it.status == "True"),
    };
    Ok((
        NodeId {
            cluster: cluster.clone(),
            node: at.own_name()?,
        },
        node,
    ))
}

/// A range that a cluster takes ClusterIPs from (ServiceCIDR, KEP-1880), by the object's name.
///
/// # Errors
/// [`Invalid`] names the first field that does not hold what it should.
pub fn service_cidr(object: &ServiceCIDR) -> Result<(String, Vec<Prefix>), Invalid> {
    let at = Object::new(Kind::ServiceCidr, &object.metadata);
    let cidrs = object
        .spec
        .as_ref()
        .and_then(|spec| spec.cidrs.clone())
        .unwrap_or_default();
    let name = object.metadata.name.clone().unwrap_or_default();
    Ok((name, at.parse_all("spec.cidrs", &cidrs)?))
}
