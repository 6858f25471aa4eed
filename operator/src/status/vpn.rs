//! Status of a VpnAttachment. Holds no secret.

use super::judged::Judged;
use super::judgement::{Judgement, accepted, conditions};
use super::readiness::Readiness;
use crate::decided::Decided;
use crate::vpn::config_secret;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tieline_core::ids::VpnName;
use tieline_core::notice::{About, Kind, Notice, Reason};
use tieline_crds::condition::{ConditionReason, ObjectCondition, Standing};
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
    let accepted = accepted(Kind::VpnAttachment, &name, decided);
    let no = |reason: ConditionReason, message: String| {
        Judgement::new(ObjectCondition::Ready, false, reason, message)
    };
    let ready = match attachment {
        _ if !accepted.holds() => no(accepted.reason, accepted.message.clone()),
        None if decided.uses.uses_vpn(&name) => {
            match decided.objections.first(Kind::VpnAttachment, &name) {
                Some(notice) => no(notice.reason.into(), notice.message.clone()),
                None => no(
                    Standing::NotPlanned.into(),
                    "no plan carries this VPN yet".to_owned(),
                ),
            }
        }
        None => no(
            Standing::NotAMember.into(),
            "no ClusterLink names this VPN in spec.members.vpnAttachments".to_owned(),
        ),
        Some(attachment) => match vpn.as_ref().and_then(|vpn| obstacle(vpn, decided, members)) {
            Some(notice) => no(notice.reason.into(), notice.message),
            None => {
                let gateways = attachment.gateways.len();
                Judgement::new(
                    ObjectCondition::Ready,
                    true,
                    Standing::Ready,
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

/// What keeps a planned VPN from carrying traffic.
pub(super) fn obstacle(vpn: &VpnName, decided: &Decided, members: &Readiness) -> Option<Notice> {
    let attachment = decided.attachments.get(vpn)?;
    let no = |reason: Reason, message: String| {
        Some(Notice {
            about: About::VpnAttachment(vpn.clone()),
            link: Some(attachment.link.clone()),
            reason,
            message,
        })
    };
    if let Some((reason, message)) = &attachment.waits {
        return no(*reason, message.clone());
    }
    if attachment.gateways.is_empty() {
        let message = format!("the site of VpnAttachment {vpn} has no gateway to end the VPN");
        return no(Reason::NoGateway, message);
    }
    for gateway in &attachment.gateways {
        let peer = decided.accepted.peers.get(gateway);
        if !peer.is_some_and(|peer| peer.sealed.iter().any(|it| it.vpn == *vpn)) {
            let message = format!(
                "{gateway} has not published a sealing key yet, so the VPN's key cannot be given to it"
            );
            return no(Reason::KeyNotDelivered, message);
        }
        let mut of_site = members.gateways(&decided.world.fleet.vpns.get(vpn)?.site);
        let state = of_site.find(|it| it.peer == *gateway);
        if let Some(entry) = state.and_then(|it| members.node(&it.id)) {
            return no(entry.reason, entry.brief());
        }
    }
    let sessions = members.sessions(vpn).unwrap_or_default();
    if sessions.total == 0 {
        let message = "the active gateway has not told of a session yet".to_owned();
        return no(Reason::NoSession, message);
    }
    if sessions.up == 0 {
        let message = format!(
            "there is no session with the other side: see that it runs the configuration in Secret {} and that the site can be reached",
            config_secret(vpn.as_str())
        );
        return no(Reason::NoSession, message);
    }
    None
}
