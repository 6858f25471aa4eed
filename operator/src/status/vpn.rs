//! Status of a VpnAttachment. Holds no secret.

use super::judged::Judged;
use super::judgement::{Judgement, accepted, conditions};
use super::members::Members;
use crate::decided::Decided;
use crate::vpn::config_secret;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tieline_core::ids::VpnName;
use tieline_crds::vpn_attachment::SecretName;
use tieline_crds::{VpnAttachment, VpnAttachmentStatus};

pub(super) fn status(
    object: &VpnAttachment,
    from: &Judged<'_>,
    now: Timestamp,
) -> VpnAttachmentStatus {
    let Judged {
        decided, members, ..
    } = *from;
    let name = object.name_any();
    let held = object.status.clone().unwrap_or_default();
    let vpn = VpnName::new(name.as_str()).ok();
    let attachment = vpn.as_ref().and_then(|vpn| decided.attachments.get(vpn));
    let accepted = accepted("VpnAttachment", &name, decided);
    let no = |reason: &str, message: String| Judgement::new("Ready", false, reason, message);
    let ready = match attachment {
        _ if !accepted.holds() => no(&accepted.reason, accepted.message.clone()),
        None if decided.uses.uses_vpn(&name) => {
            match decided.objections.first("VpnAttachment", &name) {
                Some(notice) => no(&notice.reason, notice.message.clone()),
                None => no("NotPlanned", "no plan carries this VPN yet".to_owned()),
            }
        }
        None => no(
            "NotAMember",
            "no ClusterLink names this VPN in spec.members.vpnAttachments".to_owned(),
        ),
        Some(attachment) => match vpn.as_ref().and_then(|vpn| obstacle(vpn, decided, members)) {
            Some((reason, message)) => no(&reason, message),
            None => {
                let gateways = attachment.gateways.len();
                Judgement::new(
                    "Ready",
                    true,
                    "Ready",
                    format!("{gateways} of {gateways} gateways hold the VPN's key"),
                )
            }
        },
    };
    VpnAttachmentStatus {
        observed_generation: object.metadata.generation,
        public_key: attachment
            .and_then(|it| it.public_key)
            .map(|key| key.to_string()),
        local_endpoints: attachment
            .map(|it| it.endpoints.clone())
            .unwrap_or_default(),
        sessions: vpn.as_ref().and_then(|vpn| members.sessions(vpn)),
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

/// What keeps a planned VPN from carrying traffic: reason and message.
pub(super) fn obstacle(
    vpn: &VpnName,
    decided: &Decided,
    members: &Members,
) -> Option<(String, String)> {
    let attachment = decided.attachments.get(vpn)?;
    if let Some((reason, message)) = &attachment.waits {
        return Some(((*reason).to_owned(), message.clone()));
    }
    if attachment.gateways.is_empty() {
        let message = format!("the site of VpnAttachment {vpn} has no gateway to end the VPN");
        return Some(("NoGateway".to_owned(), message));
    }
    for gateway in &attachment.gateways {
        let peer = decided.accepted.peers.get(gateway);
        if !peer.is_some_and(|peer| peer.sealed.iter().any(|it| it.vpn == *vpn)) {
            let message = format!(
                "{gateway} has not published a sealing key yet, so the VPN's key cannot be given to it"
            );
            return Some(("KeyNotDelivered".to_owned(), message));
        }
        let mut of_site = members.gateways(&decided.world.fleet.vpns.get(vpn)?.site);
        let state = of_site.find(|it| it.peer == *gateway);
        if let Some(entry) = state.and_then(|it| members.node(&it.id)) {
            let message = format!("Node {}: {}", entry.name, entry.message);
            return Some((entry.reason.clone(), message));
        }
    }
    let sessions = members.sessions(vpn).unwrap_or_default();
    if sessions.total == 0 {
        let message = "the active gateway has not told of a session yet".to_owned();
        return Some(("NoSession".to_owned(), message));
    }
    if sessions.up == 0 {
        let message = format!(
            "there is no session with the other side: see that it runs the configuration in Secret {} and that the site can be reached",
            config_secret(vpn.as_str())
        );
        return Some(("NoSession".to_owned(), message));
    }
    None
}
