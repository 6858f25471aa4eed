#![allow(clippy::unwrap_used)]
use super::*;
use crate::fixture::plan;
use kube::core::Status;
use tieline_crds::convert::plan_spec;

fn refused(code: u16) -> Error {
    let status = Status {
        code,
        message: format!("refused with {code}"),
        ..Status::default()
    };
    Error::InitialListFailed(kube::Error::Api(status.boxed()))
}

#[test]
fn a_refusal_is_told_as_an_outage_until_a_list_is_complete() {
    let shared = Shared::default();
    let mut plans = plans_of(&shared);
    assert_eq!(plans.broken(&refused(403)), Duration::ZERO);
    let outages = shared.snapshot().outages;
    assert!(outages["NetworkPlans"].contains("refused with 403"));
    plans.reset(Vec::new());
    assert!(shared.snapshot().outages.is_empty());
}

#[test]
fn an_api_server_that_is_away_or_busy_is_no_outage_to_tell() {
    let shared = Shared::default();
    let mut plans = plans_of(&shared);
    for error in [refused(503), refused(410), refused(429)] {
        plans.broken(&error);
    }
    plans.broken(&Error::NoResourceVersion);
    assert!(shared.snapshot().outages.is_empty());
}

#[test]
fn a_plan_is_not_gone_by_its_deletion_alone() {
    let shared = Shared::default();
    let mut plans = plans_of(&shared);
    let plan = Plan::new("acme", plan_spec(&plan(1)).unwrap());
    let listed = plans.read(plan.clone());
    plans.reset(vec![listed]);
    assert_eq!(plans.delete(&plan), Deletion::ListAgain);
    assert_eq!(shared.snapshot().plans.unwrap().len(), 1);
    plans.reset(Vec::new());
    assert!(shared.snapshot().plans.unwrap().is_empty());
}
