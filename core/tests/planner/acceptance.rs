//! Claims of agents, and what becomes accepted.

use crate::support::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use tieline_core::claims::{Accepted, accept};
use tieline_core::host::DeviceName;
use tieline_core::ids::PeerName;
use tieline_core::keys::PublicKey;
use tieline_core::peer::{AcceptedPeers, Claim, Endpoint, Scope, SealedSecret};
use tieline_core::plan::Proposal;

type Claims = BTreeMap<PeerName, Claim>;

fn peer(text: &str) -> PeerName {
    PeerName::new(text).unwrap()
}

fn key(seed: u8) -> PublicKey {
    PublicKey::from_bytes([seed; 32]).unwrap()
}

fn claim(keys: &[(DeviceName, u8)], endpoints: &[&str]) -> Claim {
    Claim {
        keys: keys
            .iter()
            .map(|(device, seed)| (*device, key(*seed)))
            .collect(),
        endpoints: endpoints
            .iter()
            .map(|text| Endpoint::parse(text, Scope::Site).unwrap())
            .collect(),
        ..Claim::default()
    }
}

fn claims(all: &[(&str, Claim)]) -> Claims {
    all.iter()
        .map(|(name, claim)| (peer(name), claim.clone()))
        .collect()
}

/// Nodes shop.a and shop.b in one site with a LAN, and a VPN.
fn world() -> World {
    let mut world = World::new();
    world.link("acme", &["10.64.0.0/10"]);
    world.cluster("acme", "shop", true).service_cidrs = prefixes(&["172.20.0.0/16"]).into();
    for node in ["a", "b"] {
        world.node("shop", node, "berlin", &[]);
    }
    world.lan("acme", "berlin", &["192.168.40.0/22"]);
    world.vpn("acme", "hq", "berlin", &["172.16.0.0/16"]);
    world
}

fn endpoints(accepted: &Accepted, name: &str) -> Vec<String> {
    accepted.peers[&peer(name)]
        .endpoints
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn reasons(accepted: &Accepted, name: &str) -> Vec<String> {
    let refused = accepted.refused.get(&peer(name));
    refused
        .into_iter()
        .flatten()
        .map(|refusal| refusal.reason.to_string())
        .collect()
}

fn first(proposal: &Proposal) -> AcceptedPeers {
    let all = claims(&[
        (
            "shop.a",
            claim(
                &[(DeviceName::outer(0), 10), (DeviceName::inner(0), 11)],
                &["192.168.40.10"],
            ),
        ),
        ("shop.b", claim(&[(DeviceName::inner(0), 20)], &[])),
    ]);
    let accepted = accept(proposal, &AcceptedPeers::new(), &all);
    assert!(accepted.refused.is_empty(), "{:?}", accepted.refused);
    accepted.peers
}

#[test]
fn every_planned_node_becomes_a_peer_with_or_without_a_claim() {
    let mut world = world();
    let proposal = world.go();
    let accepted = accept(&proposal, &AcceptedPeers::new(), &Claims::new());
    assert_eq!(accepted.peers.len(), 2);
    let a = &accepted.peers[&peer("shop.a")];
    assert_eq!(
        (a.gateway_rank, a.segment.as_str(), a.plan_revision),
        (Some(0), "shop.berlin", 1)
    );
    assert!(a.keys.is_empty() && a.endpoints.is_empty());
}

#[test]
fn a_key_that_somebody_has_stays_his_and_the_old_one_of_the_thief_stays_too() {
    let mut world = world();
    let proposal = world.go();
    let before = first(&proposal);
    let stolen = claims(&[("shop.b", claim(&[(DeviceName::inner(0), 10)], &[]))]);
    let accepted = accept(&proposal, &before, &stolen);
    assert_eq!(reasons(&accepted, "shop.b"), ["DuplicateKey"]);
    assert_eq!(accepted.peers, before);
    let own = claims(&[(
        "shop.a",
        claim(
            &[(DeviceName::outer(0), 10), (DeviceName::inner(0), 10)],
            &["192.168.40.10"],
        ),
    )]);
    assert_eq!(
        reasons(&accept(&proposal, &before, &own), "shop.a"),
        ["DuplicateKey"]
    );
}

#[test]
fn among_new_claims_of_one_key_the_first_name_has_it() {
    let mut world = world();
    let proposal = world.go();
    let both = claims(&[
        ("shop.b", claim(&[(DeviceName::inner(0), 7)], &[])),
        ("shop.a", claim(&[(DeviceName::inner(0), 7)], &[])),
    ]);
    let accepted = accept(&proposal, &AcceptedPeers::new(), &both);
    assert_eq!(
        (
            reasons(&accepted, "shop.a").len(),
            reasons(&accepted, "shop.b")
        ),
        (0, vec!["DuplicateKey".to_owned()])
    );
    assert!(accepted.peers[&peer("shop.b")].keys.is_empty());
}

#[test]
fn the_key_of_a_node_that_is_gone_is_free() {
    let mut world = world();
    let before = first(&world.go());
    world.remove_node("shop", "a");
    let proposal = world.go();
    let accepted = accept(
        &proposal,
        &before,
        &claims(&[("shop.b", claim(&[(DeviceName::inner(0), 10)], &[]))]),
    );
    assert!(accepted.refused.is_empty());
    assert_eq!(
        accepted.peers[&peer("shop.b")].keys[&DeviceName::inner(0)],
        key(10)
    );
    assert_eq!(accepted.peers.len(), 1);
}

#[test]
fn the_shared_key_of_a_vpn_is_nobodys_to_claim() {
    let mut world = world();
    let proposal = world.go();
    let shared = claim(&[(DeviceName::vpn(0), 5)], &[]);
    let accepted = accept(
        &proposal,
        &AcceptedPeers::new(),
        &claims(&[("shop.a", shared.clone()), ("shop.b", shared)]),
    );
    assert!(
        accepted.refused.is_empty() && accepted.peers.values().all(|peer| peer.keys.is_empty())
    );
}

#[test]
fn endpoints_inside_planned_ranges_are_refused_and_those_in_the_sites_network_are_normal() {
    let mut world = world();
    let proposal = world.go();
    for planned in [
        "10.64.0.9",
        "172.20.0.1",
        "100.127.0.1",
        "172.16.3.4",
        "::ffff:10.64.0.9",
    ] {
        let accepted = accept(
            &proposal,
            &AcceptedPeers::new(),
            &claims(&[("shop.a", claim(&[], &[planned]))]),
        );
        assert_eq!(
            reasons(&accepted, "shop.a"),
            ["EndpointInPlannedRange"],
            "{planned}"
        );
        assert!(endpoints(&accepted, "shop.a").is_empty());
    }
    let good = claims(&[(
        "shop.a",
        claim(&[], &["192.168.40.10", "203.0.113.7:21820", "gw.example"]),
    )]);
    let accepted = accept(&proposal, &AcceptedPeers::new(), &good);
    assert_eq!(
        endpoints(&accepted, "shop.a"),
        ["192.168.40.10", "203.0.113.7:21820", "gw.example"]
    );
}

#[test]
fn endpoints_that_nobody_else_can_reach_are_refused_and_what_was_accepted_stays() {
    let mut world = world();
    let proposal = world.go();
    let before = first(&proposal);
    for useless in [
        "127.0.0.1",
        "::1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "169.254.7.7",
        "fe80::1",
        "198.51.100.1:0",
    ] {
        let accepted = accept(
            &proposal,
            &before,
            &claims(&[("shop.a", claim(&[], &[useless]))]),
        );
        assert_eq!(
            reasons(&accepted, "shop.a"),
            ["UnusableEndpoint"],
            "{useless}"
        );
        assert_eq!(
            endpoints(&accepted, "shop.a"),
            ["192.168.40.10"],
            "{useless}"
        );
    }
}

#[test]
fn too_many_keys_or_endpoints_are_refused_whole() {
    let mut world = world();
    let proposal = world.go();
    let before = first(&proposal);
    let many: Vec<String> = (1..=17).map(|last| format!("203.0.113.{last}")).collect();
    let mut flood = claim(&[], &many.iter().map(String::as_str).collect::<Vec<_>>());
    let names = (0..32u8).flat_map(|index| ["tie", "tiei"].map(|kind| format!("{kind}{index}")));
    for (seed, name) in names.chain(["tiev0".to_owned()]).enumerate() {
        flood.keys.insert(
            name.parse().unwrap(),
            key(u8::try_from(seed).unwrap() + 100),
        );
    }
    let accepted = accept(&proposal, &before, &claims(&[("shop.a", flood)]));
    assert_eq!(
        reasons(&accepted, "shop.a"),
        ["TooManyEndpoints", "TooManyKeys"]
    );
    assert_eq!(accepted.peers, before);
}

#[test]
fn addresses_of_the_node_object_are_endpoints_with_their_scope() {
    let mut world = world();
    world.address("shop", "a", "192.168.40.10", Scope::Site);
    world.address("shop", "a", "203.0.113.1", Scope::Public);
    let accepted = accept(&world.go(), &AcceptedPeers::new(), &Claims::new());
    let scopes: Vec<_> = accepted.peers[&peer("shop.a")]
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.to_string(), endpoint.scope))
        .collect();
    assert_eq!(
        scopes,
        [
            ("192.168.40.10".to_owned(), Scope::Site),
            ("203.0.113.1".to_owned(), Scope::Public)
        ]
    );
}

#[test]
fn what_a_host_merely_holds_comes_after_what_its_node_object_says() {
    let mut world = world();
    world.address("shop", "a", "192.168.40.10", Scope::Site);
    let proposal = world.go();
    // 192.168.40.2 is a virtual address that wanders from node to node; what was configured is claimed first.
    let all = claims(&[(
        "shop.a",
        claim(
            &[],
            &["gw.example", "192.168.40.2", "192.168.40.10", "gw.example"],
        ),
    )]);
    let expected = ["192.168.40.10", "gw.example", "192.168.40.2"];
    let accepted = accept(&proposal, &AcceptedPeers::new(), &all);
    assert_eq!(endpoints(&accepted, "shop.a"), expected);
    // An agent that is silent changes nothing.
    let silent = accept(&proposal, &accepted.peers, &Claims::new());
    assert_eq!(endpoints(&silent, "shop.a"), expected);
}

#[test]
fn a_peer_changes_only_when_something_in_it_changes_and_keeps_its_secrets() {
    let mut world = world();
    let mut before = first(&world.go());
    let secret = SealedSecret {
        vpn: vpn_name("hq"),
        version: "1".to_owned(),
        recipient: key(42),
        ciphertext: "…".to_owned(),
    };
    let holder = Arc::make_mut(before.get_mut(&peer("shop.a")).unwrap());
    holder.sealed.push(secret);
    // The plan changes, the peers do not.
    world.node("shop", "c", "oslo", &[]);
    let proposal = world.go();
    assert_eq!(proposal.plan_of("acme").revision, 2);
    let accepted = accept(&proposal, &before, &Claims::new());
    assert_eq!(accepted.peers[&peer("shop.a")], before[&peer("shop.a")]);
    assert_eq!(accepted.peers[&peer("shop.c")].plan_revision, 2);
    // A silent agent loses nothing; one that speaks again is heard.
    let again = accept(
        &proposal,
        &accepted.peers,
        &claims(&[("shop.b", claim(&[(DeviceName::inner(0), 21)], &[]))]),
    );
    let b = &again.peers[&peer("shop.b")];
    assert_eq!(
        (b.keys[&DeviceName::inner(0)], b.plan_revision),
        (key(21), 2)
    );
}
