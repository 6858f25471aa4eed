#![allow(clippy::unwrap_used)]
use super::*;
use crate::index::AGENT_NOT_READY;
use crate::ledgers;
use crate::restore;
use crate::steps::{peers, plans, untainted};
use k8s_openapi::api::core::v1::{Node, NodeSpec, Taint};
use kube::ResourceExt;
use serde_json::{Value, json};
use tieline_core::ids::LinkName;
use tieline_core::notice::Reason;
use tieline_crds::{AddressLedger, Cluster, ClusterLink, NetworkPlan, Peer, Site};

/// An API server for the pure part: objects go in as JSON, and what a pass would write goes in again.
struct Bench {
    index: Index,
    keeper: Keeper,
    stored: Stored,
}

fn keeper(lineage: &str) -> Keeper {
    let lineage = Lineage::new(lineage).unwrap();
    Keeper::new("shop".parse().unwrap(), lineage, 21820)
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            index: Index::default(),
            keeper: keeper("lineage1"),
            stored: Stored::new(),
        };
        bench.put::<Cluster>(json!({"metadata": {"name": "shop"}, "spec": {"sites": {"fromNodeLabel": "site"}, "pods": {"assign": true}}}));
        bench.put::<ClusterLink>(json!({
            "metadata": {"name": "acme"},
            "spec": {"addressing": {"podPools": ["10.64.0.0/10"]}, "members": {"clusters": ["shop"], "sites": ["berlin"]}},
        }));
        bench.put::<Site>(
            json!({"metadata": {"name": "berlin"}, "spec": {"cidrs": ["192.168.0.0/24"]}}),
        );
        for (node, site, last) in [("b1", "berlin", 1), ("b2", "berlin", 2), ("o1", "oslo", 3)] {
            bench.node(node, site, last);
        }
        bench
    }

    fn put<K: crate::index::Indexed + serde::de::DeserializeOwned>(&mut self, object: Value) {
        self.index
            .apply::<K>(serde_json::from_value(object).unwrap());
    }

    fn node(&mut self, name: &str, site: &str, last: u8) {
        self.put::<Node>(json!({
            "metadata": {"name": name, "labels": {"site": site}},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("192.0.2.{last}")}],
                       "conditions": [{"type": "Ready", "status": "True"}]},
        }));
    }

    /// Another process takes over.
    fn restart(&mut self, lineage: &str) {
        self.keeper = keeper(lineage);
        self.keeper.index = self.index.clone();
    }

    /// What is decided on everything, without going on from there.
    fn decide(&mut self) -> Decided {
        let keeper = &mut self.keeper;
        Decided::full(
            &self.index,
            &mut keeper.memory,
            &mut keeper.seen,
            &keeper.cluster,
            &keeper.fresh,
        )
    }

    /// One pass without IO over what changed; returns how much it would have written.
    fn pass(&mut self) -> (Decided, usize) {
        let news = self.index.follow(&mut self.keeper.index, Scope::All);
        let (_, steps) = self.keeper.decide(&news, &mut OsRng);
        let late = std::mem::take(&mut self.keeper.late);
        let decided = self.keeper.decided.clone().unwrap();
        assert_eq!(decided.trouble, None);
        if steps.begun.is_some() {
            let writes = steps.urgent.into_iter().flatten();
            writes.for_each(|write| self.store(write));
            self.keeper.start_anew();
            return self.pass();
        }
        self.stored.clear();
        let mut count = 0;
        for write in steps.urgent.into_iter().flatten().chain(late) {
            count += 1;
            self.stored.insert(write.target());
            self.store(write);
        }
        (decided, count)
    }

    /// All statuses that differ.
    fn statuses(&self, decided: &Decided, refused: &Refused) -> Vec<Announcement> {
        let judged = Judged {
            index: &self.index,
            decided,
            members: &Readiness::judge(&self.index, decided),
            refused,
        };
        announcements(&judged, &Due::all(&self.index), Timestamp::UNIX_EPOCH)
    }

    fn store(&mut self, write: Write) {
        match write {
            Write::Ledger(ledger) => self.index.apply_own(*ledger),
            Write::Plan(name, spec) => self.index.apply_own(NetworkPlan::new(&name, *spec)),
            Write::Peer(name, spec) => self.index.apply_own(Peer::new(&name, *spec)),
            Write::PodCidrs(node, cidrs) => {
                let cidrs = cidrs.iter().map(ToString::to_string).collect();
                self.edit_node(&node, |spec| spec.pod_cidrs = Some(cidrs));
            }
            Write::Taints(node, taints) => self.edit_node(&node, |spec| spec.taints = Some(taints)),
            Write::NewSecret(secret) | Write::Secret(secret) => self.index.apply_own(secret),
            Write::DeleteSecret(secret) => self.index.delete_own(&*secret),
            Write::DeleteSlice(slice) => self.index.delete_own(&*slice),
            Write::DeletePlan(plan) => self.index.delete_own(&*plan),
            Write::DeletePeer(peer) => self.index.delete_own(&*peer),
        }
    }

    fn edit_node(&mut self, node: &Node, edit: impl FnOnce(&mut NodeSpec)) {
        let mut node = Node::clone(self.index.nodes.get(&node.name_any()).unwrap());
        edit(node.spec.get_or_insert_default());
        self.index.apply_own(node);
    }

    /// The revision of a link's plan.
    fn revision(&self, link: &str) -> u64 {
        self.index.plans.get(link).unwrap().spec.revision
    }

    /// An agent that says which revision it carries.
    fn carries(&mut self, peer: &str, revision: u64) {
        let mut peer = Peer::clone(self.index.peers.get(peer).unwrap());
        let status = json!({"appliedRevision": revision});
        peer.status = Some(serde_json::from_value(status).unwrap());
        self.index.apply(peer);
    }

    fn link(&mut self, name: &str, pool: &str, clusters: &[&str]) {
        self.put::<ClusterLink>(json!({
            "metadata": {"name": name},
            "spec": {"addressing": {"podPools": [pool]}, "members": {"clusters": clusters}},
        }));
    }

    /// A cluster that is elsewhere.
    fn depot(&mut self) {
        self.put::<Cluster>(
            json!({"metadata": {"name": "depot"}, "spec": {"sites": {"name": "rome"}}}),
        );
    }

    fn delete_plan(&mut self) {
        let plan = NetworkPlan::clone(self.index.plans.get("acme").unwrap());
        self.index.delete(&plan);
    }

    fn peers(&self) -> Vec<&str> {
        self.index.peers.iter().map(|(name, _)| name).collect()
    }
}

#[test]
fn a_second_pass_writes_nothing() {
    let mut bench = Bench::new();
    let (_, writes) = bench.pass();
    assert_eq!(writes, 2 + 1 + 3, "two ledgers, a plan, three Peers");
    assert_eq!(bench.pass().1, 0);
    bench.carries("shop.b1", 1);
    assert_eq!(
        bench.pass().1,
        1,
        "the podCIDR of the node whose agent carries a plan"
    );
    assert_eq!(bench.pass().1, 0);
    bench.restart("lineage2");
    assert_eq!(
        bench.pass().1,
        0,
        "nor does the first pass of another process"
    );
}

#[test]
fn the_hubs_ledger_is_written_before_the_ledgers_that_split_it() {
    let mut bench = Bench::new();
    let decided = bench.decide();
    let steps = ledgers::steps(&bench.index, &decided, &Extent::All).steps;
    let levels = steps.into_iter().map(|level| {
        let names = level.into_iter().map(|write| match write {
            Write::Ledger(ledger) => ledger.metadata.name.unwrap(),
            other => panic!("{other:?} is no ledger"),
        });
        names.collect::<Vec<_>>()
    });
    let levels: Vec<Vec<String>> = levels.collect();
    assert_eq!([&levels[1], &levels[3]], [&["hub"], &["cluster-shop"]]);
}

#[test]
fn an_object_that_becomes_unreadable_keeps_its_last_form() {
    let mut bench = Bench::new();
    bench.pass();
    bench.put::<Cluster>(json!({"metadata": {"name": "shop"}, "spec": {"sites": {}}}));
    let (decided, writes) = bench.pass();
    assert_eq!(writes, 0);
    assert_eq!(decided.world.invalid[0].field, "spec.sites");
    bench.node("o2", "oslo", 9);
    bench.pass();
    assert!(bench.peers().contains(&"shop.o2"), "the others go on");
}

#[test]
fn at_a_start_a_link_with_an_unreadable_applied_member_is_set_aside_and_nothing_is_withdrawn() {
    let mut bench = Bench::new();
    bench.pass();
    bench.restart("lineage1");
    bench.put::<Cluster>(json!({"metadata": {"name": "shop"}, "spec": {"sites": {}}}));
    let (decided, writes) = bench.pass();
    assert_eq!(writes, 0);
    assert!(
        decided
            .world
            .aside
            .values()
            .next()
            .unwrap()
            .contains("spec.sites")
    );
    assert_eq!(bench.peers().len(), 3);
    bench.put::<ClusterLink>(json!({"metadata": {"name": "acme"}, "spec": {"members": {}}}));
    assert_eq!(
        bench.pass().1,
        0,
        "an unreadable link withdraws nothing either"
    );
}

#[test]
fn an_unreadable_ledger_stops_everything_and_is_named() {
    let mut bench = Bench::new();
    bench.pass();
    let mut ledger = AddressLedger::clone(bench.index.ledgers.get("hub").unwrap());
    ledger.spec.grants[0].prefix = "10.64.0.1/16".into();
    bench.index.apply(ledger);
    let decided = bench.decide();
    let (reason, message) = decided.trouble.unwrap();
    assert_eq!(reason, Standing::RecordUnreadable);
    assert!(
        message.contains("AddressLedger hub: spec.grants[0].prefix"),
        "{message}"
    );
}

#[test]
fn a_deleted_link_withdraws_plan_and_peers_and_keeps_the_grants() {
    let mut bench = Bench::new();
    bench.pass();
    let grants = bench
        .index
        .ledgers
        .get("cluster-shop")
        .unwrap()
        .spec
        .grants
        .clone();
    let link = ClusterLink::clone(bench.index.links.get("acme").unwrap());
    bench.index.delete(&link);
    bench.pass();
    assert!(bench.peers().is_empty() && bench.index.plans.is_empty());
    assert_eq!(
        bench.index.ledgers.get("cluster-shop").unwrap().spec.grants,
        grants
    );
}

#[test]
fn a_node_that_waits_keeps_its_peer_and_one_that_is_gone_does_not() {
    let mut bench = Bench::new();
    bench.pass();
    // Its label is no valid site any more: it waits.
    let mut node = Node::clone(bench.index.nodes.get("o1").unwrap());
    node.metadata.labels = Some([("site".to_owned(), "Not A Name".to_owned())].into());
    bench.index.apply(node.clone());
    bench.pass();
    assert!(bench.peers().contains(&"shop.o1"));
    bench.index.delete(&node);
    bench.pass();
    assert!(!bench.peers().contains(&"shop.o1"));
}

#[test]
fn pods_assign_is_refused_while_another_manager_owns_a_pod_cidr() {
    let mut bench = Bench::new();
    bench.put::<Node>(json!({
        "metadata": {"name": "b2", "labels": {"site": "berlin"}, "managedFields": [
            {"manager": "kube-controller-manager", "fieldsV1": {"f:spec": {"f:podCIDR": {}}}},
        ]},
        "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]},
    }));
    let (decided, _) = bench.pass();
    let mut own = decided.world.notices.iter();
    let refusal = own
        .find(|it| it.reason == Reason::OtherPodCidrManager)
        .unwrap();
    assert!(
        refusal
            .message
            .contains("kube-controller-manager owns the podCIDR of b2"),
        "{}",
        refusal.message
    );
    assert!(decided.proposal().nodes.values().all(|node| !node.assign));
    assert_eq!(
        bench.index.peers.get("shop.b2").unwrap().spec.pod_cidrs,
        ["10.244.0.0/24"]
    );
}

#[test]
fn among_a_thousand_nodes_a_join_writes_what_is_its_own_and_a_second_pass_nothing() {
    let mut bench = Bench::new();
    for number in 0..1000_u16 {
        bench.node(
            &format!("n{number}"),
            ["berlin", "oslo", "paris", "rome"][usize::from(number % 4)],
            9,
        );
    }
    bench.put::<ClusterLink>(json!({
        "metadata": {"name": "acme"},
        "spec": {"addressing": {"podPools": ["10.64.0.0/10"], "clusterPrefixLength": {"v4": 12}}, "members": {"clusters": ["shop"]}},
    }));
    bench.pass();
    assert_eq!(bench.peers().len(), 1003);
    assert_eq!(bench.pass().1, 0);
    bench.node("late", "oslo", 9);
    let (_, writes) = bench.pass();
    assert_eq!(writes, 2, "the cluster's ledger and a Peer");
    bench.carries("shop.late", 1);
    assert_eq!(bench.pass().1, 1, "its podCIDR");
}

#[test]
fn a_join_is_followed_by_what_changed_also_when_its_site_needs_a_new_chunk() {
    let mut bench = Bench::new();
    for number in 0..40_u8 {
        bench.node(&format!("n{number}"), "oslo", 10 + number);
        bench.pass();
        assert_eq!(bench.pass().1, 0, "after {number}");
    }
    let before = bench.revision("acme");
    let mut whole = 0;
    for number in 40..120_u8 {
        bench.node(&format!("n{number}"), "oslo", 10 + number);
        let news = bench.index.follow(&mut bench.keeper.index, Scope::All);
        let (extent, steps) = bench.keeper.decide(&news, &mut OsRng);
        whole += usize::from(extent == Extent::All);
        for write in steps.urgent.into_iter().flatten() {
            bench.store(write);
        }
    }
    assert_eq!(whole, 0);
    assert!(bench.revision("acme") > before, "no chunk was cut");
    assert_eq!(bench.peers().len(), 123);
}

#[test]
fn what_was_left_for_later_gives_way_to_what_touches_a_node_and_is_never_written_when_it_is_old() {
    let mut bench = Bench::new();
    for number in 0..40_u8 {
        bench.node(&format!("n{number}"), "oslo", 10 + number);
    }
    let decide = |bench: &mut Bench| {
        let news = bench.index.follow(&mut bench.keeper.index, Scope::All);
        let (_, steps) = bench.keeper.decide(&news, &mut OsRng);
        for write in steps.urgent.into_iter().flatten() {
            bench.store(write);
        }
    };
    decide(&mut bench);
    assert!(bench.peers().is_empty() && bench.keeper.late.len() == 43);
    let gone = Node::clone(bench.index.nodes.get("n7").unwrap());
    bench.index.delete(&gone);
    bench.node("n8", "oslo", 99);
    bench.node("late", "oslo", 98);
    decide(&mut bench);
    assert_eq!(bench.peers(), ["shop.late", "shop.n8"]);
    for write in std::mem::take(&mut bench.keeper.late) {
        bench.store(write);
    }
    assert!(!bench.peers().contains(&"shop.n7"));
    assert_eq!(bench.peers().len(), 43);
    let endpoints = &bench.index.peers.get("shop.n8").unwrap().spec;
    assert_eq!(endpoints.accepted_endpoints[0].address, "192.0.2.99");
    assert_eq!(bench.pass().1, 0);
    bench.restart("lineage1");
    assert_eq!(bench.pass().1, 0, "a whole pass finds nothing else");
}

#[test]
fn a_node_waits_with_its_taint_until_its_agent_carries_a_plan_and_keeps_other_taints() {
    let mut bench = Bench::new();
    let mut node = Node::clone(bench.index.nodes.get("b1").unwrap());
    let taint = |key: &str| Taint {
        key: key.to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    node.spec.get_or_insert_default().taints = Some(vec![taint("gpu"), taint(AGENT_NOT_READY)]);
    bench.index.apply(node);
    bench.pass();
    assert_eq!(bench.pass().1, 0);
    bench.carries("shop.b1", 1);
    let decided = bench.decide();
    let writes = untainted(&bench.index, &decided, &Extent::All);
    let [Write::Taints(_, left)] = &writes[..] else {
        panic!("{writes:?}");
    };
    assert_eq!(*left, [taint("gpu")]);
    assert_eq!(bench.pass().1, 2, "its podCIDR and its taints");
    assert_eq!(bench.pass().1, 0);
}

#[test]
fn a_cluster_whose_nodes_cannot_be_seen_from_here_is_named_with_what_to_do() {
    let mut bench = Bench::new();
    bench.put::<Cluster>(
        json!({"metadata": {"name": "depot"}, "spec": {"sites": {"name": "rome"}}}),
    );
    bench.put::<ClusterLink>(json!({
        "metadata": {"name": "acme"},
        "spec": {"addressing": {"podPools": ["10.64.0.0/10"]}, "members": {"clusters": ["depot", "shop"]}},
    }));
    let (decided, _) = bench.pass();
    let members = Readiness::judge(&bench.index, &decided);
    let (link, spec) = decided.world.fleet.links.iter().next().unwrap();
    let entries = members.entries(link, spec, &decided);
    let depot = entries
        .first
        .iter()
        .find(|it| it.about.name() == "depot")
        .unwrap();
    assert!(
        depot.message.contains("--cluster-name"),
        "{}",
        depot.message
    );
}

#[test]
fn a_write_that_was_refused_concerns_its_own_link_alone() {
    let mut bench = Bench::new();
    bench.depot();
    bench.link("zeta", "10.200.0.0/16", &["depot"]);
    bench.pass();
    bench.node("b3", "berlin", 9);
    let (decided, _) = bench.pass();
    let peer = bench.decide();
    let peer = peers(&peer, &Extent::All).pop();
    assert!(peer.is_none_or(|write| link_of(&decided, &write).unwrap().as_str() == "acme"));
    for (link, planned) in [
        (Some("acme"), [("acme", "False"), ("zeta", "True")]),
        (None, [("acme", "False"), ("zeta", "False")]),
    ] {
        let mut refused = Refused::default();
        let error = WriteError::Refused {
            object: "peers shop.b3".to_owned(),
            reason: "not welcome".to_owned(),
        };
        refused.push(link.map(|name| LinkName::new(name).unwrap()), error);
        let wanted = bench.statuses(&decided, &refused);
        for (name, expected) in planned {
            let of_link = |it: &Announcement| match it {
                Announcement::Link(link, status) if link.name_any() == name => Some(status.clone()),
                _ => None,
            };
            let status = wanted.iter().find_map(of_link).unwrap();
            let mut conditions = status.conditions.iter();
            let found = conditions.find(|it| it.type_ == "Planned").unwrap();
            assert_eq!(found.status, expected, "{name} after {link:?}");
        }
    }
}

#[test]
fn events_tell_of_what_was_stored_and_of_nothing_else() {
    let mut bench = Bench::new();
    bench.pass();
    for peer in ["shop.b1", "shop.b2", "shop.o1"] {
        bench.carries(peer, 1);
    }
    let (decided, _) = bench.pass();
    let told = |bench: &Bench| {
        let events = crate::status::done(&bench.index, &decided, &bench.stored);
        let of_nodes = events.iter().filter(|it| it.reason == "PodCidrAssigned");
        of_nodes.count()
    };
    assert_eq!(told(&bench), 3);
    bench.stored.remove(&Target::PodCidrs("b1".to_owned()));
    assert_eq!(told(&bench), 2);
}

mod histories;
mod restored;
mod sliced;
