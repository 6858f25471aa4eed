//! What nodes are told.

use super::*;

#[test]
fn nodes_that_are_told_something_else() {
    fn told(proposal: &mut Proposal) -> &mut tieline_core::plan::NodePlan {
        proposal.nodes.get_mut(&node_id("us", "rome-1")).unwrap()
    }
    corrupt(
        "pods",
        |proposal| told(proposal).pod_cidrs[0] = p("10.65.99.0/24"),
        any(Invariant::PodsAsGranted),
    );
    corrupt(
        "mesh",
        |proposal| told(proposal).mesh_addresses[0] = "100.127.0.77".parse().unwrap(),
        any(Invariant::MeshAsGranted),
    );
    corrupt(
        "two mesh addresses of one family",
        |proposal| {
            let mesh = &mut told(proposal).mesh_addresses;
            let first = mesh[0];
            mesh.push(first);
        },
        names(Invariant::OneMeshAddressEach, "us/rome-1"),
    );
    corrupt(
        "no mesh address",
        |proposal| told(proposal).mesh_addresses.clear(),
        any(Invariant::OneMeshAddressEach),
    );
    corrupt(
        "assigned",
        |proposal| told(proposal).assign = false,
        any(Invariant::AssignedOnce),
    );
    corrupt(
        "peer",
        |proposal| told(proposal).peer = PeerName::new("us.oslo-1").unwrap(),
        any(Invariant::OwnPeer),
    );
    corrupt(
        "segment",
        |proposal| told(proposal).segment = SegmentName::new("us.oslo").unwrap(),
        names(Invariant::InOwnSegment, "Cluster us in Site rome"),
    );
    corrupt(
        "link",
        |proposal| told(proposal).link = link_name("beta"),
        any(Invariant::LinkHasPlan),
    );
    let (mut world, proposal) = grown();
    world.node("us", "rome-1", "rome", &["10.65.200.0/24"]);
    let findings = check(&world.fleet, &world.before, &proposal);
    expect(
        "a podCIDR of its own",
        &findings,
        any(Invariant::PodCidrsAsObserved),
    );
    let given = proposal.nodes[&node_id("us", "rome-1")].pod_cidrs.iter();
    let given: Vec<String> = given.map(ToString::to_string).collect();
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    world.node("us", "rome-1", "rome", &given);
    let findings = check(&world.fleet, &world.before, &proposal);
    expect(
        "assigned what it has",
        &findings,
        names(Invariant::AssignedOnce, "already"),
    );
    world.remove_node("us", "rome-1");
    let findings = check(&world.fleet, &world.before, &proposal);
    expect("a node that is gone", &findings, any(Invariant::NodeExists));
}

#[test]
fn a_good_proposal_has_no_findings_in_small_blocks_either() {
    let (mut world, _) = grown();
    world.link("acme", &[]).addressing.node_prefix_len = PerFamily { v4: 26, v6: 64 };
    for number in 0..40 {
        world.node("us", &format!("many-{number:02}"), "rome", &[]);
    }
    world.go();
}
