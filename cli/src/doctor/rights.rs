//! Who needs to be allowed what, in rules like those of the chart's Roles, and what the API server's authorizer says of it.

use super::reading::Reading;

/// One question to the authorizer, and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Access {
    /// Who would act.
    pub who: Who,
    /// What it would do.
    pub action: Action,
    /// Whether it may.
    pub allowed: Reading<bool>,
}

/// Who would act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// Whoever runs this program.
    Caller,
    /// The operator's service account.
    Operator,
    /// The agents' service account.
    Agent,
}

/// Where something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// Everywhere, and for objects without namespace.
    Cluster,
    /// In the namespace of operator and agents.
    Ours,
    /// In the namespace of mirrors of other clusters' Peers.
    Mesh,
    /// In the namespace `default`, where events about objects without namespace are.
    Default,
}

/// A verb on a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Action {
    /// Verb.
    pub verb: &'static str,
    /// API group; empty for the core's.
    pub group: &'static str,
    /// Resource, with its subresource behind a slash.
    pub resource: &'static str,
    /// Name of one object; empty for all.
    pub name: &'static str,
    /// Where.
    pub place: Place,
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if !self.name.is_empty() {
            write!(f, " {}", self.name)?;
        }
        f.write_str(match self.place {
            Place::Cluster | Place::Ours => "",
            Place::Mesh => " in the namespace of mirrors",
            Place::Default => " in the namespace default",
        })
    }
}

/// Verbs on resources, as a Role has them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    place: Place,
    group: &'static str,
    resources: &'static [&'static str],
    /// Names of objects; empty: all.
    names: &'static [&'static str],
    verbs: &'static [&'static str],
}

const fn rule(
    place: Place,
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
) -> Rule {
    Rule {
        place,
        group,
        resources,
        names: &[],
        verbs,
    }
}

impl Rule {
    const fn named(self, names: &'static [&'static str]) -> Self {
        Self { names, ..self }
    }

    fn actions(&self) -> impl Iterator<Item = Action> {
        let Self {
            place,
            group,
            resources,
            names,
            verbs,
        } = *self;
        let names = if names.is_empty() { &[""] } else { names };
        resources.iter().flat_map(move |resource| {
            names.iter().flat_map(move |name| {
                verbs.iter().map(move |verb| Action {
                    verb,
                    group,
                    resource,
                    name,
                    place,
                })
            })
        })
    }
}

/// Every action of some rules.
pub(crate) fn actions(rules: &[Rule]) -> Vec<Action> {
    rules.iter().flat_map(Rule::actions).collect()
}

const TIELINE: &str = tieline_crds::GROUP;
const LEASES: &str = "coordination.k8s.io";
const EVENTS: &str = "events.k8s.io";
const DEFINITIONS: &str = "apiextensions.k8s.io";
const READ: &[&str] = &["get", "list", "watch"];

/// What the caller needs for the commands of this program that ask the API server.
pub(crate) const CALLER_NEEDS: &[Rule] = &[
    rule(Place::Cluster, "", &["nodes"], &["list"]),
    rule(
        Place::Cluster,
        TIELINE,
        &["clusterlinks"],
        &["list", "create"],
    ),
    rule(Place::Ours, TIELINE, &["peers"], &["list"]),
    rule(Place::Ours, "", &["pods"], &["list"]),
    rule(Place::Ours, "", &["pods/log"], &["get"]),
];

/// What the chart grants the operator: no more and no less.
pub(crate) const OPERATOR_NEEDS: &[Rule] = &[
    rule(
        Place::Cluster,
        TIELINE,
        &["clusterlinks", "clusters", "sites", "vpnattachments"],
        &["get", "list", "watch", "patch"],
    ),
    rule(
        Place::Cluster,
        TIELINE,
        &[
            "clusterlinks/status",
            "clusters/status",
            "sites/status",
            "vpnattachments/status",
            "addressledgers/status",
        ],
        &["get", "patch"],
    ),
    rule(
        Place::Cluster,
        TIELINE,
        &["addressledgers"],
        &["get", "list", "watch", "create", "update", "delete"],
    ),
    rule(
        Place::Cluster,
        "",
        &["nodes"],
        &["get", "list", "watch", "patch"],
    ),
    rule(Place::Cluster, "networking.k8s.io", &["servicecidrs"], READ),
    rule(
        Place::Cluster,
        DEFINITIONS,
        &["customresourcedefinitions"],
        &["get"],
    )
    .named(&[
        "addressledgers.tieline.dev",
        "clusterlinks.tieline.dev",
        "clusters.tieline.dev",
        "networkplans.tieline.dev",
        "peers.tieline.dev",
        "sites.tieline.dev",
        "vpnattachments.tieline.dev",
    ]),
    rule(
        Place::Ours,
        TIELINE,
        &["networkplans", "peers"],
        &["get", "list", "watch", "create", "patch", "delete"],
    ),
    rule(
        Place::Ours,
        TIELINE,
        &["networkplans/status"],
        &["get", "patch"],
    ),
    rule(Place::Ours, TIELINE, &["peers/status"], &["get"]),
    rule(
        Place::Ours,
        "",
        &["secrets"],
        &["get", "list", "watch", "create", "patch", "delete"],
    ),
    rule(Place::Ours, LEASES, &["leases"], &["create"]),
    rule(Place::Ours, LEASES, &["leases"], &["get", "update"]).named(&["tieline-operator"]),
    rule(Place::Ours, EVENTS, &["events"], &["create", "patch"]),
    rule(Place::Default, EVENTS, &["events"], &["create", "patch"]),
];

/// What the chart grants the agents: no more and no less.
pub(crate) const AGENT_NEEDS: &[Rule] = &[
    rule(
        Place::Cluster,
        DEFINITIONS,
        &["customresourcedefinitions"],
        &["get"],
    )
    .named(&["networkplans.tieline.dev", "peers.tieline.dev"]),
    rule(Place::Ours, TIELINE, &["networkplans", "peers"], READ),
    rule(
        Place::Ours,
        TIELINE,
        &["peers/status"],
        &["get", "patch", "update"],
    ),
    rule(Place::Mesh, TIELINE, &["networkplans", "peers"], READ),
];

/// What no agent may: one compromised node would have it all.
pub(crate) const AGENT_MUST_NOT: &[Rule] = &[
    rule(Place::Ours, "", &["secrets"], &["get"]),
    rule(Place::Ours, TIELINE, &["peers"], &["patch"]),
    rule(Place::Cluster, "", &["nodes"], &["patch"]),
];

#[cfg(test)]
mod tests;
