//! What the operator would decide for the objects of files.
//!
//! The steps are the operator's: objects → fleet, plan, check, accept. Nothing is decided here; an object that its CRD
//! would refuse becomes a refusal, with the field and what to write instead.

use crate::files::{self, Object};
use crate::plan::NoticeRow;
use anyhow::{Context, Result};
use kube::core::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tieline_core::check::{Finding, check};
use tieline_core::fleet::Fleet;
use tieline_core::host::DEFAULT_PORT;
use tieline_core::ids::{ClusterName, Lineage, PeerName};
use tieline_core::ledger::Ledgers;
use tieline_core::notice::{About, Kind, Notice, Reason};
use tieline_core::peer::{AcceptedPeers, Claim};
use tieline_core::plan::{Before, Proposal, plan as decide};
use tieline_crds::AddressLedger;
use tieline_crds::convert::{self, Invalid, LedgerReader};

/// Label of a Node that says which cluster it is in, where files hold several clusters.
const CLUSTER_LABEL: &str = "tieline.dev/cluster";
/// Lineage of ledgers that do not exist yet; a real operator makes a random one.
const OFFLINE_LINEAGE: &str = "offline0";

/// What offline commands are told: files, and what the operator has as a flag.
#[derive(Debug, clap::Args)]
pub(crate) struct Inputs {
    /// File or folder (with its subfolders); may be given several times.
    #[arg(short, long = "filename", required = true, value_name = "PATH")]
    filename: Vec<PathBuf>,
    /// The agents' first UDP port (agent.port of the chart): all other ports are counted from it.
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..=65_455))]
    pub(crate) agent_port: u16,
}

/// A decision and what it was made from.
pub(crate) struct Offline {
    /// What the files ask for.
    pub(crate) fleet: Fleet,
    /// What would be written.
    pub(crate) proposal: Proposal,
    /// What the checker found; nothing, unless there is a bug.
    pub(crate) findings: Vec<Finding>,
    /// The agents' first UDP port.
    pub(crate) agent_port: u16,
    /// Objects that their CRD would refuse.
    pub(crate) invalid: Vec<NoticeRow>,
    /// Accepted peers of the files: the state before.
    pub(crate) peers: AcceptedPeers,
    /// Agents' claims of the files.
    pub(crate) claims: BTreeMap<PeerName, Claim>,
}

/// Decides for the objects of files and folders.
///
/// # Errors
/// When files cannot be read, or a Node's cluster is not known.
pub(crate) fn plan(inputs: &Inputs) -> Result<Offline> {
    let mut reader = Reader::default();
    let objects = files::read(&inputs.filename)?;
    // Clusters first: a Node without a label belongs to the only one there is.
    let (clusters, others): (Vec<_>, Vec<_>) = objects
        .iter()
        .partition(|it| kind_of(it) == Some(Kind::Cluster));
    for object in clusters.into_iter().chain(others) {
        reader.take(object)?;
    }
    reader.assemble_ledgers();
    let proposal = decide(&reader.fleet, &reader.before);
    let findings = check(&reader.fleet, &reader.before, &proposal);
    Ok(Offline {
        fleet: reader.fleet,
        proposal,
        findings,
        agent_port: inputs.agent_port,
        invalid: reader.invalid,
        peers: reader.peers,
        claims: reader.claims,
    })
}

struct Reader {
    fleet: Fleet,
    before: Before,
    peers: AcceptedPeers,
    claims: BTreeMap<PeerName, Claim>,
    ledgers: Vec<AddressLedger>,
    invalid: Vec<NoticeRow>,
}

impl Default for Reader {
    fn default() -> Self {
        #[allow(clippy::expect_used)] // a constant
        let lineage = Lineage::new(OFFLINE_LINEAGE).expect("the constant is a lineage");
        Self {
            fleet: Fleet::default(),
            before: Before {
                lineage,
                ledgers: Ledgers::new(),
                plans: BTreeMap::new(),
            },
            peers: AcceptedPeers::new(),
            claims: BTreeMap::new(),
            ledgers: Vec::new(),
            invalid: Vec::new(),
        }
    }
}

impl Reader {
    fn take(&mut self, object: &Object) -> Result<()> {
        let ours = object.api_version.starts_with("tieline.dev/");
        if ours && !self.schema_allows(object) {
            return Ok(());
        }
        let outcome = match kind_of(object) {
            Some(Kind::ClusterLink) => convert::link(&typed(object)?)
                .map(|(name, link)| drop(self.fleet.links.insert(name, link))),
            Some(Kind::Cluster) => convert::cluster(&typed(object)?)
                .map(|(name, cluster)| drop(self.fleet.clusters.insert(name, cluster))),
            Some(Kind::Site) => convert::site(&typed(object)?)
                .map(|(name, site)| drop(self.fleet.sites.insert(name, site))),
            Some(Kind::VpnAttachment) => convert::vpn(&typed(object)?)
                .map(|(name, vpn)| drop(self.fleet.vpns.insert(name, vpn))),
            Some(Kind::AddressLedger) => {
                self.ledgers.push(typed(object)?);
                Ok(())
            }
            Some(Kind::NetworkPlan) => convert::network_plan(&typed(object)?)
                .map(|plan| drop(self.before.plans.insert(plan.link.clone(), plan))),
            Some(Kind::Peer) => self.peer(&typed(object)?),
            Some(Kind::Node) => self.node(object)?,
            Some(Kind::ServiceCidr) => self.services(object)?,
            Some(Kind::Plan) | None => Ok(()),
        };
        if let Err(invalid) = outcome {
            self.invalid.push((&Notice::from(&invalid)).into());
        }
        Ok(())
    }

    /// Heads and slices may come in any order and from several files.
    fn assemble_ledgers(&mut self) {
        let objects = std::mem::take(&mut self.ledgers);
        let named = objects
            .iter()
            .filter_map(|it| Some((it.metadata.name.as_deref()?, it)));
        let read = LedgerReader::default().read(&named.collect());
        self.before.ledgers = read.ledgers;
        let broken = read.broken.iter().map(Notice::from);
        let lost = read.lost.into_iter().map(|lost| Notice {
            message: format!("spec.slices: {lost}"),
            about: About::AddressLedger(lost.ledger),
            link: None,
            reason: Reason::Invalid,
        });
        let rows = broken.chain(lost).map(|notice| NoticeRow::from(&notice));
        self.invalid.extend(rows);
    }

    /// What a real API server would refuse on create. A kind that is none of ours is among it, so it is named as it is written.
    fn schema_allows(&mut self, object: &Object) -> bool {
        let violations = tieline_crds::validate(&object.value);
        let name = object
            .value
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        self.invalid
            .extend(violations.iter().map(|violation| NoticeRow {
                kind: object.kind.clone(),
                name: name.to_owned(),
                reason: Reason::Invalid,
                message: format!("{}: {}", violation.field, violation.message),
            }));
        violations.is_empty()
    }

    fn peer(&mut self, object: &tieline_crds::Peer) -> Result<(), Invalid> {
        let (name, peer) = convert::accepted_peer(object)?;
        self.peers.insert(name, peer);
        if object.status.is_some() {
            let (name, claim) = convert::claim(object)?;
            self.claims.insert(name, claim);
        }
        Ok(())
    }

    fn node(&mut self, object: &Object) -> Result<Result<(), Invalid>> {
        let node: k8s_openapi::api::core::v1::Node = typed(object)?;
        let cluster = self.cluster_of(object, &node.metadata)?;
        Ok(
            convert::node(&cluster, &node)
                .map(|(id, node)| drop(self.fleet.nodes.insert(id, node))),
        )
    }

    fn services(&mut self, object: &Object) -> Result<Result<(), Invalid>> {
        let services: k8s_openapi::api::networking::v1::ServiceCIDR = typed(object)?;
        let cluster = self.cluster_of(object, &services.metadata)?;
        Ok(convert::service_cidr(&services).map(|(_, ranges)| {
            let in_use = self.fleet.services_in_use.entry(cluster).or_default();
            ranges.into_iter().for_each(|range| in_use.insert(range));
        }))
    }

    /// The cluster that an object of Kubernetes' own is from.
    fn cluster_of(&self, object: &Object, metadata: &ObjectMeta) -> Result<ClusterName> {
        let known: Vec<&ClusterName> = self.fleet.clusters.keys().collect();
        let label = metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(CLUSTER_LABEL));
        match (label, &known[..]) {
            (Some(label), _) => ClusterName::new(label.as_str())
                .with_context(|| format!("{}: label {CLUSTER_LABEL}", object.origin)),
            (None, [only]) => Ok((*only).clone()),
            (None, _) => anyhow::bail!(
                "{}: {} {} is in which cluster? Set its label {CLUSTER_LABEL} to one of: {}",
                object.origin,
                object.kind,
                metadata.name.as_deref().unwrap_or_default(),
                known
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        }
    }
}

/// The kind of an object, if it is one that is read here: other groups have kinds of the same names.
fn kind_of(object: &Object) -> Option<Kind> {
    let kind = Kind::parse(&object.kind)?;
    let is_of_its_group = match kind {
        Kind::Node => object.api_version == "v1",
        Kind::ServiceCidr => object.api_version == "networking.k8s.io/v1",
        _ => object.api_version.starts_with("tieline.dev/"),
    };
    is_of_its_group.then_some(kind)
}

fn typed<T: DeserializeOwned>(object: &Object) -> Result<T> {
    serde_json::from_value(object.value.clone())
        .with_context(|| format!("{} is no valid {}", object.origin, object.kind))
}

impl Offline {
    /// The peers that the operator would accept, with the claims of the files.
    pub(crate) fn accepted(&self) -> AcceptedPeers {
        tieline_core::claims::accept(&self.proposal, &self.peers, &self.claims).peers
    }

    /// The objects that would be written, as YAML documents.
    ///
    /// # Errors
    /// When a plan is larger than one object can be.
    pub(crate) fn yaml(&self) -> Result<String> {
        let mut documents = Vec::new();
        for (name, ledger) in &self.proposal.ledgers {
            documents.push(serde_json::to_value(convert::ledger_object(name, ledger))?);
        }
        for (id, node) in self.proposal.nodes.iter().filter(|(_, node)| node.assign) {
            let texts: Vec<String> = node.pod_cidrs.iter().map(ToString::to_string).collect();
            documents.push(json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": id.node},
                "spec": {"podCIDR": texts.first(), "podCIDRs": texts},
            }));
        }
        for (link, plan) in &self.proposal.plans {
            let spec = convert::plan_spec(plan)?;
            let object = tieline_crds::NetworkPlan {
                metadata: metadata(link.as_str()),
                spec,
                status: None,
            };
            documents.push(serde_json::to_value(object)?);
        }
        for (name, peer) in &self.accepted() {
            let spec = convert::peer_spec(peer);
            let object = tieline_crds::Peer {
                metadata: metadata(name.as_str()),
                spec,
                status: None,
            };
            documents.push(serde_json::to_value(object)?);
        }
        let mut out = String::new();
        for document in documents {
            out.push_str("---\n");
            out.push_str(&yaml(&document)?);
        }
        Ok(out)
    }
}

fn yaml(value: &impl Serialize) -> Result<String> {
    Ok(serde_norway::to_string(value)?)
}

fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some("tieline-system".to_owned()),
        ..ObjectMeta::default()
    }
}
