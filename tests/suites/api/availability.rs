//! The control plane as other tests use it: outages, and a store that outlives them.

use std::time::Instant;

use anyhow::{Result, ensure};
use e2e::control_plane::{ControlPlane, Options};

use crate::support::{Scratch, Server, Tests};

pub(crate) fn tests() -> Tests {
    vec![
        (
            "availability: a stopped API server refuses connections, and keeps its objects and its certificate",
            outage,
        ),
        (
            "availability: a new namespace gets its default service account and goes when it is deleted",
            controllers,
        ),
        (
            "availability: with nodeIPAM, nodes get podCIDRs from somebody else",
            node_ipam,
        ),
    ]
}

fn outage(_: &Server) -> Result<()> {
    let scratch = Scratch::new("outage")?;
    let mut control_plane = ControlPlane::start(Options::new(&scratch.0))?;
    control_plane.kubectl(&["create", "namespace", "lasting"])?;

    control_plane.stop();
    ensure!(
        control_plane.kubectl(&["get", "namespaces"]).is_err(),
        "a stopped API server answered"
    );
    ensure!(
        control_plane.wait_ready().is_err(),
        "a stopped API server was called ready"
    );

    let started = Instant::now();
    control_plane.start_again()?;
    ensure!(
        started.elapsed().as_secs() < 60,
        "the second start took {:?}",
        started.elapsed()
    );
    control_plane.kubectl(&["get", "namespace", "lasting"])?;
    Ok(())
}

fn controllers(server: &Server) -> Result<()> {
    server.kubectl(&["create", "namespace", "passing"])?;
    server.kubectl(&[
        "wait",
        "--for=create",
        "serviceaccount/default",
        "-n",
        "passing",
        "--timeout=30s",
    ])?;
    server.kubectl(&["delete", "namespace", "passing", "--timeout=60s"])?;
    Ok(())
}

/// kube-controller-manager gives a podCIDR of its own, so that tests can have that conflict.
fn node_ipam(_: &Server) -> Result<()> {
    let scratch = Scratch::new("node-ipam")?;
    let range = "10.244.0.0/16".parse()?;
    let control_plane = ControlPlane::start(Options::new(&scratch.0).with_node_ipam(vec![range]))?;
    control_plane.apply("{apiVersion: v1, kind: Node, metadata: {name: managed}}")?;
    let wait = [
        "wait",
        "node/managed",
        "--for=jsonpath={.spec.podCIDR}",
        "--timeout=60s",
    ];
    control_plane.kubectl(&wait)?;
    let pod_cidr = control_plane.kubectl(&[
        "get",
        "node",
        "managed",
        "--output=jsonpath={.spec.podCIDR}",
    ])?;
    ensure!(
        pod_cidr.starts_with("10.244."),
        "the podCIDR is '{pod_cidr}'"
    );
    Ok(())
}
