//! Opens the secrets that were sealed to this node. Pure.
//!
//! A secret that cannot be opened is reported and its attachment goes without a device; the rest of the node is not
//! concerned. The commonest reason is a new sealing key (a reinstalled node): the operator seals again when it sees the
//! new claim.

use crate::identity::Identity;
use base64::{Engine, prelude::BASE64_STANDARD};
use std::collections::BTreeMap;
use tieline_core::host::DeviceName;
use tieline_core::ids::VpnName;
use tieline_core::keys::PublicKey;
use tieline_core::network_plan::NetworkPlan;
use tieline_core::peer::{AcceptedPeer, SealedSecret};
use tieline_crds::sealed::AttachmentSecret;

use crate::platform::Secrets;

/// What the sealed secrets yielded.
#[derive(Debug, Default)]
pub struct Opened {
    /// Private halves, for the platform.
    pub secrets: Secrets,
    /// Public half of each attachment's device.
    pub public_keys: BTreeMap<DeviceName, PublicKey>,
    /// Why some could not be opened, by attachment.
    pub problems: BTreeMap<VpnName, String>,
}

/// Opens what the operator sealed for this node and the plan has an attachment for.
#[must_use]
pub fn open(plan: &NetworkPlan, own: Option<&AcceptedPeer>, identity: &Identity) -> Opened {
    let mut opened = Opened::default();
    opened.secrets.private_keys = identity.private_keys();
    for sealed in own.map(|peer| peer.sealed.as_slice()).unwrap_or_default() {
        // Names are unique over all plans; a secret without an attachment is on its way out.
        let Some(vpn) = plan.vpns.iter().find(|vpn| vpn.name == sealed.vpn) else {
            continue;
        };
        match unseal(sealed, identity) {
            Ok((private, public, preshared)) => {
                let device = DeviceName::vpn(vpn.index);
                opened.secrets.private_keys.insert(device, private);
                opened.public_keys.insert(device, public);
                if let Some(preshared) = preshared {
                    opened
                        .secrets
                        .preshared_keys
                        .insert(sealed.vpn.clone(), preshared);
                }
            }
            Err(problem) => {
                opened.problems.insert(sealed.vpn.clone(), problem);
            }
        }
    }
    opened
}

type Keys = ([u8; 32], PublicKey, Option<[u8; 32]>);

fn unseal(sealed: &SealedSecret, identity: &Identity) -> Result<Keys, String> {
    if sealed.recipient != identity.sealing_public() {
        return Err(format!(
            "it is sealed to key {}, and this node's sealing key is {}: the operator seals it again when it has read \
             this node's claim",
            sealed.recipient,
            identity.sealing_public()
        ));
    }
    let damaged =
        "it cannot be opened with this node's sealing key, though it names that key: it is damaged";
    let ciphertext = BASE64_STANDARD
        .decode(&sealed.ciphertext)
        .map_err(|_| damaged)?;
    let plaintext = identity
        .sealing_private()
        .unseal(&ciphertext)
        .map_err(|_| damaged)?;
    // The error of a JSON reader can quote what it read, so it is not passed on.
    let secret = AttachmentSecret::from_json(&plaintext)
        .map_err(|_| "it is open, and what is inside is no attachment secret of this version")?;
    let private = decode(&secret.private_key).ok_or("its private key is not 32 bytes in base64")?;
    let public = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(private));
    let public = PublicKey::from_bytes(public.to_bytes()).map_err(|error| error.to_string())?;
    let preshared = match &secret.preshared_key {
        Some(text) => Some(decode(text).ok_or("its pre-shared key is not 32 bytes in base64")?),
        None => None,
    };
    Ok((private, public, preshared))
}

fn decode(text: &str) -> Option<[u8; 32]> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests;
