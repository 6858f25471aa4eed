//! Who gives nodes their pod ranges: kube-controller-manager, which then stays the only one, or Tieline.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::lab::Flows;
use e2e::nodes::{Cni, NodeLab, PodRanges, ProxyMode, Tieline};
use e2e::wait::eventually;
use ipnet::IpNet;
use serde_json::Value;

use crate::real_nodes;
use crate::world::{PATIENCE, World, end, three_sites};

fn flows() -> Flows {
    Flows {
        each: 1,
        patience: Duration::from_secs(12),
        ..Flows::default()
    }
}

/// Every node's pod ranges, by node.
fn ranges(lab: &NodeLab) -> Result<Vec<(String, Vec<IpNet>)>> {
    let text = lab
        .control_plane()
        .kubectl(&["get", "nodes", "-o", "json"])?;
    let list: Value = serde_json::from_str(&text)?;
    let nodes = list["items"].as_array().into_iter().flatten();
    nodes
        .map(|node| {
            let name = node["metadata"]["name"].as_str().unwrap_or_default();
            let cidrs = node["spec"]["podCIDRs"].as_array().into_iter().flatten();
            let cidrs = cidrs
                .map(|cidr| Ok(cidr.as_str().unwrap_or_default().parse()?))
                .collect::<Result<_>>()?;
            Ok((name.to_owned(), cidrs))
        })
        .collect()
}

pub(crate) fn refused(world: &mut World) -> Result<()> {
    world.up()?;
    let before = ranges(&world.lab)?;
    let asks = r#"{"spec": {"pods": {"assign": true}}}"#;
    let patch = [
        "patch",
        "clusters.tieline.dev",
        "shop",
        "--type=merge",
        "-p",
        asks,
    ];
    world.lab.control_plane().kubectl(&patch)?;
    let condition = eventually("the refusal", Duration::from_secs(15), || {
        let get = ["get", "clusters.tieline.dev", "shop", "-o", "json"];
        let object: Value = serde_json::from_str(&world.lab.control_plane().kubectl(&get)?)?;
        let conditions = object["status"]["conditions"].as_array();
        let found = conditions
            .into_iter()
            .flatten()
            .find(|it| it["reason"] == "OtherPodCidrManager");
        found.cloned().with_context(|| {
            format!(
                "no condition refuses it: {}",
                object["status"]["conditions"]
            )
        })
    })?;
    ensure!(condition["status"] == "False", "{condition}");
    let message = condition["message"].as_str().unwrap_or_default();
    ensure!(
        message.contains("kube-controller-manager") && message.contains("assign"),
        "{message}"
    );

    // It would end at its next start, if a node's range were outside its own.
    ensure!(
        world.lab.control_plane_mut().controller_manager_runs(),
        "kube-controller-manager has ended"
    );
    world.lab.control_plane_mut().start_controller_manager()?;
    let joined = world.lab.join("oslo")?;
    world.lab.wait_ready(PATIENCE)?;
    ensure!(
        world.lab.control_plane_mut().controller_manager_runs(),
        "kube-controller-manager has ended"
    );
    let mut after = ranges(&world.lab)?;
    let new = after
        .iter()
        .position(|(node, _)| *node == joined)
        .map(|index| after.remove(index));
    ensure!(after == before, "before {before:?}, after {after:?}");
    let allocated: [IpNet; 2] = ["10.244.0.0/16".parse()?, "fd10:244::/56".parse()?];
    ensure!(
        new.as_ref()
            .is_some_and(|(_, cidrs)| one_of_each(cidrs, &allocated)),
        "{new:?}"
    );
    // What runs goes on meanwhile.
    world
        .lab
        .lab()
        .matrix_of(&world.ends, &flows())?
        .expect_all()?;
    let back = r#"{"spec": {"pods": {"assign": null}}}"#;
    let patch = [
        "patch",
        "clusters.tieline.dev",
        "shop",
        "--type=merge",
        "-p",
        back,
    ];
    world.lab.control_plane().kubectl(&patch)?;
    world
        .tieline
        .wait_ready(&world.lab, Duration::from_secs(30))
        .map(drop)
}

/// Whether there is one range inside each of some others, in their order.
fn one_of_each(ranges: &[IpNet], others: &[IpNet]) -> bool {
    ranges.len() == others.len()
        && others
            .iter()
            .zip(ranges)
            .all(|(other, range)| other.contains(range))
}

/// `examples/dual-stack` with its own `assign: true`, on nodes that are not Ready because nobody gave them a range.
pub(crate) fn tieline_assigns() -> Result<()> {
    // Names of namespaces are used once at a time.
    end();
    let pools: [IpNet; 2] = ["10.64.0.0/10".parse()?, "fd64:acee::/40".parse()?];
    let mut options = Tieline::options(
        "mesh-assigned",
        three_sites().dual_stack(),
        Cni::Bridge,
        ProxyMode::Iptables,
    )?;
    options.pod_ranges = PodRanges::SomebodyElse(pools.to_vec());
    let lab = NodeLab::start_with(options)?;
    let tieline = Tieline::at(&lab)?;
    ensure!(
        tieline.example().contains("assign: true"),
        "the example does not assign: {}",
        tieline.example()
    );
    eventually("six Node objects", PATIENCE, || {
        let nodes = ranges(&lab)?;
        ensure!(nodes.len() == 6, "{nodes:?}");
        Ok(())
    })?;
    ensure!(
        lab.wait_ready(Duration::from_secs(1)).is_err(),
        "Ready without a pod range"
    );
    let result = assigned(&lab, &tieline, &pools);
    if result.is_err() {
        tieline.keep_logs(&lab);
    }
    result
}

fn assigned(lab: &NodeLab, tieline: &Tieline, pools: &[IpNet]) -> Result<()> {
    let took = tieline.bring_up(lab)?;
    let nodes_ready = lab.wait_ready(PATIENCE)?;
    println!("assigned: helm install to Ready {took:.1?}, all nodes Ready {nodes_ready:.1?} later");
    let given = ranges(lab)?;
    let distinct: BTreeSet<IpNet> = given.iter().flat_map(|(_, cidrs)| cidrs.clone()).collect();
    ensure!(
        given.len() == 6
            && distinct.len() == 6 * pools.len()
            && given.iter().all(|(_, cidrs)| one_of_each(cidrs, pools)),
        "{given:?}"
    );
    lab.control_plane().apply(&real_nodes::pods())?;
    let pods = lab.wait_pods("default", "app=web", 6, PATIENCE)?;
    let ends: Vec<_> = pods
        .iter()
        .map(|pod| lab.endpoint(pod))
        .collect::<Result<_>>()?;
    let _servers: Vec<_> = ends
        .iter()
        .map(|end| lab.lab().serve(end))
        .collect::<Result<_>>()?;
    let oracle = tieline.listening(lab, &ends)?;
    let matrix = lab.lab().matrix_of(&ends, &flows())?;
    matrix.expect_all()?;
    // TCP and UDP between 30 pairs, in each family.
    ensure!(matrix.flows().0 == 30 * 2 * 2, "{matrix}");
    let report = oracle.report()?;
    println!("assigned: {matrix}{report}");
    report.expect_nothing_clear()
}
