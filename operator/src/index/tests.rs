#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::json;
use tieline_crds::SiteSpec;

fn site(version: &str, cidr: &str) -> Site {
    let mut site = Site::new(
        "berlin",
        SiteSpec {
            cidrs: vec![cidr.to_owned()],
            ..SiteSpec::default()
        },
    );
    site.metadata.uid = Some("u".into());
    site.metadata.resource_version = Some(version.to_owned());
    site
}

fn node(version: &str, heartbeat: &str) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": "n1", "uid": "u", "resourceVersion": version, "labels": {"a": "b"}, "managedFields": [
            {"manager": "kubelet", "operation": "Update", "time": heartbeat, "fieldsV1": {"f:status": {}}},
            {"manager": "kube-controller-manager", "operation": "Update", "time": heartbeat,
             "fieldsV1": {"f:spec": {"f:podCIDR": {}}}},
        ]},
        "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]},
        "status": {
            "images": [{"names": ["big"]}],
            "conditions": [
                {"type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat},
                {"type": "DiskPressure", "status": "False", "lastHeartbeatTime": heartbeat},
            ],
        },
    }))
    .unwrap()
}

#[test]
fn the_echo_of_an_own_write_is_no_change() {
    let mut index = Index::default();
    assert!(index.apply(site("5", "10.0.0.0/8")));
    assert!(!index.apply(site("5", "10.0.0.0/8")));
    assert!(
        !index.apply(site("4", "10.0.0.0/9")),
        "an older version must not come back"
    );
    assert!(index.apply(site("6", "10.0.0.0/9")));
}

#[test]
fn a_new_version_without_a_difference_is_taken_and_wakes_nobody() {
    let mut index = Index::default();
    index.apply(site("5", "10.0.0.0/8"));
    assert!(!index.apply(site("9", "10.0.0.0/8")));
    assert_eq!(
        index.sites.get("berlin").unwrap().resource_version(),
        Some("9".into())
    );
}

#[test]
fn a_late_answer_does_not_bring_a_deleted_object_back() {
    let mut index = Index::default();
    index.apply(site("5", "10.0.0.0/8"));
    assert!(index.delete(&site("8", "10.0.0.0/8")));
    assert!(!index.apply(site("7", "10.0.0.0/8")));
    assert!(index.sites.is_empty());
    assert!(
        index.apply(site("9", "10.0.0.0/8")),
        "created again after the deletion"
    );
}

#[test]
fn a_list_after_an_outage_replaces_everything_even_with_lower_versions() {
    let mut index = Index::default();
    assert_eq!(index.missing().len(), 10);
    assert!(
        index.reset::<Site>(Vec::new()),
        "the first list makes the kind complete"
    );
    assert!(!index.reset::<Site>(Vec::new()));
    index.apply(site("50", "10.0.0.0/8"));
    assert!(index.reset(vec![site("7", "10.1.0.0/16")]));
    assert_eq!(
        index.sites.get("berlin").unwrap().spec.cidrs,
        ["10.1.0.0/16"]
    );
    assert!(
        index.apply(site("8", "10.2.0.0/16")),
        "versions count from the list on"
    );
}

#[test]
fn a_heartbeat_changes_nothing_and_the_owner_of_a_pod_cidr_is_kept() {
    let mut index = Index::default();
    assert!(index.apply(node("1", "2026-01-01T00:00:00Z")));
    assert!(!index.apply(node("2", "2026-01-01T00:05:00Z")));
    let node = index.nodes.get("n1").unwrap();
    let managers: Vec<_> = node
        .metadata
        .managed_fields
        .iter()
        .flatten()
        .filter_map(|entry| entry.manager.as_deref())
        .collect();
    assert_eq!(managers, ["kube-controller-manager"]);
    assert!(node.status.as_ref().unwrap().images.is_none());
}

#[test]
fn a_view_follows_at_the_cost_of_what_changed_and_knows_own_writes() {
    let (mut index, mut view) = (Index::default(), Index::default());
    index.apply(site("5", "10.0.0.0/8"));
    let news = index.follow(&mut view, Scope::All);
    assert!(news.sites[0].before.is_none() && news.sites[0].origin == Origin::Others);
    assert!(index.follow(&mut view, Scope::All).sites.is_empty());

    index.apply_own(site("6", "10.0.0.0/9"));
    let news = index.follow(&mut view, Scope::All);
    let change = &news.sites[0];
    assert_eq!(change.origin, Origin::Own);
    assert_eq!(change.before.as_ref().unwrap().spec.cidrs, ["10.0.0.0/8"]);
    assert_eq!(view.sites.get("berlin").unwrap().spec.cidrs, ["10.0.0.0/9"]);

    // What somebody else did in between is not an own write.
    index.apply(site("7", "10.0.0.0/8"));
    index.apply_own(site("8", "10.0.0.0/9"));
    assert_eq!(
        index.follow(&mut view, Scope::All).sites[0].origin,
        Origin::Others
    );

    index.delete(&site("8", "10.0.0.0/9"));
    assert!(index.has_news_of_users());
    assert!(index.follow(&mut view, Scope::Nodes).sites.is_empty());
    assert_eq!(view.sites.len(), 1, "it waits");
    let news = index.follow(&mut view, Scope::All);
    assert!(news.sites[0].now.is_none() && view.sites.is_empty());
}

#[test]
fn a_list_is_news_of_what_differs_alone() {
    let (mut index, mut view) = (Index::default(), Index::default());
    index.reset(vec![site("5", "10.0.0.0/8")]);
    index.follow(&mut view, Scope::All);
    index.reset(vec![site("5", "10.0.0.0/8")]);
    assert!(index.follow(&mut view, Scope::All).sites.is_empty());
    index.reset(vec![site("9", "10.0.0.0/8")]);
    assert_eq!(
        index.follow(&mut view, Scope::All).sites.len(),
        1,
        "a version is for compare-and-swap"
    );
    index.reset(Vec::<Site>::new());
    let news = index.follow(&mut view, Scope::All);
    assert!(news.sites[0].now.is_none());
}
