//! The box of the company VPN.

use e2e::wait::eventually;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::lab::{Family, Flows, Oracle, Protocol};

use super::stage::{planned, three_sites};

pub(crate) fn vpn() -> Result<()> {
    three_sites(|lab| {
        let oracle = Oracle::start(lab, planned(lab))?;
        let (vpn, node) = (lab.vpn()?, lab.node("oslo-1")?);
        let ((box_private, box_public), (private, public)) = (vpn.new_keys()?, vpn.new_keys()?);
        vpn.up(&format!(
            "[Interface]\nPrivateKey = {box_private}\nListenPort = 51820\nAddress = 10.66.1.1/32\n\
             [Peer]\nPublicKey = {public}\nAllowedIPs = 10.66.0.0/16\n"
        ))?;
        let mut process = node.spawn(
            "wireguard-go",
            Command::new("wireguard-go")
                .args(["-f", "wgt"])
                .env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1"),
        )?;
        let seen = eventually("wireguard-go", Duration::from_secs(5), || {
            node.cmd("wg", &["show", "wgt"])
        });
        seen.with_context(|| process.log())?;
        let config = format!(
            "[Interface]\nPrivateKey = {private}\n[Peer]\nPublicKey = {box_public}\nAllowedIPs = 172.16.9.0/24\n\
             Endpoint = {}:51820\n",
            vpn.spec().address4
        );
        node.ns()
            .feed("wg", &["setconf", "wgt", "/dev/stdin"], &config)?;
        node.ns().ip_batch(&[
            "link set wgt mtu 1420 up",
            "route add 172.16.9.0/24 dev wgt src 10.66.1.1",
        ])?;
        let (from, to) = (lab.endpoint("oslo-1-p0")?, vpn.endpoint());
        lab.first_answer(&from, &to, Family::V4, Duration::from_secs(8))?;
        let flows = Flows {
            families: vec![Family::V4],
            protocols: vec![Protocol::Tcp],
            ..Flows::default()
        };
        let report = lab.matrix_of(&[from.clone(), to.clone()], &flows)?;
        report.expect_all()?;
        lab.bulk(&from, &to, Family::V4, 10 << 20, Duration::from_secs(30))?;
        ensure!(
            vpn.handshakes()?.get(&public).is_some_and(|time| *time > 0),
            "no handshake seen"
        );
        oracle.report()?.expect_nothing_clear()?;

        process.kill()?;
        vpn.down()?;
        ensure!(vpn.handshakes().is_err(), "the box still answers");
        ensure!(
            !node.ip("link")?.contains("wgt"),
            "the device outlived its process"
        );
        Ok(())
    })
}
