#![allow(clippy::unwrap_used)]

use super::*;
use crate::fixture::{peer, plan, prefix};
use crypto_box::aead::OsRng;
use tieline_core::ids::{SegmentName, SiteName};
use tieline_core::network_plan::{Allow, PlanVpn};

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
    plan.vpns.push(PlanVpn {
        name: VpnName::new("hq").unwrap(),
        site: SiteName::new("berlin").unwrap(),
        segment: SegmentName::new("shop.berlin").unwrap(),
        index: 3,
        prefixes: vec![prefix("172.16.0.0/16")].into(),
        allow: Allow::default(),
        peer_public_key: PublicKey::from_bytes([77; 32]).unwrap(),
        endpoint: None,
        preshared_key: preshared.is_some(),
    });
    let secret = AttachmentSecret {
        private_key: BASE64_STANDARD.encode(private),
        preshared_key: preshared.map(|key| BASE64_STANDARD.encode(key)),
    };
    let recipient = crypto_box::PublicKey::from_bytes(*identity.sealing_public().as_bytes());
    let sealed = recipient
        .seal(&mut OsRng, &secret.to_json().unwrap())
        .unwrap();
    let mut own = peer("a", identity.public_keys());
    own.sealed.push(SealedSecret {
        vpn: VpnName::new("hq").unwrap(),
        version: "1".to_owned(),
        recipient: identity.sealing_public(),
        ciphertext: BASE64_STANDARD.encode(sealed),
    });
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
