//! The company VPN: a plain WireGuard box that is not ours, and one host behind it.

use crate::wait::eventually;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::build::Lab;
use super::netns::NetNs;
use super::process::Process;
use super::topology::{Vpn, nth4, nth6};
use super::traffic::{Endpoint, Server};

const DEVICE: &str = "wg0";

/// The foreign box with Debian's `wireguard-go`, configured by a wg-quick file as its
/// administrator would.
#[derive(Debug)]
pub struct VpnBox {
    vpn: Vpn,
    ns: Arc<NetNs>,
    host: Endpoint,
    _lan: Arc<NetNs>,
    _server: Server,
    logs: PathBuf,
    running: Mutex<Option<Process>>,
}

impl VpnBox {
    pub(super) fn build(lab: &Lab, vpn: &Vpn, address6: Option<Ipv6Addr>) -> Result<Self> {
        let wan = lab.underlay_switches().get("wan").context("no WAN")?;
        let lan = lab.switch(&vpn.name)?;
        let ns = NetNs::create_host(&vpn.name)?;
        let name = format!("{}-host", vpn.name);
        let host = NetNs::create(&name)?;
        lab.cable(&ns, "eth0", wan, &vpn.name, 1500)?;
        lab.cable(&ns, "lan0", &lan, "box", 1500)?;
        lab.cable(&host, "eth0", &lan, "host", 1500)?;
        let mut outside = vec![
            format!("addr add {}/24 dev eth0", vpn.address4),
            format!(
                "addr add {}/{} dev lan0",
                nth4(vpn.lan4, 1),
                vpn.lan4.prefix_len()
            ),
        ];
        let mut inside = vec![
            format!(
                "addr add {}/{} dev eth0",
                nth4(vpn.lan4, 10),
                vpn.lan4.prefix_len()
            ),
            format!("route add default via {}", nth4(vpn.lan4, 1)),
        ];
        let mut addresses = vec![nth4(vpn.lan4, 10).into()];
        if let Some(address6) = address6 {
            outside.push(format!("addr add {address6}/64 dev eth0 nodad"));
            outside.push(format!("addr add {}/64 dev lan0 nodad", nth6(vpn.lan6, 1)));
            inside.push(format!("addr add {}/64 dev eth0 nodad", nth6(vpn.lan6, 10)));
            inside.push(format!("route add default via {}", nth6(vpn.lan6, 1)));
            addresses.push(nth6(vpn.lan6, 10).into());
        }
        outside.extend(lab.wan_routes(None, true));
        ns.ip_batch(&outside)?;
        host.ip_batch(&inside)?;
        ns.sysctls(&[
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
        ])?;
        let host = Endpoint {
            name,
            segment: format!("vpn/{}", vpn.name),
            addresses,
            ns: host,
        };
        let server = Server::start(&lab.handle(), &host)?;
        Ok(Self {
            vpn: vpn.clone(),
            ns,
            host,
            _lan: lan,
            _server: server,
            logs: lab.logs().to_path_buf(),
            running: Mutex::new(None),
        })
    }

    /// What the topology says of it.
    #[must_use]
    pub fn spec(&self) -> &Vpn {
        &self.vpn
    }

    /// The box's namespace.
    #[must_use]
    pub fn ns(&self) -> &Arc<NetNs> {
        &self.ns
    }

    /// The host behind the box.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        self.host.clone()
    }

    /// A new key pair made by `wg`: private, public, both in base64.
    ///
    /// # Errors
    ///
    /// When `wg` fails.
    pub fn new_keys(&self) -> Result<(String, String)> {
        let private = self.ns.cmd("wg", &["genkey"])?.trim().to_owned();
        let public = self
            .ns
            .feed("wg", &["pubkey"], &format!("{private}\n"))?
            .trim()
            .to_owned();
        Ok((private, public))
    }

    /// Starts the box with a wg-quick configuration: interface, addresses, and a route for
    /// every allowed IP. A box that runs is restarted.
    ///
    /// # Errors
    ///
    /// When the text is no wg-quick configuration or `wg` refuses it.
    pub fn up(&self, config: &str) -> Result<()> {
        self.down()?;
        let parsed = Quick::parse(config)?;
        let mut command = Command::new("wireguard-go");
        command
            .args(["-f", DEVICE])
            .env("LOG_LEVEL", "error")
            .env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1");
        let log = self
            .logs
            .join(format!("{}-wireguard-go.log", self.vpn.name));
        let process = Process::start(&self.ns, "wireguard-go", &mut command, log)?;
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);

        eventually("wireguard-go", Duration::from_secs(5), || {
            self.ns.cmd("wg", &["show", DEVICE])
        })?;
        self.ns
            .feed("wg", &["setconf", DEVICE, "/dev/stdin"], &parsed.setconf)?;
        let mut lines: Vec<String> = parsed
            .addresses
            .iter()
            .map(|address| format!("addr add {address} dev {DEVICE}"))
            .collect();
        lines.push(format!("link set {DEVICE} mtu {} up", parsed.mtu));
        lines.extend(
            parsed
                .routes
                .iter()
                .map(|route| format!("route replace {route} dev {DEVICE}")),
        );
        self.ns.ip_batch(&lines)
    }

    /// Ends the box's WireGuard; the device goes with the process.
    ///
    /// # Errors
    ///
    /// When the process cannot be ended.
    pub fn down(&self) -> Result<()> {
        if let Some(mut process) = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            process.kill()?;
            self.ns.end_processes();
        }
        Ok(())
    }

    /// What `wg show` says, by peer: the latest handshake in seconds since 1970, 0 for none.
    ///
    /// # Errors
    ///
    /// When the box is down.
    pub fn handshakes(&self) -> Result<BTreeMap<String, u64>> {
        let text = self.ns.cmd("wg", &["show", DEVICE, "latest-handshakes"])?;
        let lines = text.lines().filter_map(|line| line.split_once('\t'));
        Ok(lines
            .filter_map(|(peer, time)| Some((peer.to_owned(), time.parse().ok()?)))
            .collect())
    }
}

/// The parts of a wg-quick file: what `wg setconf` takes, and what wg-quick itself would do.
#[derive(Debug, PartialEq, Eq)]
struct Quick {
    setconf: String,
    addresses: Vec<String>,
    routes: Vec<String>,
    mtu: u32,
}

impl Quick {
    fn parse(text: &str) -> Result<Self> {
        let mut quick = Self {
            setconf: String::new(),
            addresses: Vec::new(),
            routes: Vec::new(),
            mtu: 1420,
        };
        let mut routed = true;
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let Some((key, value)) = line.split_once('=') else {
                if line.starts_with('[') {
                    quick.setconf.push_str(line);
                    quick.setconf.push('\n');
                } else if !line.is_empty() {
                    bail!("not a wg-quick line: {line}");
                }
                continue;
            };
            let (key, value) = (key.trim(), value.trim());
            let list = || {
                value
                    .split(',')
                    .map(|item| item.trim().to_owned())
                    .filter(|item| !item.is_empty())
            };
            match key.to_ascii_lowercase().as_str() {
                "address" => quick.addresses.extend(list()),
                "mtu" => quick.mtu = value.parse().with_context(|| format!("MTU {value}"))?,
                "table" => routed = value != "off",
                "dns" | "preup" | "postup" | "predown" | "postdown" | "saveconfig" => {}
                other => {
                    if other == "allowedips" {
                        quick.routes.extend(list());
                    }
                    quick.setconf.push_str(&format!("{key} = {value}\n"));
                }
            }
        }
        if !quick.setconf.contains("PrivateKey") {
            bail!("no PrivateKey in the [Interface] section");
        }
        if !routed {
            quick.routes.clear();
        }
        Ok(quick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wg_quick_file_is_split_into_what_wg_takes_and_what_ip_does() -> Result<()> {
        let quick = Quick::parse(
            "[Interface]\nPrivateKey = a=\nAddress = 10.0.0.1/32, fd00::1/128\nMTU=1400\nDNS = 1.1.1.1\n\n\
             [Peer] # ours\nPublicKey = b=\nAllowedIPs = 10.64.0.0/10, fd64::/16\nEndpoint = 203.0.113.9:21884\n",
        )?;
        assert_eq!(quick.addresses, ["10.0.0.1/32", "fd00::1/128"]);
        assert_eq!(quick.routes, ["10.64.0.0/10", "fd64::/16"]);
        assert_eq!(quick.mtu, 1400);
        assert_eq!(
            quick.setconf,
            "[Interface]\nPrivateKey = a=\n[Peer]\nPublicKey = b=\nAllowedIPs = 10.64.0.0/10, fd64::/16\n\
             Endpoint = 203.0.113.9:21884\n"
        );
        Ok(())
    }
}
