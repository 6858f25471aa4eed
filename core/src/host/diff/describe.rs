//! Changes in words.

use super::Change;
use crate::host::{
    Device, Rule, Selector, TABLE_GUARD, TABLE_INNER, TABLE_MAIN, TABLE_REMOTE, Target, WgPeer,
};
use crate::keys::PublicKey;
use std::fmt;

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetSysctl { path, value } => {
                write!(f, "set sysctl {} to {value}", path.replace('/', "."))
            }
            Self::PutRoute(key, route) => {
                write!(
                    f,
                    "route {} in table {} metric {}: ",
                    key.prefix,
                    table(key.table),
                    key.metric
                )?;
                match &route.target {
                    Target::Unreachable => return f.write_str("unreachable"),
                    Target::Throw => return f.write_str("leave to the next rule"),
                    Target::Devices(devices) => {
                        let names: Vec<String> = devices.iter().map(ToString::to_string).collect();
                        write!(f, "out by {}", names.join(" and "))?;
                    }
                }
                if let Some(source) = route.source {
                    write!(f, ", own packets from {source}")?;
                }
                if let Some(mtu) = route.mtu {
                    write!(f, ", MTU {mtu}")?;
                }
                Ok(())
            }
            Self::RemoveRoute(key) => write!(
                f,
                "remove route {} from table {} metric {}",
                key.prefix,
                table(key.table),
                key.metric
            ),
            Self::AddRule(rule) => write!(f, "add {} rule {rule}", rule.family),
            Self::RemoveRule(rule) => write!(f, "remove {} rule {rule}", rule.family),
            Self::ReplaceFirewall(ruleset) => {
                let tables: Vec<String> = ruleset
                    .tables
                    .iter()
                    .map(|table| format!("{} tieline", table.family))
                    .collect();
                write!(f, "replace nft tables {}", tables.join(" and "))
            }
            Self::RemoveFirewall => {
                f.write_str("remove nft tables inet tieline and netdev tieline")
            }
            Self::CreateDevice(name, device) => {
                write!(f, "create WireGuard device {name} ({})", settings(device))
            }
            Self::ConfigureDevice(name, device) => {
                write!(
                    f,
                    "configure WireGuard device {name} ({})",
                    settings(device)
                )
            }
            Self::RemoveDevice(name) => write!(f, "remove WireGuard device {name}"),
            Self::AddAddress(name, address) => write!(f, "add address {address} to {name}"),
            Self::RemoveAddress(name, address) => write!(f, "remove address {address} from {name}"),
            Self::PutPeer { device, key, peer } => {
                write!(f, "set peer {} of {device}: {peer}", short(key))
            }
            Self::RemovePeer { device, key } => {
                write!(f, "remove peer {} from {device}", short(key))
            }
        }
    }
}

fn settings(device: &Device) -> String {
    format!(
        "key {}, port {}, fwmark {:#x}, MTU {}",
        short(&device.public_key),
        device.port,
        device.fwmark,
        device.mtu
    )
}

/// The first characters of a key, as network engineers point at one.
fn short(key: &PublicKey) -> String {
    let mut text = key.to_string();
    text.truncate(8);
    text + "…"
}

fn table(number: u32) -> String {
    match number {
        TABLE_REMOTE => format!("{number} (remote)"),
        TABLE_GUARD => format!("{number} (guard)"),
        TABLE_INNER => format!("{number} (inner)"),
        TABLE_MAIN => "main".to_owned(),
        other => other.to_string(),
    }
}

impl fmt::Display for WgPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "allowed IPs {}", self.allowed_ips)?;
        match self.endpoint {
            Some(endpoint) => write!(f, ", endpoint {endpoint}")?,
            None => f.write_str(", endpoint left as it is")?,
        }
        if let Some(keepalive) = self.keepalive {
            write!(f, ", keepalive {keepalive} s")?;
        }
        if let Some(vpn) = &self.preshared_key {
            write!(f, ", pre-shared key of VPN {vpn}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Rule {
    /// Like `ip rule`: `103: from all lookup 7468`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: from all ", self.preference)?;
        match &self.selector {
            Selector::All => {}
            Selector::Mark { mark, mask } => write!(f, "fwmark {mark:#x}/{mask:#x} ")?,
            Selector::From(device) => write!(f, "iif {device} ")?,
            Selector::To(prefix) => write!(f, "to {prefix} ")?,
        }
        if self.table == TABLE_MAIN {
            f.write_str("lookup main")?;
        } else {
            write!(f, "lookup {}", self.table)?;
        }
        if let Some(len) = self.suppress_prefix_len {
            write!(f, " suppress_prefixlength {len}")?;
        }
        Ok(())
    }
}
