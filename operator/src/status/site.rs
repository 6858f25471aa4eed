//! Status of a Site.

use super::judged::Judged;
use super::judgement::{Judgement, accepted, conditions};
use super::readiness::{GatewayState, Readiness};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tieline_core::ids::{LinkName, SiteName};
use tieline_core::notice::{About, Kind, Notice, Reason};
use tieline_core::plan::listed;
use tieline_crds::condition::{ObjectCondition, Standing};
use tieline_crds::site::SiteGateway;
use tieline_crds::{Site, SiteStatus};

pub(super) fn status(
    object: &Site,
    from: &Judged<'_>,
    users: &[&String],
    now: Timestamp,
) -> SiteStatus {
    let name = object.name_any();
    let held = object.status.clone().unwrap_or_default();
    let site = SiteName::new(name.as_str()).ok();
    let states: Vec<&GatewayState> = site
        .iter()
        .flat_map(|site| from.members.gateways(site))
        .collect();
    let mut gateways: Vec<SiteGateway> = states
        .iter()
        .map(|it| SiteGateway {
            node: it.id.node.to_string(),
            rank: it.rank,
        })
        .collect();
    let reporting = states.iter().filter(|it| it.paths.is_some()).count();
    let up = states
        .iter()
        .filter(|it| {
            it.paths
                .is_some_and(|paths| paths.up > 0 || paths.total == 0)
        })
        .count();
    let total = gateways.len();
    let reachable = if total == 0 {
        Judgement::new(
            ObjectCondition::Reachable,
            false,
            Reason::NoGateway,
            "no node of this site is a gateway",
        )
    } else if reporting == 0 {
        Judgement::unknown(
            ObjectCondition::Reachable,
            Standing::NotReported,
            "no gateway has reported its paths yet",
        )
    } else if up == 0 {
        Judgement::new(
            ObjectCondition::Reachable,
            false,
            Reason::NoPath,
            format!("none of {total} gateways has a path that is up"),
        )
    } else {
        Judgement::new(
            ObjectCondition::Reachable,
            true,
            Standing::PathsUp,
            format!("{up} of {total} gateways have paths that are up"),
        )
    };
    let in_use = if users.is_empty() {
        Judgement::new(
            ObjectCondition::InUse,
            false,
            Standing::NotUsed,
            "no ClusterLink uses this site",
        )
    } else {
        Judgement::new(
            ObjectCondition::InUse,
            true,
            Standing::Used,
            format!("used by {}", listed(users)),
        )
    };
    gateways.sort_by(|a, b| (&a.node, a.rank).cmp(&(&b.node, b.rank)));
    gateways.truncate(64);
    SiteStatus {
        observed_generation: object.metadata.generation,
        gateways,
        conditions: conditions(
            &held.conditions,
            vec![accepted(Kind::Site, &name, from.decided), reachable, in_use],
            object.metadata.generation,
            now,
        ),
    }
}

/// What keeps the LAN of a link's member from being reachable.
pub(super) fn obstacle(link: &LinkName, site: &SiteName, members: &Readiness) -> Option<Notice> {
    let no = |reason: Reason, message: String| {
        Some(Notice {
            about: About::Site(site.clone()),
            link: Some(link.clone()),
            reason,
            message,
        })
    };
    let gateways: Vec<&GatewayState> = members.gateways(site).collect();
    if gateways.is_empty() {
        let message = format!("no node in site {site} is a gateway, so nobody carries its LAN");
        return no(Reason::NoGateway, message);
    }
    let obstacles: Option<Vec<_>> = gateways.iter().map(|it| members.node(&it.id)).collect();
    let first = *obstacles?.first()?;
    let message = format!("no gateway of site {site} is ready: {}", first.brief());
    no(first.reason, message)
}
