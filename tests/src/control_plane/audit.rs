//! Reads the API server's audit log: who changed what since a mark.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// A place in the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditMark(u64);

/// One request that asked to change an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditWrite {
    /// `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// API group, empty for the core group.
    pub group: String,
    /// Plural of the kind.
    pub resource: String,
    /// Such as `status`; empty for the object itself.
    pub subresource: String,
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// Name, empty where the server makes it.
    pub name: String,
    /// Who asked.
    pub user: String,
    /// The node that the credential is bound to (service-account tokens of pods), else empty.
    pub node: String,
    /// HTTP status of the answer; 0 when the log has none.
    pub code: u16,
}

impl AuditWrite {
    /// Whether Kubernetes itself wrote: the API server, a controller of kube-controller-manager, or the scheduler.
    pub fn by_control_plane(&self) -> bool {
        let user = self.user.as_str();
        matches!(
            user,
            "system:apiserver" | "system:kube-controller-manager" | "system:kube-scheduler"
        ) || user.starts_with("system:serviceaccount:kube-system:")
    }

    /// Whether the API server accepted it.
    pub fn accepted(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

impl std::fmt::Display for AuditWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            verb,
            resource,
            subresource,
            namespace,
            name,
            user,
            code,
            ..
        } = self;
        let slash = |text: &str| {
            if text.is_empty() {
                String::new()
            } else {
                format!("/{text}")
            }
        };
        let namespace = if namespace.is_empty() {
            String::new()
        } else {
            format!("{namespace}/")
        };
        write!(
            f,
            "{verb} {resource}{} {namespace}{name} by {user} ({code})",
            slash(subresource)
        )
    }
}

pub(super) fn mark(log: &Path) -> AuditMark {
    AuditMark(fs::metadata(log).map_or(0, |metadata| metadata.len()))
}

pub(super) fn writes_since(log: &Path, AuditMark(offset): AuditMark) -> Result<Vec<AuditWrite>> {
    let mut text = Vec::new();
    let mut read = || {
        let mut file = fs::File::open(log)?;
        file.seek(SeekFrom::Start(offset))?;
        file.read_to_end(&mut text)
    };
    read().with_context(|| format!("read the audit log {}", log.display()))?;
    // A line that is being written has no end yet: it belongs to the next look.
    let complete = text
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    let mut writes = Vec::new();
    for line in text[..complete]
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let event: Event = serde_json::from_slice(line).with_context(|| {
            format!(
                "parse a line of the audit log {}: {}",
                log.display(),
                String::from_utf8_lossy(line)
            )
        })?;
        writes.extend(event.into_write());
    }
    Ok(writes)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    #[serde(default, rename = "requestURI")]
    request_uri: String,
    #[serde(default)]
    user: User,
    object_ref: Option<ObjectRef>,
    #[serde(default)]
    response_status: Status,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct User {
    username: String,
    extra: std::collections::BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
    api_group: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    code: u16,
}

impl Event {
    fn into_write(self) -> Option<AuditWrite> {
        let object = self.object_ref?;
        let asks_for_change = matches!(
            self.verb.as_str(),
            "create" | "update" | "patch" | "delete" | "deletecollection"
        );
        let renewal =
            object.resource == "leases" && matches!(self.verb.as_str(), "update" | "patch");
        // A review is a question in the form of a create.
        let review = matches!(
            object.api_group.as_str(),
            "authentication.k8s.io" | "authorization.k8s.io"
        );
        if !asks_for_change || renewal || review || self.request_uri.contains("dryRun=All") {
            return None;
        }
        let node = self
            .user
            .extra
            .get("authentication.kubernetes.io/node-name")
            .and_then(|names| names.first());
        Some(AuditWrite {
            verb: self.verb,
            group: object.api_group,
            resource: object.resource,
            subresource: object.subresource,
            namespace: object.namespace,
            name: object.name,
            node: node.cloned().unwrap_or_default(),
            user: self.user.username,
            code: self.response_status.code,
        })
    }
}
