//! Prints host state like the tools that a network engineer knows: `wg`, `ip rule`, `ip route`, `nft`.

use super::{
    Device, DeviceName, HostState, KeySource, Route, RouteKey, TABLE_GUARD, TABLE_INNER,
    TABLE_REMOTE, Target,
};
use crate::cidr::Family;
use std::fmt::Write;

/// Everything, section by section, each under the command that shows it on a host.
#[must_use]
pub fn everything(state: &HostState) -> String {
    let mut text = String::new();
    let mut section = |title: &str, body: String| {
        if !body.is_empty() {
            let _ = write!(text, "# {title}\n{body}\n");
        }
    };
    section("wg show", devices(state));
    section("ip address", addresses(state));
    for family in Family::BOTH {
        let flag = flag(family);
        section(&format!("ip {flag} rule"), rules(state, family));
        for table in [TABLE_REMOTE, TABLE_GUARD, TABLE_INNER] {
            let title = format!("ip {flag} route show table {table}");
            section(&title, routes(state, family, table));
        }
    }
    section("sysctl", sysctls(state));
    section("nft list ruleset", firewall(state));
    text
}

fn flag(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}

/// Like `wg show`. Private and pre-shared keys are not part of the state and print as `(hidden)`.
#[must_use]
pub fn devices(state: &HostState) -> String {
    let blocks: Vec<String> = state
        .devices
        .iter()
        .map(|(name, device)| block(*name, device))
        .collect();
    blocks.join("\n")
}

fn block(name: DeviceName, device: &Device) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "interface: {name}");
    let _ = writeln!(text, "  public key: {}", device.public_key);
    let origin = match &device.key {
        KeySource::Own => "hidden".to_owned(),
        KeySource::Attachment(vpn) => format!("hidden, of VPN {vpn}"),
    };
    let _ = writeln!(text, "  private key: ({origin})");
    let _ = writeln!(text, "  listening port: {}", device.port);
    let _ = writeln!(text, "  fwmark: {:#x}", device.fwmark);
    for (key, peer) in &device.peers {
        let _ = writeln!(text, "\npeer: {key}");
        if peer.preshared_key.is_some() {
            text.push_str("  preshared key: (hidden)\n");
        }
        if let Some(endpoint) = peer.endpoint {
            let _ = writeln!(text, "  endpoint: {endpoint}");
        }
        let allowed: Vec<String> = peer
            .allowed_ips
            .iter()
            .map(|prefix| prefix.to_string())
            .collect();
        let allowed = if allowed.is_empty() {
            "(none)".to_owned()
        } else {
            allowed.join(", ")
        };
        let _ = writeln!(text, "  allowed ips: {allowed}");
        if let Some(seconds) = peer.keepalive {
            let _ = writeln!(text, "  persistent keepalive: every {seconds} seconds");
        }
    }
    text
}

/// Like `ip address` of our devices.
#[must_use]
pub fn addresses(state: &HostState) -> String {
    let mut text = String::new();
    for (name, device) in &state.devices {
        let _ = writeln!(text, "{name}: mtu {}", device.mtu);
        for address in &device.addresses {
            let _ = match address.family() {
                Family::V4 => writeln!(text, "    inet {address} scope link {name}"),
                Family::V6 => writeln!(text, "    inet6 {address} scope global deprecated"),
            };
        }
    }
    text
}

/// Like `ip rule`, of our rules.
#[must_use]
pub fn rules(state: &HostState, family: Family) -> String {
    let mut text = String::new();
    for rule in state.rules.iter().filter(|rule| rule.family == family) {
        let _ = writeln!(text, "{rule}");
    }
    text
}

/// Like `ip route show table`.
#[must_use]
pub fn routes(state: &HostState, family: Family, table: u32) -> String {
    let mut text = String::new();
    let shown = |key: &RouteKey| key.table == table && key.prefix.family() == family;
    for (key, route) in state.routes.iter().filter(|(key, _)| shown(key)) {
        let _ = writeln!(text, "{}", line(key, route));
    }
    text
}

fn line(key: &RouteKey, route: &Route) -> String {
    let mut text = match &route.target {
        Target::Unreachable => format!("unreachable {}", key.prefix),
        Target::Throw => format!("throw {}", key.prefix),
        Target::Devices(devices) if devices.len() == 1 => {
            format!("{} dev {}", key.prefix, devices[0])
        }
        Target::Devices(_) => key.prefix.to_string(),
    };
    let _ = write!(text, " proto {}", super::ROUTE_PROTOCOL);
    if let Some(source) = route.source {
        let _ = write!(text, " src {source}");
    }
    let _ = write!(text, " metric {}", key.metric);
    if let Some(mtu) = route.mtu {
        let _ = write!(text, " mtu {mtu}");
    }
    if let Target::Devices(devices) = &route.target
        && devices.len() > 1
    {
        for device in devices {
            let _ = write!(text, "\n\tnexthop dev {device} weight 1");
        }
    }
    text
}

/// Like `sysctl`.
#[must_use]
pub fn sysctls(state: &HostState) -> String {
    let mut text = String::new();
    for (path, value) in &state.sysctls {
        let _ = writeln!(text, "{} = {value}", path.replace('/', "."));
    }
    text
}

/// Like `nft list`, of our tables.
#[must_use]
pub fn firewall(state: &HostState) -> String {
    let tables = state.firewall.iter().flat_map(|ruleset| &ruleset.tables);
    tables.map(ToString::to_string).collect()
}
