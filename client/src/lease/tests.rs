#![allow(clippy::unwrap_used)]
use super::*;
use crate::fake::{Kept, leases, serve};
use serde_json::Value;

#[test]
fn a_term_that_lapsed_begins_anew_when_it_is_renewed() {
    let start = Instant::now();
    let at = start + Duration::from_secs(60);
    let (past, future) = (Term::Until(start), Term::Until(at + Duration::from_secs(9)));
    assert_eq!(turn(false, Term::No, future, at), Some(true));
    assert_eq!(turn(true, future, future, at), None);
    assert_eq!(
        turn(true, past, future, at),
        Some(true),
        "lapsed and renewed"
    );
    assert_eq!(turn(true, past, past, at), Some(false), "lapsed");
    assert_eq!(turn(false, past, future, at), Some(true), "renewed later");
    assert_eq!(turn(true, future, Term::No, at), Some(false));
    assert_eq!(turn(false, past, past, at), None);
}

const LEASE: &str = "tieline-example";

async fn api_server() -> (Kept, Client) {
    let kept = Kept::default();
    let client = serve(leases(LEASE, kept.clone())).await;
    (kept, client)
}

/// A candidate that leads, and what tells it to end.
async fn leader(client: Client) -> (Leadership, Candidacy, watch::Sender<bool>) {
    let (stop, shutdown) = watch::channel(false);
    let candidate = Candidate {
        namespace: "tieline-system".to_owned(),
        lease: LEASE.to_owned(),
        identity: "a".to_owned(),
        duration: Duration::from_secs(15),
    };
    let (leadership, candidacy) = elect(client, candidate, shutdown, |_| {});
    until(|| leadership.holds()).await;
    (leadership, candidacy, stop)
}

async fn until(holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .unwrap();
}

fn spec(kept: &Kept) -> Value {
    kept.lock().unwrap().as_ref().unwrap()["spec"].clone()
}

#[tokio::test]
async fn the_lease_is_given_back_after_the_last_write_and_not_before() {
    let (kept, client) = api_server().await;
    let (leadership, candidacy, stop) = leader(client).await;
    stop.send_replace(true);
    until(|| !leadership.holds()).await;
    // A write is under way still.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(spec(&kept)["holderIdentity"], "a");
    candidacy.give_back().await;
    assert_eq!(spec(&kept)["holderIdentity"], "");
    assert_eq!(spec(&kept)["leaseDurationSeconds"], 1);
}

#[tokio::test]
async fn a_lease_is_left_to_run_out_when_a_write_may_be_under_way() {
    let (kept, client) = api_server().await;
    let (leadership, candidacy, stop) = leader(client).await;
    stop.send_replace(true);
    until(|| !leadership.holds()).await;
    drop(candidacy);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(spec(&kept)["holderIdentity"], "a");
    assert_eq!(spec(&kept)["leaseDurationSeconds"], 15);
}

#[tokio::test]
async fn a_lease_that_somebody_changed_is_not_given_back() {
    let (kept, client) = api_server().await;
    let (leadership, candidacy, stop) = leader(client).await;
    stop.send_replace(true);
    until(|| !leadership.holds()).await;
    {
        let mut lease = kept.lock().unwrap();
        let lease = lease.as_mut().unwrap();
        lease["metadata"]["resourceVersion"] = "77".into();
        lease["spec"]["holderIdentity"] = "b".into();
    }
    candidacy.give_back().await;
    assert_eq!(spec(&kept)["holderIdentity"], "b");
}
