//! The watches: what the API server says goes into the index, one watch for each kind.

use crate::index::Indexed;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::shared::Shared;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tieline_client::chain;
use tieline_client::follow::{Config, Deletion, Error, Follower, Pauses, follow};
use tieline_crds::{AddressLedger, Cluster, ClusterLink, NetworkPlan, Peer, Site, VpnAttachment};
use tokio::task::JoinHandle;

/// Short: after an outage, everybody waits for these lists, and there is one operator.
const PAUSES: Pauses = Pauses {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(3),
};
/// Until a kind that the API server does not have is looked for again: after an upgrade of the cluster.
const ABSENT: Duration = Duration::from_secs(300);

/// Follows every kind until the returned task is dropped or aborted.
#[must_use]
pub fn follow_all(
    client: &Client,
    options: &Options,
    shared: &Arc<Shared>,
    metrics: &Metrics,
) -> JoinHandle<()> {
    fn start<K>(
        api: Api<K>,
        shared: &Arc<Shared>,
        metrics: &Metrics,
    ) -> futures::future::BoxFuture<'static, ()>
    where
        K: Indexed + Resource<DynamicType = ()> + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let (shared, metrics) = (shared.clone(), metrics.clone());
        Box::pin(follow(
            api,
            Config::default(),
            PAUSES,
            Fold { shared, metrics },
        ))
    }
    let all = |_: ()| Client::clone(client);
    let namespace = options.namespace.as_str();
    let watches = vec![
        start(Api::<ClusterLink>::all(all(())), shared, metrics),
        start(Api::<Cluster>::all(all(())), shared, metrics),
        start(Api::<Site>::all(all(())), shared, metrics),
        start(Api::<VpnAttachment>::all(all(())), shared, metrics),
        start(Api::<AddressLedger>::all(all(())), shared, metrics),
        start(Api::<Node>::all(all(())), shared, metrics),
        start(Api::<ServiceCIDR>::all(all(())), shared, metrics),
        start(
            Api::<NetworkPlan>::namespaced(all(()), namespace),
            shared,
            metrics,
        ),
        start(Api::<Peer>::namespaced(all(()), namespace), shared, metrics),
        start(
            Api::<Secret>::namespaced(all(()), namespace),
            shared,
            metrics,
        ),
    ];
    tokio::spawn(async move {
        join_all(watches).await;
    })
}

/// How a kind gets into the index. A deletion is believed at once, and a kind that is not served is one without objects.
struct Fold {
    shared: Arc<Shared>,
    metrics: Metrics,
}

impl<K: Indexed> Follower<K> for Fold {
    type Item = K;

    fn read(&mut self, object: K) -> K {
        object
    }

    fn reset(&mut self, list: Vec<K>) {
        tracing::debug!(kind = %K::plural(&()), objects = list.len(), "listed");
        self.shared.observe(|index| index.reset(list));
    }

    fn apply(&mut self, object: K) {
        self.shared.observe(|index| index.apply(object));
    }

    fn delete(&mut self, object: &K) -> Deletion {
        self.shared.observe(|index| index.delete(object));
        Deletion::Believed
    }

    fn broken(&mut self, error: &Error) -> Duration {
        self.metrics.relists.inc();
        let kind = K::plural(&());
        match error {
            Error::InitialListFailed(kube::Error::Api(status))
                if K::OPTIONAL && status.is_not_found() =>
            {
                tracing::info!(kind = %kind, "the API server does not have this kind");
                self.shared.observe(|index| index.reset(Vec::<K>::new()));
                ABSENT
            }
            error => {
                tracing::warn!(kind = %kind, error = %chain(error), "watch broken; listing again");
                Duration::ZERO
            }
        }
    }
}
