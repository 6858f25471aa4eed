//! Status of a VpnAttachment. Holds no secret.

use super::{Judgement, Members, accepted, conditions};
use crate::reconcile::Decided;
use crate::vpn::config_secret;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tieline_core::ids::{PeerName, VpnName};
use tieline_crds::vpn_attachment::SecretName;
use tieline_crds::{VpnAttachment, VpnAttachmentStatus};

pub(super) fn status(
    object: &VpnAttachment,
    decided: &Decided,
    members: &Members,
    now: Timestamp,
) -> VpnAttachmentStatus {
    let name = object.name_any();
    let held = object.status.clone().unwrap_or_default();
    let vpn = VpnName::new(name.as_str()).ok();
    let attachment = vpn.as_ref().and_then(|vpn| decided.attachments.get(vpn));
    let accepted = accepted("VpnAttachment", &name, decided);
    let no = |reason: &str, message: String| Judgement::new("Ready", false, reason, message);
    let ready = match attachment {
        _ if !accepted.holds() => no(&accepted.reason, accepted.message.clone()),
        None if in_use(object, decided) => {
            let why = decided
                .notices()
                .find(|it| it.kind == "VpnAttachment" && it.name == name);
            match why {
                Some(notice) => no(&notice.reason, notice.message.clone()),
                None => no("NotPlanned", "no plan carries this VPN yet".to_owned()),
            }
        }
        None => no(
            "NotAMember",
            "no ClusterLink names this VPN in spec.members.vpnAttachments".to_owned(),
        ),
        Some(attachment) => {
            let sealed =
                |gateway: &PeerName| {
                    decided.accepted.peers.get(gateway).is_some_and(|peer| {
                        peer.sealed.iter().any(|it| Some(&it.vpn) == vpn.as_ref())
                    })
                };
            let without: Vec<_> = attachment
                .gateways
                .iter()
                .filter(|gateway| !sealed(gateway))
                .collect();
            let behind: Vec<_> = attachment
                .gateways
                .iter()
                .filter_map(|gateway| {
                    let (id, _) = decided
                        .proposal
                        .nodes
                        .iter()
                        .find(|(_, node)| node.peer == *gateway)?;
                    members.nodes.get(&id.cluster)?.get(id.node.as_str())
                })
                .collect();
            if let Some((reason, message)) = &attachment.waits {
                no(reason, message.clone())
            } else if attachment.gateways.is_empty() {
                no(
                    "NoGateway",
                    format!("site {} has no gateway to end the VPN", object.spec.site),
                )
            } else if let Some(gateway) = without.first() {
                no(
                    "KeyNotDelivered",
                    format!(
                        "{gateway} has not published a sealing key yet, so the VPN's key cannot be given to it"
                    ),
                )
            } else if let Some(entry) = behind.first() {
                no(
                    &entry.reason,
                    format!("Node {}: {}", entry.name, entry.message),
                )
            } else {
                Judgement::new(
                    "Ready",
                    true,
                    "Ready",
                    format!(
                        "{} of {0} gateways hold the VPN's key",
                        attachment.gateways.len()
                    ),
                )
            }
        }
    };
    VpnAttachmentStatus {
        observed_generation: object.metadata.generation,
        public_key: attachment
            .and_then(|it| it.public_key)
            .map(|key| key.to_string()),
        local_endpoints: attachment
            .map(|it| it.endpoints.clone())
            .unwrap_or_default(),
        sessions: None,
        config_secret: attachment
            .filter(|it| it.public_key.is_some())
            .map(|_| SecretName {
                name: config_secret(&name),
            }),
        conditions: conditions(
            &held.conditions,
            vec![ready, accepted],
            object.metadata.generation,
            now,
        ),
    }
}

/// Whether a link names the VPN.
pub(super) fn in_use(object: &VpnAttachment, decided: &Decided) -> bool {
    let name = object.name_any();
    decided
        .world
        .fleet
        .links
        .values()
        .any(|link| link.vpns.iter().any(|it| it.as_str() == name))
        || decided
            .kept_plans()
            .any(|plan| plan.vpns.iter().any(|it| it.name.as_str() == name))
}
