//! Peer: spec and [`AcceptedPeer`], status and [`Claim`].

use super::{Invalid, Object, texts};
use crate::peer::{
    DeviceKey, EndpointScope, Peer, PeerEndpoint, PeerSpec, PeerStatus, SealedSecret,
};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use tieline_core::host::DeviceName;
use tieline_core::ids::{NodeId, PeerName};
use tieline_core::keys::PublicKey;
use tieline_core::notice::Kind;
use tieline_core::peer as core;
use tieline_core::peer::{AcceptedPeer, Claim, Endpoint, Scope};

/// The accepted truth in a Peer's spec.
///
/// # Errors
/// [`Invalid`] names the first field that does not hold what it should, or the name when it is not `<cluster>.<node>`.
pub fn accepted_peer(object: &Peer) -> Result<(PeerName, Arc<AcceptedPeer>), Invalid> {
    let at = Object::new(Kind::Peer, &object.metadata);
    let name: PeerName = at.own_name()?;
    let spec = &object.spec;
    let id = NodeId {
        cluster: at.parse("spec.cluster", &spec.cluster)?,
        node: at.parse("spec.node", &spec.node)?,
    };
    if name.as_str() != format!("{}.{}", id.cluster, id.node) {
        return Err(at.invalid(
            "metadata.name",
            format_args!(
                "a Peer is named by its cluster and node: write {}.{}",
                id.cluster, id.node
            ),
        ));
    }
    let mesh_addresses = spec.mesh_addresses.iter().enumerate().map(|(index, text)| {
        text.parse::<IpAddr>().map_err(|_| {
            at.invalid(
                format_args!("spec.meshAddresses[{index}]"),
                format_args!("{text:?} is no IP address"),
            )
        })
    });
    let sealed = spec.sealed_secrets.iter().enumerate().map(|(index, it)| {
        let field = format!("spec.sealedSecrets[{index}]");
        Ok(core::SealedSecret {
            vpn: at.parse(format_args!("{field}.name"), &it.name)?,
            version: it.secret_version.clone(),
            recipient: at.parse(format_args!("{field}.recipientKey"), &it.recipient_key)?,
            ciphertext: it.ciphertext.clone(),
        })
    });
    let peer = AcceptedPeer {
        site: at.parse("spec.site", &spec.site)?,
        segment: at.parse("spec.segment", &spec.segment)?,
        pod_cidrs: at.parse_all("spec.podCidrs", &spec.pod_cidrs)?,
        mesh_addresses: mesh_addresses.collect::<Result<_, _>>()?,
        gateway_rank: spec
            .gateway_rank
            .map(|rank| at.at_most("spec.gatewayRank", rank, 3))
            .transpose()?,
        keys: keys(at, "spec.acceptedKeys", &spec.accepted_keys)?,
        endpoints: endpoints(at, "spec.acceptedEndpoints", &spec.accepted_endpoints)?,
        sealed: sealed.collect::<Result<_, _>>()?,
        plan_revision: spec.plan_revision,
        node: id.node,
        cluster: id.cluster,
    };
    Ok((name, Arc::new(peer)))
}

/// What the agent claims in a Peer's status; a Peer without status claims nothing.
///
/// # Errors
/// [`Invalid`] names the first field that does not hold what it should, for example a low-order key.
pub fn claim(object: &Peer) -> Result<(PeerName, Claim), Invalid> {
    let at = Object::new(Kind::Peer, &object.metadata);
    let name = at.own_name()?;
    let Some(status) = &object.status else {
        return Ok((name, Claim::default()));
    };
    let claim = Claim {
        keys: keys(at, "status.keys", &status.keys)?,
        sealing_key: status
            .sealing_key
            .as_ref()
            .map(|key| at.parse("status.sealingKey", key))
            .transpose()?,
        endpoints: endpoints(at, "status.endpoints", &status.endpoints)?,
        applied_revision: status.applied_revision.unwrap_or(0),
    };
    Ok((name, claim))
}

fn keys(
    at: Object<'_>,
    field: &str,
    specs: &[DeviceKey],
) -> Result<BTreeMap<DeviceName, PublicKey>, Invalid> {
    let mut keys = BTreeMap::new();
    for (index, spec) in specs.iter().enumerate() {
        let device = at.parse(format_args!("{field}[{index}].device"), &spec.device)?;
        let key = at.parse(format_args!("{field}[{index}].key"), &spec.key)?;
        if keys.insert(device, key).is_some() {
            return Err(at.invalid(
                format_args!("{field}[{index}].device"),
                format_args!("{device} has a key already: write each device once"),
            ));
        }
    }
    Ok(keys)
}

fn endpoints(
    at: Object<'_>,
    field: &str,
    specs: &[PeerEndpoint],
) -> Result<Vec<Endpoint>, Invalid> {
    let endpoints = specs.iter().enumerate().map(|(index, spec)| {
        let scope = match spec.scope {
            EndpointScope::Site => Scope::Site,
            EndpointScope::Public => Scope::Public,
        };
        Endpoint::parse(&spec.address, scope)
            .map_err(|error| at.invalid(format_args!("{field}[{index}].address"), error))
    });
    endpoints.collect()
}

/// The spec of the Peer that holds an accepted truth.
#[must_use]
pub fn peer_spec(peer: &AcceptedPeer) -> PeerSpec {
    let sealed = peer.sealed.iter().map(|it| SealedSecret {
        name: it.vpn.to_string(),
        secret_version: it.version.clone(),
        recipient_key: it.recipient.to_string(),
        ciphertext: it.ciphertext.clone(),
    });
    PeerSpec {
        node: peer.node.to_string(),
        cluster: peer.cluster.to_string(),
        site: peer.site.to_string(),
        segment: peer.segment.to_string(),
        pod_cidrs: texts(&peer.pod_cidrs),
        mesh_addresses: texts(&peer.mesh_addresses),
        gateway_rank: peer.gateway_rank,
        accepted_keys: key_specs(&peer.keys),
        accepted_endpoints: endpoint_specs(&peer.endpoints),
        sealed_secrets: sealed.collect(),
        plan_revision: peer.plan_revision,
    }
}

/// The part of a Peer's status that holds a claim; backend, version and conditions are the agent's to add.
#[must_use]
pub fn peer_status(claim: &Claim) -> PeerStatus {
    PeerStatus {
        keys: key_specs(&claim.keys),
        sealing_key: claim.sealing_key.as_ref().map(ToString::to_string),
        endpoints: endpoint_specs(&claim.endpoints),
        applied_revision: Some(claim.applied_revision).filter(|revision| *revision > 0),
        ..PeerStatus::default()
    }
}

fn key_specs(keys: &BTreeMap<DeviceName, PublicKey>) -> Vec<DeviceKey> {
    keys.iter()
        .map(|(device, key)| DeviceKey {
            device: device.to_string(),
            key: key.to_string(),
        })
        .collect()
}

fn endpoint_specs(endpoints: &[Endpoint]) -> Vec<PeerEndpoint> {
    let specs = endpoints.iter().map(|endpoint| PeerEndpoint {
        address: endpoint.to_string(),
        scope: match endpoint.scope {
            Scope::Site => EndpointScope::Site,
            Scope::Public => EndpointScope::Public,
        },
    });
    specs.collect()
}
