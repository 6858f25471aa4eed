//! Policy rules.
//!
//! Ours carry one of our preferences, `protocol kernel` (systemd-networkd deletes rules of other protocols that it does
//! not know), and lead into one of our tables or, for marked packets and the CNI's own prefixes, into main. A rule that
//! differs in any other way is somebody else's.

use super::netlink::{Netlink, tolerate};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use std::collections::BTreeSet;
use std::io;
use std::ops::RangeInclusive;
use tieline_core::cidr::{Family, Prefix};
use tieline_core::host::{Rule, Selector, TABLE_GUARD, TABLE_INNER, TABLE_MAIN, TABLE_REMOTE};

/// Preferences that are ours.
const PREFERENCES: RangeInclusive<u32> = 101..=105;
/// No suppression, as the kernel prints it.
const NO_SUPPRESSION: u32 = u32::MAX;

/// Reads our rules of both families.
pub(super) async fn read(netlink: &Netlink) -> io::Result<BTreeSet<Rule>> {
    let mut rules = BTreeSet::new();
    for family in Family::BOTH {
        let mut request = RuleMessage::default();
        request.header.family = address_family(family);
        let found = netlink
            .dump(RouteNetlinkMessage::GetRule(request))
            .await
            .or_else(none_without_the_family)?;
        rules.extend(found.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRule(rule) => parse(&rule),
            _ => None,
        }));
    }
    Ok(rules)
}

/// A kernel without IPv6 holds nothing of it.
pub(super) fn none_without_the_family<T>(error: io::Error) -> io::Result<Vec<T>> {
    const ABSENT: [Errno; 2] = [Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP];
    if ABSENT
        .iter()
        .any(|code| error.raw_os_error() == Some(*code as i32))
    {
        Ok(Vec::new())
    } else {
        Err(error)
    }
}

/// Adds a rule; one that is there already is no error.
pub(super) async fn add(netlink: &Netlink, rule: &Rule) -> io::Result<()> {
    tolerate(
        netlink
            .request(
                RouteNetlinkMessage::NewRule(message(rule)),
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .await,
        &[Errno::EEXIST],
    )
}

/// Removes a rule; one that is gone already is no error.
pub(super) async fn remove(netlink: &Netlink, rule: &Rule) -> io::Result<()> {
    tolerate(
        netlink
            .request(RouteNetlinkMessage::DelRule(message(rule)), 0)
            .await,
        &[Errno::ENOENT, Errno::ESRCH],
    )
}

/// The address family of netlink messages.
pub(super) fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

fn message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(rule.family);
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(rule.preference),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Protocol(RouteProtocol::Kernel),
    ];
    match rule.selector {
        Selector::All => {}
        Selector::Mark { mark, mask } => message
            .attributes
            .extend([RuleAttribute::FwMark(mark), RuleAttribute::FwMask(mask)]),
        Selector::From(device) => message
            .attributes
            .push(RuleAttribute::Iifname(device.to_string())),
        Selector::To(prefix) => {
            message.header.dst_len = prefix.len();
            message
                .attributes
                .push(RuleAttribute::Destination(prefix.address()));
        }
    }
    if let Some(len) = rule.suppress_prefix_len {
        message
            .attributes
            .push(RuleAttribute::SuppressPrefixLen(len.into()));
    }
    message
}

fn parse(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let inverted = header.flags.contains(RuleFlags::Invert);
    if header.action != RuleAction::ToTable || header.src_len != 0 || header.tos != 0 || inverted {
        return None;
    }
    let (mut preference, mut table, mut protocol) = (0, u32::from(header.table), None);
    let (mut mark, mut mask, mut device, mut to, mut suppress) = (None, None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(value) => preference = *value,
            RuleAttribute::Table(value) => table = *value,
            RuleAttribute::Protocol(value) => protocol = Some(*value),
            RuleAttribute::FwMark(value) => mark = Some(*value),
            RuleAttribute::FwMask(value) => mask = Some(*value),
            RuleAttribute::Iifname(name) => device = Some(name.parse().ok()?),
            RuleAttribute::Destination(address) => {
                to = Some(Prefix::containing(*address, header.dst_len))
            }
            RuleAttribute::SuppressPrefixLen(NO_SUPPRESSION) => {}
            RuleAttribute::SuppressPrefixLen(value) => suppress = Some(u8::try_from(*value).ok()?),
            // Padding and "no group suppressed" say nothing; everything else makes it another rule than ours.
            RuleAttribute::SuppressIfGroup(u32::MAX) | RuleAttribute::Other(_) => {}
            _ => return None,
        }
    }
    let family = match header.family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    let selector = match (mark.zip(mask), device, to) {
        (None, None, None) => Selector::All,
        (Some((mark, mask)), None, None) => Selector::Mark { mark, mask },
        (None, Some(device), None) => Selector::From(device),
        (None, None, Some(prefix)) => Selector::To(prefix),
        _ => return None,
    };
    let rule = Rule {
        preference,
        family,
        selector,
        table,
        suppress_prefix_len: suppress,
    };
    (protocol == Some(RouteProtocol::Kernel) && is_ours(&rule)).then_some(rule)
}

fn is_ours(rule: &Rule) -> bool {
    let ours = [TABLE_REMOTE, TABLE_GUARD, TABLE_INNER].contains(&rule.table);
    let through_main = rule.table == TABLE_MAIN
        && match rule.selector {
            Selector::Mark { .. } => true,
            Selector::To(_) => rule.suppress_prefix_len.is_some(),
            Selector::All | Selector::From(_) => false,
        };
    PREFERENCES.contains(&rule.preference) && (ours || through_main)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rules() -> Vec<Rule> {
        let rule = |preference, selector, table, suppress_prefix_len| Rule {
            preference,
            family: Family::V4,
            selector,
            table,
            suppress_prefix_len,
        };
        vec![
            rule(
                101,
                Selector::Mark {
                    mark: 0x1000,
                    mask: 0x1000,
                },
                TABLE_MAIN,
                None,
            ),
            rule(
                102,
                Selector::From("tie0".parse().unwrap()),
                TABLE_INNER,
                None,
            ),
            rule(103, Selector::All, TABLE_REMOTE, None),
            rule(
                104,
                Selector::To("10.64.0.0/16".parse().unwrap()),
                TABLE_MAIN,
                Some(16),
            ),
            rule(105, Selector::All, TABLE_GUARD, None),
        ]
    }

    #[test]
    fn a_rule_survives_its_message() {
        for rule in rules() {
            assert_eq!(parse(&message(&rule)), Some(rule));
        }
    }

    #[test]
    fn rules_of_others_are_not_ours() {
        let [mark, from, all, ..] = &rules()[..] else {
            unreachable!()
        };
        let mut other_protocol = message(all);
        other_protocol
            .attributes
            .retain(|attribute| !matches!(attribute, RuleAttribute::Protocol(_)));
        let mut narrower = message(all);
        narrower
            .attributes
            .push(RuleAttribute::Oifname("eth0".into()));
        let mut inverted = message(all);
        inverted.header.flags = RuleFlags::Invert;
        let mut elsewhere = message(from);
        elsewhere.attributes[0] = RuleAttribute::Priority(1000);
        let mut other_table = message(mark);
        other_table.attributes[1] = RuleAttribute::Table(52);
        for foreign in [other_protocol, narrower, inverted, elsewhere, other_table] {
            assert_eq!(parse(&foreign), None, "{foreign:?}");
        }
    }
}
