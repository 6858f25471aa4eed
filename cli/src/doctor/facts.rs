//! What the API server told: the input of every check. Plain values; nothing here asks anybody.

use super::reading::Reading;
use super::rights::Access;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Node, Pod};
use std::collections::BTreeMap;
use tieline_crds::{AddressLedger, Cluster, ClusterLink, NetworkPlan, Peer, Site, VpnAttachment};

/// All that the checks look at.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// Version of this program.
    pub version: String,
    /// Namespace of the operator and the agents.
    pub namespace: String,
    /// The API server's version, as `major.minor` and as it calls itself.
    pub kubernetes: Reading<Kubernetes>,
    /// This machine's clock minus the API server's, in seconds. The server tells whole seconds.
    pub clock_ahead: Reading<i64>,
    /// Schema number of each of our definitions that is there; `None`: it has none.
    pub definitions: Reading<BTreeMap<String, Option<u32>>>,
    /// Admission policies with our label; `None`: the kind is not served.
    pub policies: Reading<Option<Vec<ValidatingAdmissionPolicy>>>,
    /// What puts them in force; `None` as above.
    pub bindings: Reading<Option<Vec<ValidatingAdmissionPolicyBinding>>>,
    /// All nodes.
    pub nodes: Reading<Vec<Node>>,
    /// DaemonSets of all namespaces.
    pub daemon_sets: Reading<Vec<DaemonSet>>,
    /// Deployments of our namespace.
    pub deployments: Reading<Vec<Deployment>>,
    /// Pods of our namespace.
    pub pods: Reading<Vec<Pod>>,
    /// Pods of kube-controller-manager, where it runs as one.
    pub controller_managers: Reading<Vec<Pod>>,
    /// Known ConfigMaps of CNI and kube-proxy by `namespace/name`: their data. Those that do not exist are absent.
    pub config_maps: Reading<BTreeMap<String, BTreeMap<String, String>>>,
    /// ClusterLinks.
    pub links: Reading<Vec<ClusterLink>>,
    /// Clusters.
    pub clusters: Reading<Vec<Cluster>>,
    /// Sites.
    pub sites: Reading<Vec<Site>>,
    /// VpnAttachments.
    pub vpns: Reading<Vec<VpnAttachment>>,
    /// Ledgers.
    pub ledgers: Reading<Vec<AddressLedger>>,
    /// Plans of our namespace.
    pub plans: Reading<Vec<NetworkPlan>>,
    /// Peers of our namespace.
    pub peers: Reading<Vec<Peer>>,
    /// Who may do what, as the API server judges it.
    pub access: Vec<Access>,
}

/// The API server's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kubernetes {
    /// Major and minor number.
    pub number: (u32, u32),
    /// As it calls itself, like `v1.36.3+k3s1`.
    pub name: String,
}

#[cfg(test)]
impl Facts {
    /// A cluster with nothing wrong and nothing installed.
    pub(crate) fn empty() -> Self {
        Self {
            version: "1.0.0".into(),
            namespace: "tieline-system".into(),
            kubernetes: Ok(Kubernetes {
                number: (1, 36),
                name: "v1.36.3".into(),
            }),
            clock_ahead: Ok(0),
            definitions: Ok(BTreeMap::new()),
            policies: Ok(Some(Vec::new())),
            bindings: Ok(Some(Vec::new())),
            nodes: Ok(Vec::new()),
            daemon_sets: Ok(Vec::new()),
            deployments: Ok(Vec::new()),
            pods: Ok(Vec::new()),
            controller_managers: Ok(Vec::new()),
            config_maps: Ok(BTreeMap::new()),
            links: Ok(Vec::new()),
            clusters: Ok(Vec::new()),
            sites: Ok(Vec::new()),
            vpns: Ok(Vec::new()),
            ledgers: Ok(Vec::new()),
            plans: Ok(Vec::new()),
            peers: Ok(Vec::new()),
            access: Vec::new(),
        }
    }
}
