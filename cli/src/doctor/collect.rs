//! Asks the API server for the facts. Reads, and asks the authorizer; nothing is stored anywhere.
//!
//! A question that is refused becomes a reading that failed, so that the others are still asked. Only an API server that does
//! not answer at all is an error.

use super::checks::{cni_config_maps, variable};
use super::facts::{Facts, Kubernetes};
use super::reading::Reading;
use super::rights::{
    AGENT_MUST_NOT, AGENT_NEEDS, Access, Action, CALLER_NEEDS, OPERATOR_NEEDS, Place, Who, actions,
};
use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::version::Info;
use k8s_openapi::jiff::{Timestamp, fmt::rfc2822};
use kube::api::{Api, ListParams, PostParams};
use kube::client::Body;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::iter;
use std::time::Duration;
use tieline_crds::SCHEMA_ANNOTATION;

/// How long the first answer may take: without it there is nothing to look at.
const FIRST_ANSWER: Duration = Duration::from_secs(15);
/// How long any other answer may take: one that is silent must not hold up the rest.
const ANSWER: Duration = Duration::from_secs(30);
/// Questions to the authorizer that are on their way at the same time.
const QUESTIONS: usize = 10;
/// Namespace of the mirrors of foreign Peers, where the agents do not say another.
const MESH_NAMESPACE: &str = "tieline-mesh";
/// Variable of the agents that names it.
const MESH_NAMESPACE_VARIABLE: &str = "TIELINE_MESH_NAMESPACE";
/// Objects of one page.
const PAGE: u32 = 500;
/// ConfigMap of kube-proxy, as namespace and name. Those of CNIs are named with each.
const KUBE_PROXY: (&str, &str) = ("kube-system", "kube-proxy");

/// Reads everything.
///
/// # Errors
/// The API server does not answer, or not as one.
pub(crate) async fn collect(client: &Client, namespace: &str, version: &str) -> Result<Facts> {
    let asked = Timestamp::now();
    let answer = tokio::time::timeout(FIRST_ANSWER, server(client)).await;
    let (info, date) = answer
        .context("the API server does not answer")?
        .context("cannot ask the API server")?;
    let half = Timestamp::now().duration_since(asked) / 2;
    let here = asked + half;

    let cluster = |api: &str| format!("cannot list {api}");
    let system = |name: &str| format!("cannot list {name} in namespace {namespace}");
    let everywhere = ListParams::default();
    let ours = ListParams::default().labels("app.kubernetes.io/part-of=tieline");
    let manager = ListParams::default().labels("component=kube-controller-manager");
    let daemon_sets: Reading<Vec<DaemonSet>> = list(Api::all(client.clone()), &everywhere)
        .await
        .map_err(|e| format!("{}: {e}", cluster("daemonsets")));
    let agents = daemon_sets.iter().flatten().find(|set| {
        set.name_any() == "tieline-agent" && set.namespace().as_deref() == Some(namespace)
    });
    let namespaces = Namespaces {
        ours: namespace.to_owned(),
        mesh: mesh_namespace(agents),
    };
    Ok(Facts {
        version: version.to_owned(),
        namespace: namespace.to_owned(),
        kubernetes: number(&info),
        clock_ahead: date.map(|date| here.duration_since(date).as_secs()),
        definitions: definitions(client).await,
        policies: served(pages(&Api::all(client.clone()), &ours).await)
            .map_err(|e| format!("{}: {e}", cluster("validatingadmissionpolicies"))),
        bindings: served(pages(&Api::all(client.clone()), &ours).await)
            .map_err(|e| format!("{}: {e}", cluster("validatingadmissionpolicybindings"))),
        nodes: list(Api::all(client.clone()), &everywhere)
            .await
            .map_err(|e| format!("{}: {e}", cluster("nodes"))),
        daemon_sets,
        deployments: list(Api::namespaced(client.clone(), namespace), &everywhere)
            .await
            .map_err(|e| format!("{}: {e}", system("deployments"))),
        pods: list(Api::namespaced(client.clone(), namespace), &everywhere)
            .await
            .map_err(|e| format!("{}: {e}", system("pods"))),
        controller_managers: list(Api::namespaced(client.clone(), "kube-system"), &manager)
            .await
            .map_err(|e| format!("cannot list pods in namespace kube-system: {e}")),
        config_maps: config_maps(client).await,
        links: kinds(Api::all(client.clone())).await,
        clusters: kinds(Api::all(client.clone())).await,
        sites: kinds(Api::all(client.clone())).await,
        vpns: kinds(Api::all(client.clone())).await,
        ledgers: kinds(Api::all(client.clone())).await,
        plans: kinds(Api::namespaced(client.clone(), namespace)).await,
        peers: kinds(Api::namespaced(client.clone(), namespace)).await,
        access: access(client, &namespaces).await,
    })
}

/// The server's version, and what its clock says.
async fn server(client: &Client) -> Result<(Info, Reading<Timestamp>)> {
    let request = http::Request::get("/version").body(Body::empty())?;
    let response = client.send(request).await?;
    let status = response.status();
    let date = match response.headers().get(http::header::DATE) {
        None => Err("the API server's answer has no Date".to_owned()),
        Some(value) => value
            .to_str()
            .map_err(|error| error.to_string())
            .and_then(|text| rfc2822::parse(text).map_err(|error| error.to_string()))
            .map(|zoned| zoned.timestamp())
            .map_err(|error| format!("the API server's Date cannot be read: {error}")),
    };
    if !status.is_success() {
        bail!("GET /version was answered with {status}");
    }
    Ok((client.apiserver_version().await?, date))
}

fn number(info: &Info) -> Reading<Kubernetes> {
    // Some providers write "32+".
    let digits = |text: &str| text.trim_end_matches('+').parse().ok();
    match (digits(&info.major), digits(&info.minor)) {
        (Some(major), Some(minor)) => Ok(Kubernetes {
            number: (major, minor),
            name: info.git_version.clone(),
        }),
        _ => Err(format!(
            "the API server calls itself {:?}.{:?}",
            info.major, info.minor
        )),
    }
}

async fn definitions(client: &Client) -> Reading<BTreeMap<String, Option<u32>>> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let suffix = format!(".{}", tieline_crds::GROUP);
    let found = bounded(api.list_metadata(&ListParams::default()))
        .await
        .map_err(|error| format!("cannot list customresourcedefinitions: {error}"))?;
    Ok(found
        .iter()
        .map(|crd| (crd.name_any(), crd))
        .filter(|(name, _)| name.ends_with(&suffix))
        .map(|(name, crd)| {
            let number = crd.annotations().get(SCHEMA_ANNOTATION);
            (name, number.and_then(|text| text.parse().ok()))
        })
        .collect())
}

/// Objects of one of our kinds. A kind that is not served has none: that its definition is missing is said elsewhere.
async fn kinds<K>(api: Api<K>) -> Reading<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    match served(pages(&api, &ListParams::default()).await) {
        Ok(found) => Ok(found.unwrap_or_default()),
        Err(error) => Err(format!(
            "cannot list {}.{}: {error}",
            K::plural(&()),
            K::group(&())
        )),
    }
}

/// What was found, or nothing where the kind is not served.
fn served<T>(answer: Result<T, Unanswered>) -> Result<Option<T>, Unanswered> {
    match answer {
        Err(Unanswered::Refused(kube::Error::Api(status))) if status.code == 404 => Ok(None),
        other => other.map(Some),
    }
}

async fn list<K>(api: Api<K>, params: &ListParams) -> Reading<Vec<K>>
where
    K: Clone + Debug + DeserializeOwned,
{
    pages(&api, params).await.map_err(|error| error.to_string())
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// The server, or the way to it, is silent.
    #[error("no answer within {} s", ANSWER.as_secs())]
    Silent,
    /// The server, or the way to it, says no.
    #[error("{}", plain(.0))]
    Refused(kube::Error),
}

/// Waits for an answer, and not for ever.
pub(crate) async fn bounded<T>(
    question: impl Future<Output = kube::Result<T>>,
) -> Result<T, Unanswered> {
    match tokio::time::timeout(ANSWER, question).await {
        Err(_) => Err(Unanswered::Silent),
        Ok(answer) => answer.map_err(Unanswered::Refused),
    }
}

/// All objects, page by page, so that a cluster of thousands of nodes is read in bounded answers.
pub(crate) async fn pages<K>(api: &Api<K>, params: &ListParams) -> Result<Vec<K>, Unanswered>
where
    K: Clone + Debug + DeserializeOwned,
{
    let mut all = Vec::new();
    let mut params = params.clone().limit(PAGE);
    loop {
        let page = bounded(api.list(&params)).await?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

async fn config_maps(client: &Client) -> Reading<BTreeMap<String, BTreeMap<String, String>>> {
    let mut all = BTreeMap::new();
    for (namespace, name) in iter::once(KUBE_PROXY).chain(cni_config_maps()) {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let found = bounded(api.get_opt(name))
            .await
            .map_err(|error| format!("cannot read ConfigMap {namespace}/{name}: {error}"))?;
        if let Some(found) = found {
            all.insert(
                format!("{namespace}/{name}"),
                found.data.unwrap_or_default(),
            );
        }
    }
    Ok(all)
}

/// Where mirrors of foreign Peers are, as the agents are told: the chart may have been given another namespace.
pub(crate) fn mesh_namespace(agents: Option<&DaemonSet>) -> String {
    agents
        .and_then(|set| set.spec.as_ref()?.template.spec.as_ref())
        .and_then(|pod| variable(pod, MESH_NAMESPACE_VARIABLE))
        .unwrap_or_else(|| MESH_NAMESPACE.to_owned())
}

/// Namespaces that rights are asked for in.
#[derive(Debug, Clone)]
struct Namespaces {
    ours: String,
    mesh: String,
}

async fn access(client: &Client, namespaces: &Namespaces) -> Vec<Access> {
    let questions = [
        (Who::Caller, CALLER_NEEDS),
        (Who::Operator, OPERATOR_NEEDS),
        (Who::Agent, AGENT_NEEDS),
        (Who::Agent, AGENT_MUST_NOT),
    ];
    let mut answers = Vec::new();
    for (who, rules) in questions {
        for some in actions(rules).chunks(QUESTIONS) {
            let asked: Vec<_> = some
                .iter()
                .map(|action| {
                    let (client, namespaces, action) =
                        (client.clone(), namespaces.clone(), *action);
                    let answer =
                        async move { bounded(ask(&client, &namespaces, who, &action)).await };
                    (action, tokio::spawn(answer))
                })
                .collect();
            for (action, answer) in asked {
                let allowed = match answer.await {
                    Ok(answer) => answer.map_err(|error| error.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                answers.push(Access {
                    who,
                    action,
                    allowed,
                });
            }
            // Who may not ask about others is told so, and not asked on.
            if answers.last().is_some_and(|last| last.allowed.is_err()) {
                break;
            }
        }
    }
    answers
}

async fn ask(
    client: &Client,
    namespaces: &Namespaces,
    who: Who,
    action: &Action,
) -> kube::Result<bool> {
    let (resource, subresource) = match action.resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (action.resource, None),
    };
    let place = match action.place {
        Place::Cluster => None,
        Place::Ours => Some(namespaces.ours.clone()),
        Place::Mesh => Some(namespaces.mesh.clone()),
        Place::Default => Some("default".to_owned()),
    };
    let attributes = ResourceAttributes {
        group: Some(action.group.to_owned()),
        name: Some(action.name.to_owned()).filter(|name| !name.is_empty()),
        namespace: place,
        resource: Some(resource.to_owned()),
        subresource,
        verb: Some(action.verb.to_owned()),
        ..ResourceAttributes::default()
    };
    let namespace = &namespaces.ours;
    let account = match who {
        Who::Caller => {
            let review = SelfSubjectAccessReview {
                spec: SelfSubjectAccessReviewSpec {
                    resource_attributes: Some(attributes),
                    ..SelfSubjectAccessReviewSpec::default()
                },
                ..SelfSubjectAccessReview::default()
            };
            let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
            let answer = api.create(&PostParams::default(), &review).await?;
            return Ok(answer.status.is_some_and(|status| status.allowed));
        }
        Who::Operator => "tieline-operator",
        Who::Agent => "tieline-agent",
    };
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{namespace}:{account}")),
            groups: Some(vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ]),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// The server's own words where there are some.
pub(crate) fn plain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
