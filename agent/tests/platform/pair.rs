//! Two hosts whose devices really talk to each other.
//!
//! The far host is a second process in a second network namespace. It follows words on its standard input and answers
//! each with a line.

use crate::host::*;
use crate::{INSIDE, Test};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use tieline_agent::platform::linux::Linux;
use tieline_agent::platform::{Observation, Platform};
use tieline_core::cidr::Family;
use tieline_core::health::PathId;
use tieline_core::host::{
    HostState, METRIC_REMOTE, Rule, Selector, TABLE_MAIN, TABLE_REMOTE, WgPeer,
};

/// All tests of this file.
pub(crate) const TESTS: &[Test] = &[
    ("two_hosts_exchange_pings_in_both_families", pings),
    ("changing_peers_loses_no_packet", no_loss),
    (
        "a_new_port_and_a_new_key_take_effect_on_a_running_device",
        new_port_and_key,
    ),
    ("both_rails_of_a_multipath_route_carry_flows", multipath),
];

const FAR: &str = "far-host";

fn pings() {
    block_on(async {
        let mut far = Far::start();
        let (mut linux, _directory) = near().await;
        reach(&mut linux, &state(Side::Near, 1), &keys(Side::Near)).await;
        far.tell("reach 1");
        sh("ping -c 5 -i 0.05 -W 10 100.127.0.2; ping -c 5 -i 0.05 -W 10 fd64::2");

        let seen = linux.observe().await.unwrap();
        let alive = seen.liveness[&PathId::new(name("tie0"), public(21))];
        assert!(alive.handshake_age.unwrap() < Duration::from_secs(30));
        assert!(
            alive.rx_bytes > 10 * 84 && alive.tx_bytes > 10 * 84,
            "{alive:?}"
        );
        // The far side was told no endpoint: it learned ours.
        assert_eq!(far.tell("endpoint tie0"), "192.0.2.1:21820");
        // Nobody but the two ends speaks on the underlay, and what arrived kept its source.
        let changes = reach(&mut linux, &state(Side::Near, 1), &keys(Side::Near)).await;
        assert_eq!(changes, []);
    });
}

fn no_loss() {
    block_on(async {
        let mut far = Far::start();
        let (mut linux, _directory) = near().await;
        let plain = state(Side::Near, 1);
        reach(&mut linux, &plain, &keys(Side::Near)).await;
        far.tell("reach 1");
        sh("ping -c 1 -W 10 100.127.0.2");

        let ping = Command::new("ping")
            .args(["-q", "-i", "0.01", "-c", "400", "-W", "1", "100.127.0.2"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut crowded = plain.clone();
        let tie0 = crowded.devices.get_mut(&name("tie0")).unwrap();
        for seed in 100..200 {
            let allowed = format!("10.{seed}.0.0/16");
            tie0.peers.insert(
                public(seed),
                peer(&[&allowed], Some("192.0.2.99:21820"), None),
            );
        }
        let changed = WgPeer {
            keepalive: Some(5),
            ..peer(&["100.127.0.0/24", "10.81.0.0/16"], None, None)
        };
        tie0.peers.insert(public(21), changed);
        for _ in 0..5 {
            reach(&mut linux, &crowded, &keys(Side::Near)).await;
            assert_eq!(
                peers_of(&linux.observe().await.unwrap().state, "tie0").len(),
                101
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
            reach(&mut linux, &plain, &keys(Side::Near)).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let output = ping.wait_with_output().unwrap();
        let report = String::from_utf8(output.stdout).unwrap();
        assert!(report.contains("400 received"), "{report}");
    });
}

fn new_port_and_key() {
    block_on(async {
        let mut far = Far::start();
        let (mut linux, _directory) = near().await;
        let mut wanted = state(Side::Near, 1);
        reach(&mut linux, &wanted, &keys(Side::Near)).await;
        far.tell("reach 1");
        sh("ping -c 1 -W 10 100.127.0.2");

        wanted.devices.get_mut(&name("tie0")).unwrap().port = 21999;
        reach(&mut linux, &wanted, &keys(Side::Near)).await;
        sh("ping -c 1 -W 10 100.127.0.2");
        assert_eq!(far.tell("endpoint tie0"), "192.0.2.1:21999");

        wanted.devices.get_mut(&name("tie0")).unwrap().public_key = public(77);
        far.tell("rekey 77");
        reach(&mut linux, &wanted, &secrets(&[("tie0", 77)])).await;
        assert_eq!(linux.observe().await.unwrap().state, wanted);
        eventually(Duration::from_secs(12), "ping -c 1 -W 1 100.127.0.2");
    });
}

fn multipath() {
    block_on(async {
        let mut far = Far::start();
        let (mut linux, _directory) = near().await;
        far.tell("reach 2");
        reach(&mut linux, &state(Side::Near, 2), &keys(Side::Near)).await;
        shake_hands(&mut linux, 2).await;
        sh("for i in $(seq 1 32); do ping -c 1 -W 10 10.80.0.$i; ping -c 1 -W 10 fd80::$i; done");
        let seen = linux.observe().await.unwrap();
        for (rail, key) in [("tie0", 21), ("tie1", 22)] {
            let alive = seen.liveness[&PathId::new(name(rail), public(key))];
            assert!(
                alive.tx_bytes > 8 * 100,
                "{rail} carried {} bytes only",
                alive.tx_bytes
            );
        }
        // One rail goes away: both families go on by the other one.
        let mut wanted = state(Side::Near, 2);
        let gone = name("tie1");
        wanted.devices.remove(&gone);
        for route in wanted.routes.values_mut() {
            if route.target == by(&["tie0", "tie1"]) {
                route.target = by(&["tie0"]);
            }
        }
        wanted.sysctls.retain(|path, _| !path.contains("tie1"));
        reach(&mut linux, &wanted, &keys(Side::Near)).await;
        far.tell("reach 1");
        sh("for i in $(seq 1 8); do ping -c 1 -W 10 10.80.0.$i; ping -c 1 -W 10 fd80::$i; done");
    });
}

/// Waits for sessions on this many rails: a reply may come by another rail than its request, and one that never spoke has no
/// endpoint over there.
async fn shake_hands(linux: &mut Linux, rails: usize) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        let seen = linux.observe().await.unwrap().liveness;
        if seen
            .values()
            .filter(|alive| alive.handshake_age.is_some())
            .count()
            == rails
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no session on each of {rails} rails");
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Near,
    Far,
}

/// Devices' private keys of a side, by seed: 11, 12 near and 21, 22 far.
fn keys(side: Side) -> tieline_agent::platform::Secrets {
    match side {
        Side::Near => secrets(&[("tie0", 11), ("tie1", 12)]),
        Side::Far => secrets(&[("tie0", 21), ("tie1", 22)]),
    }
}

/// A side's state with one or two rails between the two. Only the near side knows an endpoint.
fn state(side: Side, rails: u8) -> HostState {
    let (own, other, base, other_base) = match side {
        Side::Near => ("1", "2", 11, 21),
        Side::Far => ("2", "1", 21, 11),
    };
    let mesh = [format!("100.127.0.{own}/32"), format!("fd64::{own}/128")];
    let sources = [format!("100.127.0.{own}"), format!("fd64::{own}")];
    let mut allowed = vec![
        format!("100.127.0.{other}/32"),
        format!("fd64::{other}/128"),
    ];
    if side == Side::Near {
        allowed.extend(["10.80.0.0/16".into(), "fd80::/48".into()]);
    }
    let names = ["tie0", "tie1"];
    let names = &names[..usize::from(rails)];
    let mut wanted = HostState::default();
    for (rail, device_name) in (0..).zip(names) {
        let port = 21820 + u16::from(rail);
        let endpoint = format!("192.0.2.2:{port}");
        let endpoint = (side == Side::Near).then_some(&*endpoint);
        let keepalive = endpoint.filter(|_| rails > 1).map(|_| 25);
        let mesh: Vec<&str> = mesh.iter().map(String::as_str).collect();
        let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
        let mut made = device(base + rail, port, &mesh);
        made.peers.insert(
            public(other_base + rail),
            peer(&allowed, endpoint, keepalive),
        );
        wanted.devices.insert(name(device_name), made);
        wanted
            .sysctls
            .insert(format!("net/ipv4/conf/{device_name}/rp_filter"), "2".into());
    }
    for prefix in &allowed {
        let source = &sources[usize::from(prefix.contains(':'))];
        wanted.routes.extend([route(
            TABLE_REMOTE,
            prefix,
            METRIC_REMOTE,
            by(names),
            Some(source),
        )]);
    }
    for family in Family::BOTH {
        let rule = |preference, selector, table| Rule {
            preference,
            family,
            selector,
            table,
            suppress_prefix_len: None,
        };
        wanted.rules.extend([
            rule(
                101,
                Selector::Mark {
                    mark: 0x1000,
                    mask: 0x1000,
                },
                TABLE_MAIN,
            ),
            rule(103, Selector::All, TABLE_REMOTE),
        ]);
    }
    wanted
}

async fn near() -> (Linux, tempfile::TempDir) {
    let directory = state_dir();
    (open(directory.path(), &[]).await, directory)
}

/// Tries a command until it works.
fn eventually(patience: Duration, line: &str) {
    let start = Instant::now();
    while start.elapsed() < patience {
        if Command::new("sh")
            .args(["-c", line])
            .output()
            .unwrap()
            .status
            .success()
        {
            return;
        }
    }
    panic!("{line} did not work within {patience:?}");
}

/// The far host's process; it ends with this value.
struct Far {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Far {
    /// Starts it and lays a cable: 192.0.2.1 here, 192.0.2.2 there.
    fn start() -> Self {
        let mut child = Command::new("unshare")
            .args(["--net", "--kill-child", "--"])
            .arg(std::env::current_exe().unwrap())
            .env(INSIDE, FAR)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut far = Self {
            child,
            input,
            output,
        };
        far.tell("hello");
        sh(&format!(
            "ip link set lo up; ip link add u0 type veth peer name u1; ip link set u1 netns {};
             ip addr add 192.0.2.1/24 dev u0; ip link set u0 up",
            far.child.id()
        ));
        far.tell("cable");
        far
    }

    /// Says a word and waits for the answer.
    fn tell(&mut self, word: &str) -> String {
        writeln!(self.input, "{word}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        assert!(!answer.is_empty(), "the far host died at {word}");
        answer.trim().strip_prefix("ok").unwrap().trim().to_owned()
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process at the other end.
pub(crate) fn other_end(role: &str) {
    assert_eq!(role, FAR, "there is no such test");
    block_on(async {
        let directory = state_dir();
        let mut linux = None;
        for line in std::io::stdin().lines() {
            let line = line.unwrap();
            let words: Vec<&str> = line.split_whitespace().collect();
            let answer = match words[..] {
                ["hello"] => String::new(),
                ["cable"] => {
                    sh("ip link set lo up; ip addr add 10.80.0.0/16 dev lo; ip -6 route add local fd80::/48 dev lo
                        ip addr add 192.0.2.2/24 dev u1; ip link set u1 up");
                    linux = Some(open(directory.path(), &[]).await);
                    String::new()
                }
                ["reach", rails] => {
                    let linux = linux.as_mut().unwrap();
                    let wanted = state(Side::Far, rails.parse().unwrap());
                    reach(linux, &wanted, &keys(Side::Far)).await;
                    String::new()
                }
                ["rekey", seed] => {
                    let linux = linux.as_mut().unwrap();
                    let mut wanted = state(Side::Far, 1);
                    let peers = &mut wanted.devices.get_mut(&name("tie0")).unwrap().peers;
                    let config = peers.remove(&public(11)).unwrap();
                    peers.insert(public(seed.parse().unwrap()), config);
                    reach(linux, &wanted, &keys(Side::Far)).await;
                    String::new()
                }
                ["endpoint", device] => {
                    let Observation { state, .. } =
                        linux.as_mut().unwrap().observe().await.unwrap();
                    let mut peers = state.devices[&name(device)].peers.values();
                    peers
                        .next()
                        .unwrap()
                        .endpoint
                        .map(|at| at.to_string())
                        .unwrap_or_default()
                }
                _ => panic!("{line}: no such word"),
            };
            println!("ok {answer}");
        }
    });
}
