//! The firewall on a real nf_tables.

use crate::Test;
use crate::host::*;
use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use tieline_agent::platform::linux::Linux;
use tieline_agent::platform::{Platform, Secrets};
use tieline_core::cidr::Family;
use tieline_core::host::HostState;
use tieline_core::host::diff::Change;
use tieline_core::host::firewall::{
    Action, AddressSet, Addresses, Chain, ChainKind, ChainName, Hook, Interface, Match, Rule,
    Ruleset, Set, SetName, Table, TableFamily,
};

/// All tests of this file.
pub(crate) const TESTS: &[Test] = &[
    (
        "tables_are_read_back_and_a_restart_does_not_rewrite_them",
        read_back,
    ),
    (
        "a_table_deleted_while_it_is_read_back_is_written_again",
        deleted_meanwhile,
    ),
    (
        "a_full_disk_is_told_and_tables_are_not_written_again",
        full_disk,
    ),
    ("tables_that_others_change_are_written_again", written_again),
    (
        "tables_of_an_unknown_past_are_removed_when_nothing_is_wanted",
        unknown_past,
    ),
    (
        "a_refused_ruleset_says_where_and_nothing_is_half_loaded",
        refused,
    ),
    ("a_new_device_of_an_old_name_is_guarded_again", new_device),
    ("planned_packets_do_not_leave_in_clear", no_clear_text),
    (
        "where_only_elements_differ_counters_go_on_and_nothing_gets_out",
        elements_alone,
    ),
];

const CABLE: &str = "
    ip link set lo up
    ip link add eth0 type veth peer name far0
    ip link set eth0 addrgenmode none; ip link set far0 addrgenmode none
    ip link set eth0 up; ip link set far0 up
    for i in $(seq 100); do ip -br link | grep -q NO-CARRIER || break; sleep 0.02; done
    ip addr add 192.0.2.10/24 dev eth0; ip route add default via 192.0.2.1";

fn walled(egress: &str) -> HostState {
    let planned = |name| Addresses {
        family: Family::V4,
        of: AddressSet::Named(name),
        inside: true,
    };
    let drop_planned = |out: &str| Rule {
        matches: vec![
            Match::Out([Interface::new(out).unwrap()].into()),
            Match::Destination(planned(SetName::Planned)),
        ],
        counter: true,
        action: Action::Drop,
    };
    let set = Set {
        name: SetName::Planned,
        family: Family::V4,
        elements: [prefix("10.64.0.0/10"), prefix("100.127.0.0/16")]
            .into_iter()
            .collect(),
    };
    let chain = |name, hook, rules| Chain {
        name,
        kind: ChainKind::Filter,
        hook,
        priority: -10,
        rules,
    };
    let egress_rule = Rule {
        matches: vec![Match::Destination(planned(SetName::Planned))],
        counter: true,
        action: Action::Drop,
    };
    let ruleset = Ruleset {
        tables: vec![
            Table {
                family: TableFamily::Inet,
                sets: vec![set.clone()],
                chains: vec![chain(
                    ChainName::Outp,
                    Hook::Output,
                    vec![drop_planned("eth0")],
                )],
            },
            Table {
                family: TableFamily::Netdev,
                sets: vec![set],
                chains: vec![chain(
                    ChainName::Egress(0),
                    Hook::Egress(Interface::new(egress).unwrap()),
                    vec![egress_rule],
                )],
            },
        ],
    };
    HostState {
        firewall: Some(ruleset),
        ..HostState::default()
    }
}

/// A host on a cable, and a platform that has done nothing yet.
async fn on_a_cable() -> (tempfile::TempDir, Linux) {
    sh(CABLE);
    let directory = state_dir();
    let linux = open(directory.path(), &[]).await;
    (directory, linux)
}

/// One turn; what it changed. There is nothing secret in walls.
async fn build(linux: &mut Linux, wanted: &HostState) -> Vec<Change> {
    reach(linux, wanted, &Secrets::default()).await
}

async fn state(linux: &mut Linux) -> HostState {
    linux.observe().await.unwrap().state
}

/// The other end of the cable counts what comes out of it.
fn listen() {
    sh("nft add table netdev oracle
        nft add chain netdev oracle in '{ type filter hook ingress device far0 priority 0; }'
        nft add rule netdev oracle in ip daddr 10.64.0.0/10 counter
        ip neigh replace 192.0.2.1 lladdr 02:00:00:00:00:01 dev eth0");
}

/// What the first counter of a listing says.
fn packets(listing: &str) -> u64 {
    let rest = listing.split("packets ").nth(1).unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

fn heard() -> u64 {
    packets(&sh("nft list chain netdev oracle in"))
}

fn read_back() {
    block_on(async {
        let (directory, mut linux) = on_a_cable().await;
        let wanted = walled("eth0");
        assert_eq!(build(&mut linux, &wanted).await.len(), 1);
        assert_eq!(state(&mut linux).await, wanted);
        // Counters count and other tables come and go: ours are still as we wrote them.
        sh(
            "ping -c 1 -W 1 10.64.0.1 || true; nft add table ip elsewhere; nft delete table ip elsewhere",
        );
        assert!(sh("nft list table inet tieline").contains("packets 1"));
        assert_eq!(state(&mut linux).await, wanted);
        drop(linux);

        let mut again = open(directory.path(), &[]).await;
        assert_eq!(build(&mut again, &wanted).await, []);
        assert_eq!(again.writes().load(Ordering::Relaxed), 0);
    });
}

fn full_disk() {
    block_on(async {
        let (directory, mut linux) = on_a_cable().await;
        let wanted = walled("eth0");
        // Root may write everywhere, but not a file where a directory is.
        let in_the_way = directory.path().join(".firewall.json.new");
        std::fs::create_dir(&in_the_way).unwrap();
        let load = [Change::ReplaceFirewall(Box::new(
            wanted.firewall.clone().unwrap(),
        ))];
        let failures = linux.apply(&load, &Secrets::default()).await;
        assert_eq!(failures.len(), 1, "nobody is told: {failures:?}");
        assert_eq!(state(&mut linux).await, wanted);
        assert_eq!(build(&mut linux, &wanted).await, []);

        // With room again, the next start knows the tables.
        std::fs::remove_dir(&in_the_way).unwrap();
        linux.observe().await.unwrap();
        let mut again = open(directory.path(), &[]).await;
        assert_eq!(build(&mut again, &wanted).await, []);
    });
}

fn written_again() {
    block_on(async {
        let (_directory, mut linux) = on_a_cable().await;
        let wanted = walled("eth0");
        build(&mut linux, &wanted).await;
        for damage in [
            "nft delete table inet tieline",
            "nft flush chain inet tieline outp",
            "nft insert rule inet tieline outp accept",
            "nft add element inet tieline planned4 '{ 198.51.100.0/24 }'",
            "nft flush ruleset",
        ] {
            for _ in 0..50 {
                let news = linux.changed();
                if tokio::time::timeout(Duration::from_millis(50), news)
                    .await
                    .is_err()
                {
                    break;
                }
            }
            sh(damage);
            let news = tokio::time::timeout(Duration::from_secs(1), linux.changed()).await;
            news.expect(damage);
            assert_ne!(state(&mut linux).await, wanted, "{damage} is not seen");
            assert_eq!(build(&mut linux, &wanted).await.len(), 1);
            assert_eq!(state(&mut linux).await, wanted, "after {damage}");
        }
    });
}

/// Somebody deletes a table in the moment between its load and its read-back: it must not be taken for written.
fn deleted_meanwhile() {
    block_on(async {
        let (_directory, mut linux) = on_a_cable().await;
        let wanted = walled("eth0");
        for round in 0..5 {
            let mut enemy = std::process::Command::new("sh")
                .args([
                    "-c",
                    "until nft delete table netdev tieline 2>/dev/null; do :; done",
                ])
                .spawn()
                .unwrap();
            // At the latest the second turn finds out; the third has nothing to do.
            for _ in 0..2 {
                build(&mut linux, &wanted).await;
                enemy.wait().unwrap();
            }
            assert_eq!(state(&mut linux).await, wanted, "round {round}");
            assert!(
                sh("nft list table netdev tieline").contains("hook egress"),
                "round {round}"
            );
            sh("nft delete table inet tieline; nft delete table netdev tieline");
        }
    });
}

fn unknown_past() {
    block_on(async {
        sh(CABLE);
        let before = dump();
        let directory = state_dir();
        let mut linux = open(directory.path(), &[]).await;
        build(&mut linux, &walled("eth0")).await;
        drop(linux);
        let elsewhere = state_dir();
        let mut other = open(elsewhere.path(), &[]).await;
        let changes = build(&mut other, &HostState::default()).await;
        assert_eq!(changes, [Change::RemoveFirewall]);
        assert_eq!(dump(), before);
    });
}

fn refused() {
    block_on(async {
        sh(CABLE);
        let before = dump();
        let directory = state_dir();
        let mut linux = open(directory.path(), &[]).await;
        let mut ruleset = walled("eth0").firewall.unwrap();
        ruleset.tables[0].chains.push(Chain {
            name: ChainName::Forw,
            kind: ChainKind::Nat, // no such thing on this hook
            hook: Hook::Forward,
            priority: -10,
            rules: Vec::new(),
        });
        let failures = linux
            .apply(
                &[Change::ReplaceFirewall(Box::new(ruleset))],
                &Secrets::default(),
            )
            .await;
        let [failure] = &failures[..] else {
            panic!("{failures:?}")
        };
        let source = std::error::Error::source(failure).unwrap().to_string();
        assert!(source.contains("forw"), "{source}");
        assert_eq!(dump(), before);
        assert_eq!(linux.writes().load(Ordering::Relaxed), 0);
    });
}

/// Some kernels hang the chain on the new device by themselves, others have lost it: one turn later both have it.
fn new_device() {
    block_on(async {
        let (_directory, mut linux) = on_a_cable().await;
        let wanted = walled("eth0");
        build(&mut linux, &wanted).await;
        sh(&format!("ip link del eth0; {CABLE}"));
        build(&mut linux, &wanted).await;
        assert_eq!(state(&mut linux).await, wanted);
        sh("nft delete table inet tieline
            ip neigh replace 192.0.2.1 lladdr 02:00:00:00:00:01 dev eth0
            ping -c 1 -W 0.1 10.64.0.1 || true");
        assert!(sh("nft list table netdev tieline").contains("packets 1"));
    });
}

fn no_clear_text() {
    block_on(async {
        let (_directory, mut linux) = on_a_cable().await;
        listen();
        let sent_until_now = || {
            sh("for i in 1 2 3; do ping -c 1 -W 0.1 10.64.0.$i || true; done");
            heard()
        };
        assert_eq!(sent_until_now(), 3, "the oracle is blind");
        build(&mut linux, &walled("eth0")).await;
        assert_eq!(sent_until_now(), 3);
        // Without the inet table the egress guard alone holds.
        sh("nft delete table inet tieline");
        assert_eq!(sent_until_now(), 3);
        assert!(sh("nft list table netdev tieline").contains("packets 3"));
    });
}

/// The walls with another plan.
fn planning(more: &str) -> HostState {
    let mut wanted = walled("eth0");
    for table in &mut wanted.firewall.as_mut().unwrap().tables {
        table.sets[0].elements.insert(prefix(more));
    }
    wanted
}

/// What the walls have counted.
fn held_back() -> u64 {
    packets(&sh("nft list table inet tieline"))
}

fn elements_alone() {
    block_on(async {
        let (_directory, mut linux) = on_a_cable().await;
        listen();
        build(&mut linux, &walled("eth0")).await;
        let plans = [planning("10.200.0.0/16"), planning("10.200.0.0/15")];
        let (stop, stopped) = mpsc::channel::<()>();
        let sender = std::thread::spawn(move || {
            let socket = UdpSocket::bind("192.0.2.10:0").unwrap();
            while stopped.recv_timeout(Duration::from_micros(50)) == Err(RecvTimeoutError::Timeout)
            {
                // Refused, as it should be.
                let _ = socket.send_to(b"planned", "10.64.0.1:9");
            }
        });
        // Where sets are emptied and filled by two writes, some get out in every turn. That a turn begins with one change says
        // that the turn before it has left what it should.
        let mut counted = 0;
        for wanted in plans.iter().cycle().take(6) {
            let end = std::time::Instant::now() + Duration::from_secs(20);
            while held_back() < counted + 100 {
                assert!(std::time::Instant::now() < end, "nothing to hold back");
                std::thread::sleep(Duration::from_millis(10));
            }
            counted = held_back();
            assert_eq!(build(&mut linux, wanted).await.len(), 1);
            assert!(held_back() >= counted, "the counter began anew");
        }
        assert_eq!(state(&mut linux).await, plans[1]);
        drop(stop);
        sender.join().unwrap();
        assert_eq!(heard(), 0, "planned packets got out");

        // What somebody else has put into our tables does not stay because elements differ too.
        sh("nft insert rule inet tieline outp accept");
        build(&mut linux, &plans[0]).await;
        assert_eq!(state(&mut linux).await, plans[0]);
        assert!(!sh("nft list chain inet tieline outp").contains("\t\taccept"));
    });
}
