//! The keys of VPN attachments. Pure: randomness is an argument.
//!
//! An attachment has one key pair, which all gateways of its site share. It is made once and kept in the Secret
//! `tieline-vpn-NAME`, never overwritten. Each gateway gets it, with the pre-shared key, sealed to its own sealing key; a box
//! is made anew only when what it holds or its recipient changes. The other side gets a ready configuration in
//! the Secret `tieline-vpn-NAME-config`.

use crate::index::Index;
use base64::{Engine, prelude::BASE64_STANDARD};
use crypto_box::aead::rand_core::CryptoRngCore;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use tieline_core::cidr::PrefixSet;
use tieline_core::host::DeviceName;
use tieline_core::ids::{LinkName, PeerName, VpnName};
use tieline_core::keys::PublicKey;
use tieline_core::network_plan::{NetworkPlan, PlanVpn};
use tieline_core::notice::Reason;
use tieline_core::peer::{AcceptedPeer, AcceptedPeers, Claim, EndpointHost, Scope, SealedSecret};
use tieline_crds::VpnAttachment;
use tieline_crds::sealed::AttachmentSecret;
use tieline_crds::vpn_attachment::PRESHARED_KEY;
use x25519_dalek::{PublicKey as X25519Public, StaticSecret};

/// Key of the private key in the attachment's Secret.
pub const PRIVATE_KEY: &str = "privateKey";
/// Key of the configuration in the Secret for the other side.
pub const CONFIG: &str = "wg0.conf";

/// Label on Secrets: the attachment that they belong to.
const ATTACHMENT: &str = "tieline.dev/vpn-attachment";

/// Name of the Secret that holds an attachment's private key.
#[must_use]
pub fn key_secret(vpn: &str) -> String {
    format!("tieline-vpn-{vpn}")
}

/// Name of the Secret that holds the other side's configuration.
#[must_use]
pub fn config_secret(vpn: &str) -> String {
    format!("tieline-vpn-{vpn}-config")
}

/// One attachment that a plan carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its link.
    pub link: LinkName,
    /// Its public key, once there is a key.
    pub public_key: Option<PublicKey>,
    /// Where the other side reaches us, best first.
    pub endpoints: Vec<String>,
    /// Gateways that terminate it.
    pub gateways: BTreeSet<PeerName>,
    /// Why it cannot work yet: reason and message.
    pub waits: Option<(Reason, String)>,
    secret: Option<AttachmentSecret>,
}

/// All attachments that plans carry, and the Secrets that have to be created for their keys. `port` is the agents' first one.
#[must_use]
pub fn attachments(
    index: &Index,
    plans: &BTreeMap<LinkName, NetworkPlan>,
    peers: &AcceptedPeers,
    port: u16,
    rng: &mut impl CryptoRngCore,
) -> (BTreeMap<VpnName, Attachment>, Vec<Secret>) {
    let mut found = BTreeMap::new();
    let mut new = Vec::new();
    for (link, plan) in plans {
        for vpn in &plan.vpns {
            let Some(object) = index.vpns.get(vpn.name.as_str()) else {
                continue;
            };
            let (secret, waits) = match keys(index, object, rng) {
                Ok((secret, created)) => {
                    new.extend(created);
                    (Some(secret), None)
                }
                Err(waits) => (None, Some(waits)),
            };
            let public_key = secret
                .as_ref()
                .and_then(|secret| public_of(&secret.private_key));
            let attachment = Attachment {
                link: link.clone(),
                public_key,
                endpoints: endpoints(plan, vpn, peers, DeviceName::vpn(vpn.index).port(port)),
                gateways: gateways(plan, vpn),
                waits,
                secret,
            };
            found.insert(vpn.name.clone(), attachment);
        }
    }
    (found, new)
}

/// The attachment's keys, and the Secret to create when there is no key yet.
fn keys(
    index: &Index,
    object: &VpnAttachment,
    rng: &mut impl CryptoRngCore,
) -> Result<(AttachmentSecret, Option<Secret>), (Reason, String)> {
    let vpn = object.metadata.name.as_deref().unwrap_or_default();
    let wanted = object
        .spec
        .wireguard
        .as_ref()
        .and_then(|it| it.preshared_key_secret.as_ref());
    let preshared_key = wanted
        .map(|secret| preshared_key(index, &secret.name))
        .transpose()?;
    let name = key_secret(vpn);
    let (private_key, created) = match index.secrets.get(&name) {
        Some(secret) => {
            let text = value(secret, PRIVATE_KEY).filter(|text| is_key(text)).ok_or_else(|| {
                (
                    Reason::KeyUnreadable,
                    format!(
                        "Secret {name} holds no {PRIVATE_KEY} of 32 bytes in base64. It is never overwritten: restore it, or delete \
                         it to get a new key, for which the other side must be configured anew"
                    ),
                )
            })?;
            (text, None)
        }
        None => {
            let text = BASE64_STANDARD.encode(StaticSecret::random_from_rng(&mut *rng).to_bytes());
            let secret = secret(&name, vpn, BTreeMap::from([(PRIVATE_KEY, text.clone())]));
            (text, Some(secret))
        }
    };
    Ok((
        AttachmentSecret {
            private_key,
            preshared_key,
        },
        created,
    ))
}

fn preshared_key(index: &Index, name: &str) -> Result<String, (Reason, String)> {
    let secret = index.secrets.get(name).ok_or_else(|| {
        (
            Reason::PresharedKeyMissing,
            format!(
                "Secret {name} does not exist in the operator's namespace: create it with the output of `wg genpsk` under the key \
                 {PRESHARED_KEY}"
            ),
        )
    })?;
    value(secret, PRESHARED_KEY).filter(|text| is_key(text)).ok_or_else(|| {
        (
            Reason::PresharedKeyInvalid,
            format!("Secret {name} must hold the output of `wg genpsk` (44 characters) under the key {PRESHARED_KEY}"),
        )
    })
}

/// Brings the sealed boxes of a peer up to date: a gateway of an attachment has one, nobody else has.
pub fn seal(
    attachments: &BTreeMap<VpnName, Attachment>,
    name: &PeerName,
    peer: &mut Arc<AcceptedPeer>,
    claims: &BTreeMap<PeerName, Claim>,
    rng: &mut impl CryptoRngCore,
) {
    let mut boxes = Vec::new();
    for (vpn, attachment) in attachments
        .iter()
        .filter(|(_, it)| it.gateways.contains(name))
    {
        let before = peer.sealed.iter().find(|sealed| sealed.vpn == *vpn);
        let Some(secret) = &attachment.secret else {
            // Without its Secret nothing new can be sealed; what the node holds stays good.
            boxes.extend(before.cloned());
            continue;
        };
        let version = version(secret);
        let recipient = claims.get(name).and_then(|claim| claim.sealing_key);
        match (before, recipient) {
            (Some(before), recipient)
                if before.version == version
                    && recipient.is_none_or(|key| key == before.recipient) =>
            {
                boxes.push(before.clone());
            }
            (_, Some(recipient)) => boxes.extend(sealed(vpn, secret, version, recipient, rng)),
            (_, None) => {}
        }
    }
    if peer.sealed != boxes {
        Arc::make_mut(peer).sealed = boxes;
    }
}

fn sealed(
    vpn: &VpnName,
    secret: &AttachmentSecret,
    version: String,
    recipient: PublicKey,
    rng: &mut impl CryptoRngCore,
) -> Option<SealedSecret> {
    let ciphertext = crypto_box::PublicKey::from(*recipient.as_bytes())
        .seal(rng, &secret.to_json().ok()?)
        .ok()?;
    Some(SealedSecret {
        vpn: vpn.clone(),
        version,
        recipient,
        ciphertext: BASE64_STANDARD.encode(ciphertext),
    })
}

/// Changes with the secret and says nothing about it: the private key is 32 random bytes, which no hash gives away.
fn version(secret: &AttachmentSecret) -> String {
    let mut hash = Sha256::new();
    hash.update(b"tieline attachment secret\0");
    hash.update(&secret.private_key);
    hash.update(b"\0");
    hash.update(secret.preshared_key.as_deref().unwrap_or_default());
    hash.finalize()
        .iter()
        .take(8)
        .fold(String::new(), |mut text, byte| {
            // Writing into a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The Secrets for the other sides that differ from what the index holds.
#[must_use]
pub fn configurations(
    index: &Index,
    plans: &BTreeMap<LinkName, NetworkPlan>,
    attachments: &BTreeMap<VpnName, Attachment>,
) -> Vec<Secret> {
    let mut changed = Vec::new();
    for (vpn, attachment) in attachments {
        let Some(plan) = plans.get(&attachment.link) else {
            continue;
        };
        let Some(planned) = plan.vpns.iter().find(|it| it.name == *vpn) else {
            continue;
        };
        let Some(wanted) = configuration(plan, planned, attachment) else {
            continue;
        };
        let name = config_secret(vpn.as_str());
        let held = index
            .secrets
            .get(&name)
            .and_then(|secret| text(secret, CONFIG));
        if held != Some(wanted.as_str()) {
            changed.push(secret(
                &name,
                vpn.as_str(),
                BTreeMap::from([(CONFIG, wanted)]),
            ));
        }
    }
    changed
}

/// Configurations of attachments that are gone. The key stays: an attachment that comes back has it again.
#[must_use]
pub fn obsolete(index: &Index) -> Vec<Arc<Secret>> {
    let secrets = index.secrets.iter().filter(|(name, secret)| {
        let vpn = secret
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(ATTACHMENT));
        vpn.is_some_and(|vpn| *name == config_secret(vpn) && index.vpns.get(vpn).is_none())
    });
    secrets.map(|(_, secret)| secret.clone()).collect()
}

/// What `wg-quick` reads on the other side.
fn configuration(plan: &NetworkPlan, vpn: &PlanVpn, attachment: &Attachment) -> Option<String> {
    let secret = attachment.secret.as_ref()?;
    let listen = vpn
        .endpoint
        .as_ref()
        .and_then(|endpoint| endpoint.port)
        .unwrap_or(51820);
    let mut text = format!(
        "# VpnAttachment {}, the other side. Written by Tieline; copy it to /etc/wireguard/ and put your own key in.\n\
         [Interface]\n\
         # The private key of public key {}.\n\
         PrivateKey = REPLACE-WITH-YOUR-PRIVATE-KEY\n\
         ListenPort = {listen}\n\
         \n\
         [Peer]\n\
         PublicKey = {}\n",
        vpn.name, vpn.peer_public_key, attachment.public_key?
    );
    // Writing into a String cannot fail.
    if let Some(key) = &secret.preshared_key {
        let _ = writeln!(text, "PresharedKey = {key}");
    }
    let allowed: Vec<String> = allowed(plan, vpn)
        .iter()
        .map(|prefix| prefix.to_string())
        .collect();
    let _ = writeln!(text, "AllowedIPs = {}", allowed.join(", "));
    match attachment.endpoints.split_first() {
        Some((first, others)) => {
            let _ = writeln!(text, "Endpoint = {first}");
            for other in others {
                let _ = writeln!(text, "# Endpoint = {other}");
            }
        }
        None => text.push_str("# Endpoint: known once the site has a gateway\n"),
    }
    text.push_str("PersistentKeepalive = 25\n");
    Some(text)
}

/// What the VPN may reach.
fn allowed(plan: &NetworkPlan, vpn: &PlanVpn) -> PrefixSet {
    let clusters = plan
        .clusters
        .iter()
        .filter(|cluster| vpn.allow.clusters.contains(&cluster.name))
        .flat_map(|cluster| cluster.pod_cidrs.iter().chain(cluster.service_cidrs.iter()));
    let sites = plan
        .sites
        .iter()
        .filter(|site| vpn.allow.sites.contains(&site.name))
        .flat_map(|site| site.cidrs.iter());
    clusters.chain(sites).collect()
}

fn gateways(plan: &NetworkPlan, vpn: &PlanVpn) -> BTreeSet<PeerName> {
    plan.segment(&vpn.segment)
        .map(|segment| {
            segment
                .gateways
                .iter()
                .map(|gateway| gateway.peer.clone())
                .collect()
        })
        .unwrap_or_default()
}

/// Where the other side reaches the attachment: the site's public addresses, or the gateways' own, public ones first.
fn endpoints(plan: &NetworkPlan, vpn: &PlanVpn, peers: &AcceptedPeers, port: u16) -> Vec<String> {
    let site = plan
        .site(&vpn.site)
        .map(|site| site.public_addresses.as_slice())
        .unwrap_or_default();
    let mut hosts: Vec<&EndpointHost> = site.iter().map(|endpoint| &endpoint.host).collect();
    if hosts.is_empty() {
        let ranked = plan
            .segment(&vpn.segment)
            .map(|segment| segment.gateways.as_slice())
            .unwrap_or_default();
        let known = ranked.iter().filter_map(|gateway| peers.get(&gateway.peer));
        for scope in [Scope::Public, Scope::Site] {
            let in_scope = known
                .clone()
                .flat_map(|peer| &peer.endpoints)
                .filter(|endpoint| endpoint.scope == scope);
            hosts.extend(in_scope.map(|endpoint| &endpoint.host));
        }
    }
    let mut seen = BTreeSet::new();
    hosts
        .into_iter()
        .filter(|host| seen.insert(*host))
        .take(16)
        .map(|host| match host {
            EndpointHost::Address(address) => std::net::SocketAddr::new(*address, port).to_string(),
            EndpointHost::Name(name) => format!("{name}:{port}"),
        })
        .collect()
}

fn public_of(private_key: &str) -> Option<PublicKey> {
    let bytes: [u8; 32] = BASE64_STANDARD.decode(private_key).ok()?.try_into().ok()?;
    PublicKey::from_bytes(X25519Public::from(&StaticSecret::from(bytes)).to_bytes()).ok()
}

fn is_key(text: &str) -> bool {
    BASE64_STANDARD
        .decode(text)
        .is_ok_and(|bytes| bytes.len() == 32)
}

/// A value without the line end that `kubectl create secret --from-file` keeps.
fn value(secret: &Secret, key: &str) -> Option<String> {
    Some(text(secret, key)?.trim_end().to_owned())
}

fn text<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    std::str::from_utf8(&secret.data.as_ref()?.get(key)?.0).ok()
}

/// The attachment that a Secret belongs to.
pub(crate) fn attachment_of(secret: &Secret) -> Option<&str> {
    let labels = secret.metadata.labels.as_ref()?;
    labels.get(ATTACHMENT).map(String::as_str)
}

fn secret(name: &str, vpn: &str, values: BTreeMap<&str, String>) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([
                ("app.kubernetes.io/part-of".to_owned(), "tieline".to_owned()),
                (ATTACHMENT.to_owned(), vpn.to_owned()),
            ])),
            ..ObjectMeta::default()
        },
        data: Some(
            values
                .into_iter()
                .map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes())))
                .collect(),
        ),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests;
