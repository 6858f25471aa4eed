//! What a change does to a host, in memory: for fakes and for proofs.

use super::Change;
use crate::host::{Device, HostState, Target, WgPeer};

impl HostState {
    /// Applies one change as a kernel would, down to side effects: a removed device takes its routes and sysctls with it,
    /// and a prefix moves to the peer that was given it last. A change to something that is not there does nothing.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::SetSysctl { path, value } => {
                self.sysctls.insert(path.clone(), value.clone());
            }
            Change::PutRoute(key, route) => {
                self.routes.insert(*key, route.clone());
            }
            Change::RemoveRoute(key) => {
                self.routes.remove(key);
            }
            Change::AddRule(rule) => {
                self.rules.insert(rule.clone());
            }
            Change::RemoveRule(rule) => {
                self.rules.remove(rule);
            }
            Change::ReplaceFirewall(ruleset) => self.firewall = Some((**ruleset).clone()),
            Change::RemoveFirewall => self.firewall = None,
            Change::CreateDevice(name, device) => {
                self.devices.insert(*name, (**device).clone());
            }
            Change::ConfigureDevice(name, device) => {
                if let Some(found) = self.devices.get_mut(name) {
                    *found = Device {
                        addresses: std::mem::take(&mut found.addresses),
                        peers: std::mem::take(&mut found.peers),
                        ..(**device).clone()
                    };
                }
            }
            Change::RemoveDevice(name) => {
                self.devices.remove(name);
                self.routes.retain(|_, route| match &mut route.target {
                    Target::Devices(devices) => {
                        devices.retain(|device| device != name);
                        !devices.is_empty()
                    }
                    Target::Unreachable | Target::Throw => true,
                });
                let component = name.to_string();
                self.sysctls
                    .retain(|path, _| path.split('/').all(|part| part != component));
            }
            Change::AddAddress(name, address) => {
                if let Some(device) = self.devices.get_mut(name) {
                    device.addresses.insert(*address);
                }
            }
            Change::RemoveAddress(name, address) => {
                if let Some(device) = self.devices.get_mut(name) {
                    device.addresses.remove(address);
                }
            }
            Change::PutPeer { device, key, peer } => {
                let Some(device) = self.devices.get_mut(device) else {
                    return;
                };
                for (_, other) in device.peers.iter_mut().filter(|(other, _)| *other != key) {
                    for prefix in peer.allowed_ips.iter() {
                        if other.allowed_ips.overlapping(prefix).is_some() {
                            other.allowed_ips.remove(prefix);
                        }
                    }
                }
                let endpoint = peer
                    .endpoint
                    .or_else(|| device.peers.get(key).and_then(|found| found.endpoint));
                let peer = WgPeer {
                    endpoint,
                    ..(**peer).clone()
                };
                device.peers.insert(*key, peer);
            }
            Change::RemovePeer { device, key } => {
                if let Some(device) = self.devices.get_mut(device) {
                    device.peers.remove(key);
                }
            }
        }
    }
}
