//! The watches: what the API server says goes into the store, one task for each kind.
//!
//! A watch that fails is not resumed but begun again with a list. A restored etcd repeats resource versions, so a resumed
//! watch could miss what the restore took back.

use crate::index::Indexed;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::store::Store;
use futures::{StreamExt, future::join_all, pin_mut};
use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use rand::Rng;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tieline_crds::{AddressLedger, Cluster, ClusterLink, NetworkPlan, Peer, Site, VpnAttachment};
use tokio::task::JoinHandle;

const FIRST_DELAY: Duration = Duration::from_millis(200);
/// Short: after an outage, everybody waits for these lists, and there is one operator.
const LONGEST_DELAY: Duration = Duration::from_secs(3);
/// Until a kind that the API server does not have is looked for again: after an upgrade of the cluster.
const ABSENT_DELAY: Duration = Duration::from_secs(300);

/// Follows every kind until the returned task is dropped or aborted.
#[must_use]
pub fn follow_all(
    client: &Client,
    options: &Options,
    store: &Arc<Store>,
    metrics: &Metrics,
) -> JoinHandle<()> {
    fn start<K>(
        api: Api<K>,
        store: &Arc<Store>,
        metrics: &Metrics,
    ) -> futures::future::BoxFuture<'static, ()>
    where
        K: Indexed + Resource<DynamicType = ()> + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        Box::pin(follow(api, store.clone(), metrics.clone()))
    }
    let all = |_: ()| Client::clone(client);
    let namespace = options.namespace.as_str();
    let watches = vec![
        start(Api::<ClusterLink>::all(all(())), store, metrics),
        start(Api::<Cluster>::all(all(())), store, metrics),
        start(Api::<Site>::all(all(())), store, metrics),
        start(Api::<VpnAttachment>::all(all(())), store, metrics),
        start(Api::<AddressLedger>::all(all(())), store, metrics),
        start(Api::<Node>::all(all(())), store, metrics),
        start(Api::<ServiceCIDR>::all(all(())), store, metrics),
        start(
            Api::<NetworkPlan>::namespaced(all(()), namespace),
            store,
            metrics,
        ),
        start(Api::<Peer>::namespaced(all(()), namespace), store, metrics),
        start(
            Api::<Secret>::namespaced(all(()), namespace),
            store,
            metrics,
        ),
    ];
    tokio::spawn(async move {
        join_all(watches).await;
    })
}

async fn follow<K>(api: Api<K>, store: Arc<Store>, metrics: Metrics)
where
    K: Indexed + Resource<DynamicType = ()> + DeserializeOwned + Debug + Send + 'static,
{
    let kind = K::plural(&());
    let mut delay = FIRST_DELAY;
    loop {
        let events = watcher(api.clone(), watcher::Config::default());
        pin_mut!(events);
        let mut listed = Vec::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => listed.push(object),
                Ok(Event::InitDone) => {
                    delay = FIRST_DELAY;
                    let objects = std::mem::take(&mut listed);
                    tracing::debug!(kind = %kind, objects = objects.len(), "listed");
                    store.observe(|index| index.reset(objects));
                }
                Ok(Event::Apply(object)) => store.observe(|index| index.apply(object)),
                Ok(Event::Delete(object)) => store.observe(|index| index.delete(&object)),
                Err(watcher::Error::InitialListFailed(kube::Error::Api(status)))
                    if K::OPTIONAL && status.is_not_found() =>
                {
                    tracing::info!(kind = %kind, "the API server does not have this kind");
                    store.observe(|index| index.reset(Vec::<K>::new()));
                    tokio::time::sleep(ABSENT_DELAY).await;
                    break;
                }
                Err(error) => {
                    tracing::warn!(kind = %kind, error = %chain(&error), "watch broken; listing again");
                    break;
                }
            }
        }
        metrics.relists.inc();
        let jittered = rand::rng().random_range(delay / 2..=delay);
        tokio::time::sleep(jittered).await;
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}

/// An error and its causes in one line, without saying the same twice.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    text
}
