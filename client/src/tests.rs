//! A program from the pieces: what a provider's binary does before its own work begins.
#![allow(clippy::unwrap_used)]

use crate::fake::{Kept, NAMESPACE, Script, kind, leases, serve};
use crate::follow::{Config, Deletion, Error, Follower, Pauses, follow};
use crate::lease::{Candidate, elect, identity};
use crate::{chain, schema};
use axum::Router;
use axum::routing::get;
use kube::{Api, Client, CustomResourceExt, ResourceExt};
use serde_json::json;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;
use tieline_crds::{NetworkPlan, SCHEMA_ANNOTATION, SCHEMA_NUMBER};
use tokio::sync::watch;

const LEASE: &str = "tieline-provider";

/// Checks the schema, takes part in the election and follows plans. Tells their names whenever it leads and they change.
async fn program(
    client: Client,
    names: watch::Sender<BTreeSet<String>>,
    shutdown: watch::Receiver<bool>,
) {
    let definitions = [NetworkPlan::crd_name().to_owned()];
    let pause = Duration::from_secs(2);
    schema::wait_for(&client, &definitions, pause, |error| {
        tracing::error!(error = %chain(error), "nothing is written until this is solved");
        ControlFlow::Continue(())
    })
    .await;
    let (turns, mut leads) = watch::channel(false);
    let candidate = Candidate {
        namespace: NAMESPACE.to_owned(),
        lease: LEASE.to_owned(),
        identity: identity("provider"),
        duration: Duration::from_secs(15),
    };
    let turned = move |leads| {
        turns.send_replace(leads);
    };
    let (_, candidacy) = elect(client.clone(), candidate, shutdown.clone(), turned);
    let pauses = Pauses {
        first: Duration::from_millis(200),
        longest: Duration::from_secs(10),
    };
    let (seen, mut plans) = watch::channel(BTreeSet::new());
    let watching = follow(
        Api::namespaced(client, NAMESPACE),
        Config::default(),
        pauses,
        Plans(seen),
    );
    let work = async {
        while leads.wait_for(|leads| *leads).await.is_ok() && plans.changed().await.is_ok() {
            names.send_replace(plans.borrow_and_update().clone());
        }
    };
    let mut shutdown = shutdown;
    tokio::select! {
        () = watching => {}
        () = work => {}
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
    candidacy.give_back().await;
}

/// The names of all plans.
struct Plans(watch::Sender<BTreeSet<String>>);

impl Follower<NetworkPlan> for Plans {
    type Item = String;

    fn read(&mut self, plan: NetworkPlan) -> String {
        plan.name_any()
    }

    fn reset(&mut self, list: Vec<String>) {
        self.0.send_replace(list.into_iter().collect());
    }

    fn apply(&mut self, name: String) {
        self.0.send_modify(|names| {
            names.insert(name);
        });
    }

    fn delete(&mut self, _: &NetworkPlan) -> Deletion {
        Deletion::ListAgain
    }

    fn broken(&mut self, error: &Error) -> Duration {
        tracing::warn!(error = %chain(error), "watch broken; listing again");
        Duration::ZERO
    }
}

#[tokio::test]
async fn a_program_checks_the_schema_leads_follows_and_gives_its_lease_back() {
    let definition = json!({"metadata": {
        "name": NetworkPlan::crd_name(),
        "annotations": {SCHEMA_ANNOTATION: SCHEMA_NUMBER.to_string()},
    }});
    let path = format!(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{}",
        NetworkPlan::crd_name()
    );
    let definitions = Router::new().route(&path, get(async move || definition.to_string()));
    let plans = kind(
        &<NetworkPlan as kube::Resource>::url_path(&(), Some(NAMESPACE)),
        Script {
            lists: [Ok(vec![])].into(),
            watches: [vec![]].into(),
        },
    );
    let kept = Kept::default();
    let client = serve(definitions.merge(plans).merge(leases(LEASE, kept.clone()))).await;
    let (names, mut told) = watch::channel(BTreeSet::new());
    let (stop, shutdown) = watch::channel(false);
    let running = tokio::spawn(program(client, names, shutdown));
    let patience = Duration::from_secs(10);
    tokio::time::timeout(patience, told.changed())
        .await
        .unwrap()
        .unwrap();
    stop.send_replace(true);
    tokio::time::timeout(patience, running)
        .await
        .unwrap()
        .unwrap();
    let lease = kept.lock().unwrap().clone().unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "");
}
