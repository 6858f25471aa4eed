//! Pieces of an API server for tests, on loopback: a Lease that changes by compare-and-swap, and a kind whose lists and watches are
//! written down beforehand.
#![allow(clippy::unwrap_used)]

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use futures::{StreamExt, stream};
use kube::{Client, Config};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

/// Namespace of everything in it.
pub(crate) const NAMESPACE: &str = "tieline-system";

/// Serves until the test's runtime ends.
pub(crate) async fn serve(routes: Router) -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    crate::connect(Config::new(url.parse().unwrap())).unwrap()
}

/// A Lease as an API server keeps it.
pub(crate) type Kept = Arc<Mutex<Option<Value>>>;

/// The Lease of that name.
pub(crate) fn leases(name: &str, kept: Kept) -> Router {
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases");
    Router::new()
        .route(&leases, post(store))
        .route(&format!("{leases}/{name}"), get(read).put(store))
        .with_state(kept)
}

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

/// What a kind answers, one after the other. Then a list is empty, and a watch says nothing.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Names in each list, or a refusal.
    pub lists: VecDeque<Result<Vec<&'static str>, u16>>,
    /// Types and names of the events of each watch.
    pub watches: VecDeque<Vec<(&'static str, &'static str)>>,
}

/// A namespaced kind with that path.
pub(crate) fn kind(path: &str, script: Script) -> Router {
    Router::new()
        .route(path, get(list_or_watch))
        .with_state(Arc::new(Mutex::new(script)))
}

async fn list_or_watch(
    State(script): State<Arc<Mutex<Script>>>,
    RawQuery(query): RawQuery,
) -> (StatusCode, Body) {
    let object = |name: &str| json!({"metadata": {"name": name, "namespace": NAMESPACE, "resourceVersion": "2"}});
    let mut script = script.lock().unwrap();
    if query.unwrap_or_default().contains("watch=true") {
        let events = script.watches.pop_front().unwrap_or_default();
        let lines = events.into_iter().map(move |(event, name)| {
            let line = json!({"type": event, "object": object(name)});
            Ok::<_, Infallible>(format!("{line}\n"))
        });
        let body = Body::from_stream(stream::iter(lines).chain(stream::pending()));
        return (StatusCode::OK, body);
    }
    match script.lists.pop_front().unwrap_or_else(|| Ok(Vec::new())) {
        Ok(names) => {
            let items: Vec<Value> = names.into_iter().map(object).collect();
            let list = json!({"metadata": {"resourceVersion": "1"}, "items": items});
            (StatusCode::OK, Body::from(list.to_string()))
        }
        Err(code) => {
            let (code, status) = refused(StatusCode::from_u16(code).unwrap(), "Refused");
            (code, Body::from(status))
        }
    }
}
