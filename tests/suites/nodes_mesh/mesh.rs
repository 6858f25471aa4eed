//! Before, with and after Tieline: who reaches whom, as whom, and what an eavesdropper on the underlay sees of it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use e2e::lab::{Family, Flows};
use e2e::nodes::{Cni, DNS_SERVICE, url};
use e2e::wait::eventually;
use e2e::world::NAMESPACE;
use serde_json::Value;

use crate::real_nodes::{
    PROXY_PATIENCE, endpoints, families, named, nothing_crosses, pods_talk, servers, services,
};
use crate::world::World;

pub(crate) fn without(world: &mut World) -> Result<()> {
    let (lab, cni, ends) = (&world.lab, world.cni, &world.ends);
    let oslo = world.pod_on("oslo-1")?;
    // What gets no answer waits for it for seconds, so all of it waits at once.
    std::thread::scope(|scope| {
        let pods = scope.spawn(|| pods_talk(lab, cni));
        let name = scope.spawn(|| lab.lookup(oslo, "paris.default"));
        services(lab)?;
        nothing_crosses(lab, ends)?;
        let panicked = |_| anyhow!("a thread panicked");
        pods.join().map_err(panicked)??;
        ensure!(
            name.join().map_err(panicked)?.is_err(),
            "oslo reaches CoreDNS in paris without Tieline"
        );
        Ok(())
    })
}

pub(crate) fn everybody(world: &mut World) -> Result<()> {
    world.up()?;
    let oracle = world.tieline.listening(&world.lab, &world.ends)?;
    let flows = Flows {
        each: 1,
        // A lost first handshake is asked for again within seconds; on a busy machine more than once.
        patience: Duration::from_secs(12),
        ..Flows::default()
    };
    let matrix = world.lab.lab().matrix_of(&world.ends, &flows)?;
    matrix.expect_all()?;
    ensure!(matrix.pairs_total() == 30, "{matrix}");
    // TCP and UDP in every family.
    let flows = 30 * 2 * u32::try_from(families(&world.lab).len())?;
    ensure!(
        matrix.flows().0 == flows,
        "wanted {flows} flows of {matrix}"
    );
    let report = oracle.report()?;
    report.expect_nothing_clear()?;
    ensure!(
        report.frames > 100,
        "the traffic did not cross the underlay: {report}"
    );
    println!("{}: {matrix}{report}", world.name);
    Ok(())
}

pub(crate) fn services_elsewhere(world: &mut World) -> Result<()> {
    world.up()?;
    let oracle = world.tieline.listening(&world.lab, &world.ends)?;
    let lab = &world.lab;
    let oslo = world.pods_of("oslo");
    let both: BTreeSet<String> = oslo.iter().map(|pod| pod.name.clone()).collect();
    ensure!(both.len() == 2, "{both:?}");
    let addresses = endpoints(lab, "oslo", &oslo)?;
    for (family, address) in &addresses {
        cluster_ip(world, *family, *address, &both)?;
        node_port(world, *family, &both)?;
    }

    for node in ["oslo-1", "oslo-2", "berlin-1", "berlin-2"] {
        let pod = world.pod_on(node)?;
        let found = eventually("kube-proxy to follow", PROXY_PATIENCE, || {
            lab.lookup(pod, "oslo.default.svc.cluster.local")
        })?;
        ensure!(
            BTreeSet::from_iter(found.clone()) == named(&addresses),
            "{node}: {found:?}, wanted {addresses:?}"
        );
        let short = lab.lookup(pod, "kube-dns.kube-system")?;
        ensure!(
            short == [DNS_SERVICE.parse::<IpAddr>()?],
            "{node}: {short:?}"
        );
        // Not from the servers themselves: what comes back to its own sender is not translated by kube-proxy's nftables mode here,
        // with and without Tieline.
        if !both.contains(&pod.name) {
            let seen = lab.ask(pod, "http://oslo/", 1)?;
            ensure!(both.is_superset(&servers(&seen)), "by name: {seen:?}");
        }
    }
    oracle.report()?.expect_nothing_clear()
}

/// A ClusterIP asked by pods and nodes of the other sites; `both` are its endpoints.
fn cluster_ip(
    world: &World,
    family: Family,
    address: IpAddr,
    both: &BTreeSet<String>,
) -> Result<()> {
    let (lab, service) = (&world.lab, url(address, 80));
    for node in ["paris-1", "paris-2", "berlin-1", "berlin-2"] {
        let pod = world.pod_on(node)?;
        let seen = eventually("kube-proxy to follow", PROXY_PATIENCE, || {
            lab.ask(pod, &service, 12)
        })?;
        ensure!(
            servers(&seen) == *both,
            "{service} from {node}'s pod: {seen:?}"
        );
        let clients: BTreeSet<IpAddr> = seen.iter().map(|answer| answer.client).collect();
        ensure!(
            clients == BTreeSet::from([pod.address_of(family)?]),
            "{node}'s pod at {:?} was seen as {clients:?}",
            pod.addresses
        );
        let seen = eventually("kube-proxy to follow", PROXY_PATIENCE, || {
            lab.ask_from_node(node, &service, 12)
        })?;
        ensure!(servers(&seen) == *both, "{service} from {node}: {seen:?}");
    }
    Ok(())
}

/// A NodePort of a node in paris, asked by its neighbour, by a node of another site and by a stranger on the Internet.
fn node_port(world: &World, family: Family, both: &BTreeSet<String>) -> Result<()> {
    let lab = &world.lab;
    let node = lab.lab().node("paris-2")?.address_of(family)?;
    let service = url(node, 30081);
    for asking in ["paris-1", "berlin-1"] {
        let seen = eventually("kube-proxy to follow", PROXY_PATIENCE, || {
            lab.ask_from_node(asking, &service, 12)
        })?;
        ensure!(servers(&seen) == *both, "{service} from {asking}: {seen:?}");
    }
    let text = eventually("kube-proxy to follow", PROXY_PATIENCE, || get(node, 30081))?;
    ensure!(
        both.iter().any(|pod| text.contains(pod.as_str())),
        "{service} from outside: {text}"
    );
    Ok(())
}

/// HTTP as this process asks it, from a host on the lab's Internet.
fn get(address: IpAddr, port: u16) -> Result<String> {
    let patience = Duration::from_secs(3);
    let mut stream = TcpStream::connect_timeout(&(address, port).into(), patience)
        .with_context(|| format!("connecting to {address}:{port}"))?;
    stream.set_read_timeout(Some(patience))?;
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

pub(crate) fn exec_and_logs(world: &mut World) -> Result<()> {
    world.up()?;
    let target = world.pod_on("berlin-1")?;
    let url = target.url(8080)?;
    for site in ["paris", "oslo"] {
        for pod in world.pods_of(site) {
            let printed = world.lab.exec(pod, &["/probe", "get", &url])?;
            ensure!(printed.contains(&target.name), "{}: {printed}", pod.node);
            let logs = world.lab.logs(pod)?;
            ensure!(
                logs.trim() == format!("{} serves on :8080", pod.name),
                "{}: {logs}",
                pod.node
            );
        }
    }
    Ok(())
}

pub(crate) fn uninstalled(world: &mut World) -> Result<()> {
    world.up()?;
    world.down()?;
    nothing_crosses(&world.lab, &world.ends)?;
    let report = world
        .inside
        .take()
        .context("the stream has ended already")?
        .stop();
    let (sent, lost) = report.totals();
    println!("{}: inside sites {lost} of {sent} lost", world.name);
    report.expect_no_loss()
}

/// What the agents tell of it: a CNI that is plug-ins alone has no object in the API server.
pub(crate) fn cni_named(world: &mut World) -> Result<()> {
    world.up()?;
    let words = match world.cni {
        Cni::Bridge => ["plug-ins of the CNI project (cni0)", "masquerade in"],
        Cni::Flannel => ["flannel (cni0, flannel.1)", "masquerade in"],
        // No device of its own, no masquerade: nothing to tell of.
        Cni::Plain => ["", ""],
    };
    // An agent whose first look was before its node's first pod looks again.
    let text = eventually("doctor to name the CNI", Duration::from_secs(90), || {
        all_have_looked(world)?;
        let findings = world.tieline.doctor()?;
        let found = findings.iter().find(|it| it["id"] == "pod-network");
        let text = found.map_or("", |it| it["message"].as_str().unwrap_or_default());
        ensure!(
            words.iter().all(|word| text.contains(word))
                && text.is_empty() == (world.cni == Cni::Plain),
            "doctor says of the pod network: '{text}'"
        );
        Ok(text.to_owned())
    })?;
    println!("{}: {text}", world.name);
    Ok(())
}

/// Fails unless every node's agent tells of the one masquerade that is there under every CNI: kube-proxy's.
fn all_have_looked(world: &World) -> Result<()> {
    let get = ["get", "peers.tieline.dev", "-n", NAMESPACE, "-o", "json"];
    let peers: Value = serde_json::from_str(&world.lab.control_plane().kubectl(&get)?)?;
    let told = peers["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|peer| {
            let chains = peer["status"]["host"]["podNetwork"]["masquerade"].to_string();
            chains.contains("kube-proxy") || chains.contains("KUBE-POSTROUTING")
        });
    let (told, nodes) = (told.count(), world.lab.running().len());
    ensure!(told == nodes, "{told} of {nodes} agents tell of kube-proxy");
    Ok(())
}

pub(crate) fn nothing_left(world: &mut World) -> Result<()> {
    // Alone, this test has nothing to look at yet.
    if !world.was_installed() {
        world.up()?;
        world.down()?;
    }
    world.as_before()
}
