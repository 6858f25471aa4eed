//! The lab that tests share, and what they measure with.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::lab::{Flows, Lab, Planned, Pods, Topology};

/// The lab that tests share, under the name of its topology.
static LAB: Mutex<Option<(&str, Lab)>> = Mutex::new(None);

pub(crate) fn with_lab(
    name: &'static str,
    topology: Topology,
    test: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<()> {
    let mut shared = LAB.lock().unwrap_or_else(PoisonError::into_inner);
    if shared.as_ref().is_none_or(|(built, _)| *built != name) {
        // Names of namespaces are used once at a time.
        drop(shared.take());
        let start = Instant::now();
        let lab = Lab::build(&format!("selftest-{name}"), topology)?;
        lab.assign_pods(&prefixes(&lab))?;
        let took = start.elapsed();
        ensure!(
            took < Duration::from_secs(60),
            "building the lab took {took:?}"
        );
        *shared = Some((name, lab));
    }
    let (_, lab) = shared.as_mut().context("no lab")?;
    test(lab)
}

pub(crate) fn three_sites(test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    with_lab("three-sites", Topology::three_sites().dual_stack(), test)
}

/// Pod prefixes by hand: 10.<64 + site>.<node>.0/24 and fd64:<site>:<node>::/64.
pub(crate) fn prefixes(lab: &Lab) -> Pods {
    let site = |name: &str| lab.topology().find_site(name).map_or(0, |(index, _)| index);
    let mut counts = [0; 16];
    lab.topology()
        .nodes
        .iter()
        .map(|node| {
            let site = site(&node.site);
            counts[site] += 1;
            let number = counts[site];
            let v4 = format!("10.{}.{number}.0/24", 64 + site);
            let v6 = format!("fd64:{site}:{number}::/64");
            (
                node.name.clone(),
                vec![v4.parse().unwrap(), v6.parse().unwrap()],
            )
        })
        .collect()
}

pub(crate) fn planned(lab: &Lab) -> Vec<Planned> {
    let mut all: Vec<Planned> = lab
        .nodes()
        .flat_map(|node| {
            let (segment, site) = (node.spec().segment(), node.spec().site.clone());
            node.pod_prefixes()
                .into_iter()
                .map(move |net| Planned::new(net, segment.clone()).at(site.clone()))
        })
        .collect();
    all.push(Planned::new("172.16.9.0/24".parse().unwrap(), "vpn/hq"));
    all.push(Planned::new("fdaa:16:9::/64".parse().unwrap(), "vpn/hq"));
    all
}

pub(crate) fn quick(each: u32) -> Flows {
    Flows {
        each,
        patience: Duration::from_millis(700),
        ..Flows::default()
    }
}

/// Takes the shared lab down.
pub(crate) fn end() {
    drop(LAB.lock().unwrap_or_else(PoisonError::into_inner).take());
}
