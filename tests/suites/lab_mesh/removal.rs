//! Going away: a removed link and a cleaned node leave the kernel as they found it, and grants outlive both.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::lab::Dump;
use e2e::wait::eventually;
use e2e::world::World;

use crate::support::recovers;
use crate::three_sites;

fn dumps(world: &World) -> Result<BTreeMap<String, Dump>> {
    world
        .lab
        .nodes()
        .map(|node| Ok((node.name().to_owned(), node.dump()?)))
        .collect()
}

pub(crate) fn removal() -> Result<()> {
    three_sites(|world| {
        let names = world.node_names();
        // Before Tieline: rebooted nodes with a CNI and no agent.
        for name in &names {
            world.stop_agent(name)?;
            world.lab.node(name)?.reboot()?;
        }
        for name in &names {
            world.lab.restore_pods(name)?;
        }
        let before = dumps(world)?;
        for name in &names {
            world.start_agent(name)?;
        }
        world.wait_ready(Duration::from_secs(60), |_| {})?;
        recovers(world, Duration::from_secs(30))?;
        for (name, dump) in dumps(world)? {
            ensure!(
                dump.mentions("tie").len() > 5 && dump.mentions("7468").len() > 1,
                "{name} carries no mesh: {dump}"
            );
        }

        // One node leaves for good, by its administrator's hand.
        world.stop_agent("berlin-2")?;
        ensure!(
            !world
                .lab
                .node("berlin-2")?
                .dump()?
                .mentions("7469")
                .is_empty(),
            "the guard ended with the agent"
        );
        world.clean_up("berlin-2")?;
        let cleaned = world.lab.node("berlin-2")?.dump()?;
        ensure!(
            cleaned == before["berlin-2"],
            "cleanup left: {:#?}",
            before["berlin-2"].diff(&cleaned)
        );
        ensure!(
            !world.agent_state("berlin-2")?.exists(),
            "cleanup left the state folder"
        );
        world.start_agent("berlin-2")?;
        world.wait_ready(Duration::from_secs(60), |_| {})?;
        recovers(world, Duration::from_secs(30))?;

        let ledgers = |world: &World| -> Result<String> {
            world.control_plane.kubectl(&[
                "get", "addressledgers.tieline.dev", "-o",
                "jsonpath={range .items[*]}{.metadata.name}{range .spec.grants[*]} {.owner.name}={.prefix}{end}{\"\\n\"}{end}",
            ])
        };
        let granted = ledgers(world)?;
        ensure!(
            granted.contains("berlin-1=10."),
            "the ledgers hold no grants: {granted}"
        );
        let ranges = |world: &World| {
            world.control_plane.kubectl(&[
                "get",
                "nodes",
                "-o",
                "jsonpath={.items[*].spec.podCIDRs}",
            ])
        };
        let given = ranges(world)?;
        world.control_plane.kubectl(&[
            "delete",
            "clusterlinks.tieline.dev",
            "--all",
            "--timeout=30s",
        ])?;
        eventually(
            "every node to be as it was before Tieline",
            Duration::from_secs(30),
            || {
                for (name, dump) in dumps(world)? {
                    ensure!(
                        dump == before[&name],
                        "{name} has left: {:#?}",
                        before[&name].diff(&dump)
                    );
                }
                Ok(())
            },
        )?;
        ensure!(
            ledgers(world)? == granted,
            "the grants changed: {granted} became {}",
            ledgers(world)?
        );
        ensure!(ranges(world)? == given, "podCIDRs changed");
        world.nothing_crosses(1, Duration::from_secs(1))?;

        // And back again, with the same addresses.
        world.apply_example()?;
        world.wait_ready(Duration::from_secs(60), |_| {})?;
        recovers(world, Duration::from_secs(30))?;
        ensure!(
            ledgers(world)? == granted,
            "the grants changed: {granted} became {}",
            ledgers(world)?
        );
        Ok(())
    })
}
