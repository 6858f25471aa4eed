#![allow(clippy::unwrap_used)]

use super::*;
use crate::fixture::{attachment, peer, plan, sealed};

struct Case {
    _dir: tempfile::TempDir,
    identity: Identity,
    plan: NetworkPlan,
    own: AcceptedPeer,
}

fn case(private: [u8; 32], preshared: Option<[u8; 32]>) -> Case {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::load_or_create(dir.path()).unwrap();
    let mut plan = plan(1);
    plan.vpns.push(attachment(preshared.is_some()));
    let mut own = peer("a", identity.public_keys());
    own.sealed.push(sealed(&identity, private, preshared));
    Case {
        _dir: dir,
        identity,
        plan,
        own,
    }
}

#[test]
fn a_secret_sealed_to_this_node_gives_the_attachments_device_its_keys() {
    let case = case([5; 32], Some([6; 32]));
    let opened = open(&case.plan, Some(&case.own), &case.identity);
    let device = DeviceName::vpn(3);
    assert_eq!(opened.problems, BTreeMap::new());
    assert_eq!(opened.secrets.private_keys.get(&device), Some(&[5; 32]));
    assert_eq!(
        opened.secrets.preshared_keys.values().collect::<Vec<_>>(),
        [&[6; 32]]
    );
    let public = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from([5; 32]));
    assert_eq!(
        opened.public_keys.get(&device).map(PublicKey::as_bytes),
        Some(public.as_bytes())
    );
    // The node's own device keys are there too.
    assert_eq!(opened.secrets.private_keys.len(), 9);
}

#[test]
fn a_secret_sealed_to_another_key_is_reported_and_the_rest_goes_on() {
    let mut case = case([5; 32], None);
    case.own.sealed[0].recipient = PublicKey::from_bytes([9; 32]).unwrap();
    let opened = open(&case.plan, Some(&case.own), &case.identity);
    let problem = opened.problems.values().next().unwrap();
    assert!(problem.contains("seals it again"), "{problem}");
    assert_eq!(opened.secrets.private_keys.len(), 8);
    assert!(opened.public_keys.is_empty());
}

#[test]
fn a_damaged_box_is_reported_without_its_contents() {
    let mut case = case([5; 32], None);
    let mut bytes = BASE64_STANDARD
        .decode(&case.own.sealed[0].ciphertext)
        .unwrap();
    bytes[60] ^= 1;
    case.own.sealed[0].ciphertext = BASE64_STANDARD.encode(bytes);
    let opened = open(&case.plan, Some(&case.own), &case.identity);
    assert!(opened.problems.values().next().unwrap().contains("damaged"));
}

#[test]
fn a_secret_for_an_attachment_that_the_plan_lacks_is_left_alone() {
    let mut case = case([5; 32], None);
    case.plan.vpns.clear();
    let opened = open(&case.plan, Some(&case.own), &case.identity);
    assert!(opened.problems.is_empty());
    assert!(opened.public_keys.is_empty());
}
