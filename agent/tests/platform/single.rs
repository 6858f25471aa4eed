//! One host: what is applied is observed, stays, comes back, and leaves without a trace.

use crate::Test;
use crate::host::*;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tieline_agent::platform::{Backend, Platform, Secrets};
use tieline_core::host::{HostState, diff};

/// All tests of this file.
pub(crate) const TESTS: &[Test] = &[
    (
        "what_was_applied_is_observed_and_a_second_turn_changes_nothing",
        applied_is_observed,
    ),
    ("what_disappears_is_noticed_and_put_back", put_back),
    (
        "foreign_state_is_neither_seen_nor_touched",
        foreign_is_left_alone,
    ),
    (
        "a_preshared_key_that_is_not_known_yet_holds_up_its_peer_alone",
        secret_to_come,
    ),
    ("cleanup_leaves_the_host_as_it_was", cleanup_leaves_nothing),
    (
        "cleanup_gives_the_host_its_sysctls_back",
        cleanup_restores_sysctls,
    ),
    (
        "forwarding_that_is_ours_is_not_taken_for_the_hosts_also_after_a_restart",
        own_forwarding,
    ),
];

fn applied_is_observed() {
    block_on(async {
        let directory = state_dir();
        let mut linux = open(directory.path(), &[]).await;
        let kernel = sh("ip link add probe type wireguard 2>&1 && ip link del probe || true");
        let expected = if kernel.is_empty() {
            Backend::Kernel
        } else {
            Backend::Embedded
        };
        assert_eq!(linux.backend(), expected, "{kernel}");
        let wanted = gateway();

        let changes = reach(&mut linux, &wanted, &gateway_secrets()).await;
        assert_eq!(linux.observe().await.unwrap().state, wanted);
        assert_eq!(linux.writes().load(Ordering::Relaxed), changes.len() as u64);

        let changes = reach(&mut linux, &wanted, &gateway_secrets()).await;
        assert_eq!(changes, []);
        assert_eq!(linux.observe().await.unwrap().state, wanted);
    });
}

fn secret_to_come() {
    block_on(async {
        let directory = state_dir();
        let mut linux = open(directory.path(), &[]).await;
        let wanted = gateway();
        let early = Secrets {
            preshared_keys: BTreeMap::new(),
            ..gateway_secrets()
        };
        let changes = diff(&HostState::default(), &BTreeMap::new(), &wanted);
        let failures = linux.apply(&changes, &early).await;
        assert_eq!(failures.len(), 1, "{failures:?}");
        let source = std::error::Error::source(&failures[0]).unwrap().to_string();
        assert_eq!(source, "the pre-shared key of hq is not known yet");
        assert_eq!(
            reach(&mut linux, &wanted, &gateway_secrets()).await.len(),
            1
        );
        assert_eq!(linux.observe().await.unwrap().state, wanted);
    });
}

fn put_back() {
    block_on(async {
        let directory = state_dir();
        let mut linux = open(directory.path(), &[]).await;
        let wanted = gateway();
        reach(&mut linux, &wanted, &gateway_secrets()).await;
        for damage in [
            "ip route del 10.80.0.0/16 table 7468",
            "ip -6 route del fd80::/48 table 7468",
            "ip route flush table 7469; ip -6 route flush table 7470",
            "ip route replace 10.80.0.0/16 dev tie0 table 7468 metric 100",
            "ip rule del pref 103; ip -6 rule del pref 104",
            "ip link del tie1",
            "ip link set tie0 down",
            "ip link set tie0 mtu 1200",
            "ip addr del 100.127.0.1/32 dev tie0; ip addr del fd64::1/128 dev tie1",
            "ip addr change fd64::1/128 dev tie1 preferred_lft forever valid_lft forever",
            "echo 0 > /proc/sys/net/ipv4/ip_forward",
        ] {
            drain(&mut linux).await;
            sh(damage);
            assert_ne!(
                linux.observe().await.unwrap().state,
                wanted,
                "{damage} is not seen"
            );
            if !damage.starts_with("echo") {
                tokio::time::timeout(Duration::from_secs(1), linux.changed())
                    .await
                    .expect(damage);
            }
            // What a change drags along shows in the next turn.
            for _ in 0..3 {
                reach(&mut linux, &wanted, &gateway_secrets()).await;
            }
            assert_eq!(
                linux.observe().await.unwrap().state,
                wanted,
                "after {damage}"
            );
        }
    });
}

/// Hears all news that there are.
async fn drain(linux: &mut impl Platform) {
    for _ in 0..100 {
        if tokio::time::timeout(Duration::from_millis(50), linux.changed())
            .await
            .is_err()
        {
            break;
        }
    }
}

const FOREIGN: &str = "
    ip link set lo up
    ip link add eth0 type veth peer name far0
    ip link set eth0 addrgenmode none; ip link set far0 addrgenmode none
    ip addr add 192.0.2.10/24 dev eth0; ip link set eth0 up; ip link set far0 up
    for i in $(seq 100); do ip -br link | grep -q NO-CARRIER || break; sleep 0.02; done
    ip route add default via 192.0.2.1; ip route add 10.80.0.0/16 via 192.0.2.1
    ip rule add pref 103 lookup 52; ip rule add pref 90 lookup main; ip rule add pref 104 to 10.0.0.0/8 lookup main
    ip route add 10.81.0.0/16 dev eth0 table 52
    ip link add tieline type bridge
    nft add table inet filter
    nft add chain inet filter forward '{ type filter hook forward priority 0; policy drop; }'
    nft add table inet firewalld
    nft add chain inet firewalld filter_FORWARD '{ type filter hook forward priority 10; policy accept; }'
    nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited
    nft add table inet open
    nft add chain inet open forward '{ type filter hook forward priority 20; policy accept; }'";

/// What plug-ins of the CNI project and kube-proxy leave on a node.
const POD_NETWORK: &str = "
    ip link add cni0 type bridge; ip link add cali0123456789a type bridge
    nft add table inet cni_plugins_masquerade
    nft add chain inet cni_plugins_masquerade masq_checks
    nft add rule inet cni_plugins_masquerade masq_checks ip saddr 10.1.0.7 ip daddr != 10.1.0.0/24 masquerade
    nft add chain inet cni_plugins_masquerade postrouting '{ type nat hook postrouting priority 100; policy accept; }'
    nft add rule inet cni_plugins_masquerade postrouting jump masq_checks
    nft add table ip kube-proxy
    nft add chain ip kube-proxy masquerading
    nft add rule ip kube-proxy masquerading mark and 0x4000 == 0 return
    nft add rule ip kube-proxy masquerading masquerade fully-random
    nft add chain ip kube-proxy nat-postrouting '{ type nat hook postrouting priority 100; policy accept; }'
    nft add rule ip kube-proxy nat-postrouting jump masquerading";

fn foreign_is_left_alone() {
    block_on(async {
        sh(FOREIGN);
        sh(POD_NETWORK);
        let before = dump();
        let directory = state_dir();
        let mut linux = open(directory.path(), &[]).await;
        assert_eq!(linux.observe().await.unwrap().state, HostState::default());
        assert_eq!(dump(), before);

        let around = linux.surroundings().await.unwrap();
        let names: Vec<&String> = around.underlay.keys().collect();
        assert_eq!(names, ["eth0"]);
        assert_eq!(around.underlay["eth0"].mtu, 1500);
        assert_eq!(around.underlay["eth0"].prefixes.to_string(), "192.0.2.0/24");
        assert_eq!(around.addresses, ["192.0.2.10".parse().unwrap()].into());
        assert!(around.netdev_egress);
        assert_eq!(
            around.foreign_forward_drops,
            ["inet filter forward", "inet firewalld filter_FORWARD"]
                .map(str::to_owned)
                .into()
        );
        assert_eq!(
            around.plug_in_devices,
            ["cni0", "cali*"].map(str::to_owned).into()
        );
        assert_eq!(
            around.foreign_masquerade,
            [
                ("inet cni_plugins_masquerade masq_checks".to_owned(), false),
                ("ip kube-proxy masquerading".to_owned(), true),
            ]
            .into()
        );

        reach(&mut linux, &gateway(), &gateway_secrets()).await;
        reach(&mut linux, &HostState::default(), &Secrets::default()).await;
        assert_eq!(dump(), before);
    });
}

fn cleanup_restores_sysctls() {
    const POLICY: &str = "net/ipv4/fib_multipath_hash_policy";
    const FORWARD: &str = "net/ipv4/ip_forward";
    let read = |path: &str| sh(&format!("cat /proc/sys/{path}"));
    block_on(async {
        sh(&format!(
            "echo 2 > /proc/sys/{POLICY}; echo 0 > /proc/sys/{FORWARD}"
        ));
        let directory = state_dir();
        let mut linux = open(directory.path(), &[]).await;
        let mut wanted = gateway();
        for path in [POLICY, FORWARD] {
            wanted.sysctls.insert(path.to_owned(), "1".to_owned());
        }
        reach(&mut linux, &wanted, &gateway_secrets()).await;
        assert_eq!(read(POLICY), "1\n");
        drop(linux);
        // Another process with the same state.
        let mut other = open(directory.path(), &[]).await;
        let failures = other.cleanup().await;
        assert!(failures.is_empty(), "{failures:?}");
        assert_eq!(read(POLICY), "2\n");
        // Pods rely on it by now, and ask nobody.
        assert_eq!(read(FORWARD), "1\n");
    });
}

fn own_forwarding() {
    const ETH0: &str = "net/ipv6/conf/eth0/forwarding";
    block_on(async {
        sh(FOREIGN);
        for of_host in ["0", "1"] {
            sh(&format!(
                "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding; echo {of_host} > /proc/sys/{ETH0}"
            ));
            let directory = state_dir();
            for turn in 0..3 {
                let mut linux = open(directory.path(), &[]).await;
                let around = linux.surroundings().await.unwrap();
                let found = around.forwards_ipv6.contains("eth0");
                assert_eq!(found, of_host == "1", "{of_host}, turn {turn}");
                assert!(!around.without_ipv6);
                reach(&mut linux, &gateway(), &gateway_secrets()).await;
                assert_eq!(sh(&format!("cat /proc/sys/{ETH0}")), "1\n");
            }
        }
    });
}

fn cleanup_leaves_nothing() {
    block_on(async {
        sh(FOREIGN);
        let before = dump();
        let directory = state_dir();
        let mut linux = open(directory.path(), &[]).await;
        reach(&mut linux, &gateway(), &gateway_secrets()).await;
        // Another process, without the state of the first.
        let elsewhere = state_dir();
        let mut other = open(elsewhere.path(), &[]).await;
        let failures = other.cleanup().await;
        assert!(failures.is_empty(), "{failures:?}");
        assert_eq!(dump(), before);
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    });
}
