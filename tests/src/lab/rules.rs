//! The masquerade and filter rules that real nodes have: flannel's, the CNI bridge plug-in's and
//! kube-proxy's, as seen on real clusters. A packet between two segments has to keep its source
//! address through all of them.

use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::Result;
use ipnet::IpNet;

use super::netns::NetNs;

/// Which back end the CNI and kube-proxy use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleFlavour {
    /// `iptables-nft`, the commonest.
    Iptables,
    /// Native nftables.
    Nft,
}

/// The rules of a node, given what the CNI and kube-proxy are configured with.
#[derive(Debug, Clone)]
pub struct NodeRules {
    /// Back end.
    pub flavour: RuleFlavour,
    /// The cluster's pod ranges, which CNI and kube-proxy know; other clusters' they do not.
    pub cluster_cidrs: Vec<IpNet>,
    /// The cluster's service ranges.
    pub service_cidrs: Vec<IpNet>,
}

impl NodeRules {
    pub(super) fn install(&self, ns: &NetNs, own: &[IpNet], pods: &[IpAddr]) -> Result<()> {
        for v6 in [false, true] {
            let family = Family {
                v6,
                clusters: self
                    .cluster_cidrs
                    .iter()
                    .filter(|net| is_v6(net) == v6)
                    .collect(),
                services: self
                    .service_cidrs
                    .iter()
                    .filter(|net| is_v6(net) == v6)
                    .collect(),
                own: own.iter().filter(|net| is_v6(net) == v6).collect(),
                pods: pods.iter().filter(|pod| pod.is_ipv6() == v6).collect(),
            };
            if family.own.is_empty() {
                continue;
            }
            match self.flavour {
                RuleFlavour::Iptables => {
                    let program = if v6 {
                        "ip6tables-nft-restore"
                    } else {
                        "iptables-nft-restore"
                    };
                    ns.feed(program, &["-n"], &family.iptables())?;
                }
                RuleFlavour::Nft => ns.nft(&family.nft())?,
            }
        }
        Ok(())
    }
}

struct Family<'a> {
    v6: bool,
    clusters: Vec<&'a IpNet>,
    services: Vec<&'a IpNet>,
    own: Vec<&'a IpNet>,
    pods: Vec<&'a IpAddr>,
}

// Writing to a String cannot fail.
#[allow(clippy::unwrap_used)]
impl Family<'_> {
    fn multicast(&self) -> &'static str {
        if self.v6 { "ff00::/8" } else { "224.0.0.0/4" }
    }

    fn iptables(&self) -> String {
        let multicast = self.multicast();
        let mut nat = String::from(
            "*nat\n:FLANNEL-POSTRTG - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n\
             :KUBE-SERVICES - [0:0]\n",
        );
        for index in 0..self.pods.len() {
            writeln!(nat, ":CNI-{index} - [0:0]").unwrap();
        }
        nat.push_str(
            "-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n\
             -A POSTROUTING -j KUBE-POSTROUTING\n-A POSTROUTING -j FLANNEL-POSTRTG\n\
             -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n\
             -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
             -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0\n\
             -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n\
             -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN\n",
        );
        for cluster in &self.clusters {
            for service in &self.services {
                writeln!(
                    nat,
                    "-A KUBE-SERVICES ! -s {cluster} -d {service} -j KUBE-MARK-MASQ"
                )
                .unwrap();
            }
            for own in &self.own {
                writeln!(
                    nat,
                    "-A FLANNEL-POSTRTG -s {own} -d {cluster} -j RETURN\n\
                     -A FLANNEL-POSTRTG -s {cluster} -d {own} -j RETURN\n\
                     -A FLANNEL-POSTRTG ! -s {cluster} -d {own} -j RETURN"
                )
                .unwrap();
            }
            writeln!(
                nat,
                "-A FLANNEL-POSTRTG -s {cluster} ! -d {multicast} -j MASQUERADE --random-fully\n\
                 -A FLANNEL-POSTRTG ! -s {cluster} -d {cluster} -j MASQUERADE --random-fully"
            )
            .unwrap();
        }
        for (index, pod) in self.pods.iter().enumerate() {
            writeln!(nat, "-A POSTROUTING -s {pod} -j CNI-{index}").unwrap();
            for own in &self.own {
                writeln!(nat, "-A CNI-{index} -d {own} -j ACCEPT").unwrap();
            }
            writeln!(nat, "-A CNI-{index} ! -d {multicast} -j MASQUERADE").unwrap();
        }
        nat.push_str("COMMIT\n");
        let mut filter = String::from(
            "*filter\n:KUBE-FORWARD - [0:0]\n:FLANNEL-FWD - [0:0]\n\
             -A FORWARD -j KUBE-FORWARD\n-A FORWARD -j FLANNEL-FWD\n\
             -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
             -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
             -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n",
        );
        for cluster in &self.clusters {
            writeln!(
                filter,
                "-A FLANNEL-FWD -s {cluster} -j ACCEPT\n-A FLANNEL-FWD -d {cluster} -j ACCEPT"
            )
            .unwrap();
        }
        filter.push_str("COMMIT\n");
        nat + &filter
    }

    fn nft(&self) -> String {
        let ip = if self.v6 { "ip6" } else { "ip" };
        let multicast = self.multicast();
        let mut text = format!(
            "table {ip} kube-proxy {{\n\
             chain forward {{ type filter hook forward priority 0; ct state invalid drop; }}\n\
             chain services {{ type nat hook prerouting priority -100;\n"
        );
        for cluster in &self.clusters {
            for service in &self.services {
                writeln!(
                    text,
                    "{ip} daddr {service} {ip} saddr != {cluster} meta mark set meta mark | 0x4000"
                )
                .unwrap();
            }
        }
        text.push_str(
            "}\nchain post { type nat hook postrouting priority 100;\n\
             meta mark & 0x4000 == 0 return\nmeta mark set meta mark ^ 0x4000\nmasquerade fully-random\n}\n}\n",
        );
        let suffix = if self.v6 { "v6" } else { "v4" };
        writeln!(
            text,
            "table {ip} flannel-ip{suffix} {{\nchain post {{ type nat hook postrouting priority 100;\n\
             meta mark & 0x4000 == 0x4000 return"
        )
        .unwrap();
        for cluster in &self.clusters {
            for own in &self.own {
                writeln!(
                    text,
                    "{ip} saddr {own} {ip} daddr {cluster} return\n{ip} saddr {cluster} {ip} daddr {own} return\n\
                     {ip} saddr != {cluster} {ip} daddr {own} return"
                )
                .unwrap();
            }
            writeln!(
                text,
                "{ip} saddr {cluster} {ip} daddr != {multicast} masquerade fully-random\n\
                 {ip} saddr != {cluster} {ip} daddr {cluster} masquerade fully-random"
            )
            .unwrap();
        }
        text.push_str("}\n}\n");
        // One table for both families, as the plug-in does it; adding to it twice is harmless.
        text.push_str(
            "table inet cni_plugins_masquerade {\nchain masq_checks { type nat hook postrouting priority 100;\n",
        );
        for pod in &self.pods {
            let own = self
                .own
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            writeln!(
                text,
                "{ip} saddr {pod} {ip} daddr != {{ {own} }} masquerade"
            )
            .unwrap();
        }
        text.push_str("}\n}\n");
        text
    }
}

fn is_v6(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(_))
}
