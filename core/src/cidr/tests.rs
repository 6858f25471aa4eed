#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn set(texts: &[&str]) -> PrefixSet {
    texts.iter().map(|t| p(t)).collect()
}

#[test]
fn host_bits_are_refused_with_the_prefix_that_is_meant() {
    let error = "10.64.0.1/16".parse::<Prefix>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"10.64.0.1/16\" has host bits set: write 10.64.0.0/16"
    );
    assert!("10.64.0.0".parse::<Prefix>().is_err());
}

#[test]
fn a_set_is_minimal() {
    assert_eq!(
        set(&["10.0.0.0/25", "10.0.0.128/25", "10.0.0.7/32"]).to_string(),
        "10.0.0.0/24"
    );
    assert_eq!(
        set(&["fd00::/65", "fd00:0:0:0:8000::/65"]).to_string(),
        "fd00::/64"
    );
    assert_eq!(
        set(&["10.0.1.0/24", "10.0.2.0/24"]).to_string(),
        "10.0.1.0/24,10.0.2.0/24"
    );
}

#[test]
fn a_hole_splits_its_member() {
    let mut s = set(&["10.0.0.0/24", "fd00::/64"]);
    s.remove(p("10.0.0.64/26"));
    assert_eq!(s.to_string(), "10.0.0.0/26,10.0.0.128/25,fd00::/64");
    assert!(!s.contains_address("10.0.0.65".parse().unwrap()));
}

#[test]
fn offsets_stop_at_the_end() {
    assert_eq!(p("10.0.0.0/30").nth(3).unwrap().to_string(), "10.0.0.3");
    assert_eq!(p("10.0.0.0/30").nth(4), None);
    assert_eq!(p("::/0").nth(5).unwrap().to_string(), "::5");
}

fn any_prefix() -> impl Strategy<Value = Prefix> {
    prop_oneof![
        (any::<u8>(), 24u8..=32)
            .prop_map(|(low, len)| Prefix::containing(Ipv4Addr::new(10, 0, 0, low).into(), len)),
        (any::<u8>(), 120u8..=128).prop_map(|(low, len)| Prefix::containing(
            from_bits(Family::V6, (0xfd << 120) | u128::from(low)),
            len
        )),
    ]
}

proptest! {
    #[test]
    fn a_set_holds_exactly_what_was_put_in(members in prop::collection::vec(any_prefix(), 0..12), out in prop::collection::vec(any_prefix(), 0..4)) {
        let mut s: PrefixSet = members.iter().copied().collect();
        for hole in &out { s.remove(*hole); }
        for low in 0..=255u8 {
            for address in [IpAddr::V4(Ipv4Addr::new(10, 0, 0, low)), from_bits(Family::V6, (0xfd << 120) | u128::from(low))] {
                let expected = members.iter().any(|m| m.contains_address(address)) && !out.iter().any(|m| m.contains_address(address));
                prop_assert_eq!(s.contains_address(address), expected);
            }
        }
    }

    #[test]
    fn overlap_is_found_exactly_where_addresses_are_shared(members in prop::collection::vec(any_prefix(), 0..12), probe in any_prefix()) {
        let s: PrefixSet = members.iter().copied().collect();
        prop_assert_eq!(s.overlapping(probe).is_some(), members.iter().any(|m| m.overlaps(probe)));
    }
}
