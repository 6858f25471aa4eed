//! What the pods of a workload are started with, as their templates say it.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Container, PodSpec};

/// The value of a variable of a pod, where it is written out.
pub(crate) fn variable(pod: &PodSpec, name: &str) -> Option<String> {
    pod.containers
        .iter()
        .flat_map(|container| container.env.iter().flatten())
        .find(|variable| variable.name == name)
        .and_then(|variable| variable.value.clone())
}

/// All words of a pod's command lines.
pub(super) fn words(spec: Option<&PodSpec>) -> impl Iterator<Item = &str> {
    spec.into_iter()
        .flat_map(|spec| spec.containers.iter())
        .flat_map(|it: &Container| it.command.iter().flatten().chain(it.args.iter().flatten()))
        .map(String::as_str)
}

/// All words of the command lines of a DaemonSet's pods.
pub(super) fn template(set: &DaemonSet) -> impl Iterator<Item = &str> {
    words(
        set.spec
            .as_ref()
            .and_then(|spec| spec.template.spec.as_ref()),
    )
}
