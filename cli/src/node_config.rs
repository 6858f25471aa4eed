//! `tieline node-config`: what one node's kernel would carry, computed by the agent's own code.

use crate::offline::{self, Offline};
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use tieline_core::cidr::PrefixSet;
use tieline_core::host::print;
use tieline_core::host::{DEFAULT_FWMARK, DeviceName};
use tieline_core::ids::{NodeId, PeerName};
use tieline_core::keys::PublicKey;
use tieline_core::node::{LocalFacts, UnderlayDevice, node_config, resolve};
use tieline_core::peer::{AcceptedPeers, Claim, Endpoint, EndpointHost};

/// Flags of `tieline node-config`.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeConfigArgs {
    #[command(flatten)]
    inputs: offline::Inputs,
    /// The node: its name, or `cluster/name` where several clusters have one of that name.
    #[arg(long, value_name = "NAME")]
    node: String,
    /// Name of its underlay device.
    #[arg(long, default_value = "eth0", value_name = "DEVICE")]
    underlay: String,
    /// MTU of its underlay device, in bytes.
    #[arg(long, default_value_t = 1500, value_name = "BYTES")]
    mtu: u32,
}

/// The node's configuration as text.
///
/// # Errors
/// When files cannot be read or the node is not part of a plan.
pub(crate) fn text(args: &NodeConfigArgs) -> Result<String> {
    let offline = offline::plan(&args.inputs)?;
    let id = find(&offline, &args.node)?;
    let own = &offline.proposal.nodes[id];
    let peers = peers_with_keys(&offline);
    let plan = &offline.proposal.plans[&own.link];
    let config = node_config(plan, &peers, Some(&own.peer));
    let state = resolve(&config, &facts(args, &peers, &own.peer));
    Ok(format!(
        "# {} in {}, as plan {} of {} makes it\n# Keys and sealed secrets are made up: the real ones exist on the nodes only.\n\n{}",
        id.node,
        own.segment,
        plan.revision,
        plan.link,
        print::everything(&state)
    ))
}

fn find<'a>(offline: &'a Offline, name: &str) -> Result<&'a NodeId> {
    let found: Vec<&NodeId> = offline
        .proposal
        .nodes
        .keys()
        .filter(|id| id.node.as_str() == name || id.to_string() == name)
        .collect();
    match found[..] {
        [id] => Ok(id),
        [] => {
            let known: Vec<String> = offline
                .proposal
                .nodes
                .keys()
                .map(ToString::to_string)
                .collect();
            bail!(
                "node {name} is not part of a plan; these are: {}",
                known.join(", ")
            )
        }
        _ => bail!("several clusters have a node {name}: write cluster/{name}"),
    }
}

/// Accepted peers, with made-up keys and the Nodes' addresses where the files hold no claim.
fn peers_with_keys(offline: &Offline) -> AcceptedPeers {
    let mut claims = offline.claims.clone();
    for (id, node) in &offline.proposal.nodes {
        claims.entry(node.peer.clone()).or_insert_with(|| Claim {
            keys: device_names()
                .map(|device| (device, made_up(&node.peer, device)))
                .collect(),
            endpoints: offline.fleet.nodes[id]
                .addresses
                .iter()
                .map(|(address, scope)| Endpoint {
                    host: EndpointHost::Address(*address),
                    port: None,
                    scope: *scope,
                })
                .collect(),
            ..Claim::default()
        });
    }
    tieline_core::claims::accept(&offline.proposal, &offline.peers, &claims).peers
}

fn device_names() -> impl Iterator<Item = DeviceName> {
    (0..4).flat_map(|rank| [DeviceName::outer(rank), DeviceName::inner(rank)])
}

/// A key that is the same in every run, and no one's.
fn made_up(peer: &PeerName, device: DeviceName) -> PublicKey {
    let mut bytes = [0; 32];
    for (lane, chunk) in bytes.chunks_mut(8).enumerate() {
        let text = format!("{lane} {peer} {device}");
        // FNV-1a: spread is all that is asked of it.
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        chunk.copy_from_slice(&hash.to_be_bytes());
    }
    #[allow(clippy::expect_used)] // seven values of 2^256 are of low order
    PublicKey::from_bytes(bytes).expect("not of low order")
}

fn facts(args: &NodeConfigArgs, peers: &AcceptedPeers, own: &PeerName) -> LocalFacts {
    let addresses: PrefixSet = peers[own]
        .endpoints
        .iter()
        .filter_map(|endpoint| match endpoint.host {
            EndpointHost::Address(address) => Some(tieline_core::cidr::Prefix::host(address)),
            EndpointHost::Name(_) => None,
        })
        .collect();
    let mut keys: BTreeMap<DeviceName, PublicKey> = peers[own].keys.clone();
    for index in 0..16 {
        keys.insert(DeviceName::vpn(index), made_up(own, DeviceName::vpn(index)));
    }
    LocalFacts {
        underlay: BTreeMap::from([(
            args.underlay.clone(),
            UnderlayDevice {
                mtu: args.mtu,
                prefixes: addresses,
            },
        )]),
        keys,
        netdev_egress: true,
        first_port: args.inputs.agent_port,
        fwmark: DEFAULT_FWMARK,
        ..LocalFacts::default()
    }
}
