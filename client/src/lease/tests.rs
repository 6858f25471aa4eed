#![allow(clippy::unwrap_used)]
use super::*;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

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

/// The Lease as an API server keeps it.
type Kept = Arc<Mutex<Option<Value>>>;

fn refused(code: StatusCode, reason: &str) -> (StatusCode, String) {
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "code": code.as_u16(), "reason": reason});
    (code, status.to_string())
}

async fn read(State(kept): State<Kept>) -> (StatusCode, String) {
    match &*kept.lock().unwrap() {
        Some(lease) => (StatusCode::OK, lease.to_string()),
        None => refused(StatusCode::NOT_FOUND, "NotFound"),
    }
}

/// Creates or replaces, by compare-and-swap.
async fn store(State(kept): State<Kept>, body: String) -> (StatusCode, String) {
    let mut lease: Value = serde_json::from_str(&body).unwrap();
    let mut kept = kept.lock().unwrap();
    let version = |lease: &Value| {
        lease["metadata"]["resourceVersion"]
            .as_str()
            .map(str::to_owned)
    };
    let before = kept.as_ref().and_then(version);
    if before != version(&lease) {
        return refused(StatusCode::CONFLICT, "Conflict");
    }
    let next = before.map_or(1, |before| before.parse::<u64>().unwrap() + 1);
    lease["metadata"]["resourceVersion"] = next.to_string().into();
    *kept = Some(lease.clone());
    (StatusCode::OK, lease.to_string())
}

async fn api_server() -> (Kept, Client) {
    let kept = Kept::default();
    let leases = "/apis/coordination.k8s.io/v1/namespaces/tieline-system/leases";
    let routes = Router::new()
        .route(leases, post(store))
        .route(&format!("{leases}/{LEASE}"), get(read).put(store))
        .with_state(kept.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let config = kube::Config::new(url.parse().unwrap());
    (kept, Client::try_from(config).unwrap())
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
