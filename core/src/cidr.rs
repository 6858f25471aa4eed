//! Prefixes and sets of prefixes, IPv4 and IPv6 alike.
//!
//! A [`Prefix`] is always canonical (no host bits). A [`PrefixSet`] is always minimal: no member contains another and
//! no two siblings stand where their parent would do, so equal sets of addresses are equal values.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use thiserror::Error;

/// Why a text is no prefix. A retry with the same text cannot help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PrefixError {
    /// Not `address/length`.
    #[error(
        "{0:?} is no CIDR: write an address and a prefix length, like 10.64.0.0/16 or fd00:64::/48"
    )]
    Syntax(String),
    /// Bits are set behind the prefix length.
    #[error("{text:?} has host bits set: write {canonical}")]
    HostBits {
        /// What was written.
        text: String,
        /// The prefix that it probably means.
        canonical: IpNet,
    },
}

/// Address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Prefix length of a single address: 32 or 128.
    #[must_use]
    pub fn host_len(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// Family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A canonical CIDR: an address without host bits, and a prefix length in bits.
///
/// Ordered by family, address and length, which is the order of a sorted routing table. Held as numbers: planning 100,000 nodes
/// compares prefixes some million times.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    family: Family,
    /// The first address as a number, in network order; an IPv4 address in the last four bytes.
    first: [u8; 16],
    len: u8,
}

impl Prefix {
    /// The prefix that contains `address`, `len` bits long; longer lengths are cut to the family's.
    #[must_use]
    pub fn containing(address: IpAddr, len: u8) -> Self {
        Self::cut(Family::of(address), to_bits(address), len)
    }

    /// The prefix of one address: /32 or /128.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        let family = Family::of(address);
        Self::cut(family, to_bits(address), family.host_len())
    }

    /// Everything in one family: 0.0.0.0/0 or ::/0.
    #[must_use]
    pub fn everything(family: Family) -> Self {
        Self::cut(family, 0, 0)
    }

    /// The prefix of a length that contains the address of a number.
    #[must_use]
    pub fn cut(family: Family, bits: u128, len: u8) -> Self {
        let len = len.min(family.host_len());
        Self {
            family,
            first: (bits & !host_mask(family, len)).to_be_bytes(),
            len,
        }
    }

    /// First address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        from_bits(self.family, self.first_bits())
    }

    /// Prefix length in bits. (A prefix is never empty, hence no `is_empty`.)
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> u8 {
        self.len
    }

    /// Family.
    #[must_use]
    pub fn family(self) -> Family {
        self.family
    }

    /// Whether `other` lies inside (or is equal).
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.family == other.family
            && self.len <= other.len
            && (self.first_bits() ^ other.first_bits()) & !host_mask(self.family, self.len) == 0
    }

    /// Whether the address lies inside.
    #[must_use]
    pub fn contains_address(self, address: IpAddr) -> bool {
        self.family == Family::of(address)
            && (self.first_bits() ^ to_bits(address)) & !host_mask(self.family, self.len) == 0
    }

    /// Whether the two share an address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other) || other.contains(self)
    }

    /// The address at an offset from the first one; `None` behind the end.
    #[must_use]
    pub fn nth(self, offset: u128) -> Option<IpAddr> {
        (offset <= host_mask(self.family, self.len))
            .then(|| from_bits(self.family, self.first_bits() + offset))
    }

    /// First address as a number.
    #[must_use]
    pub fn first_bits(self) -> u128 {
        u128::from_be_bytes(self.first)
    }

    /// Last address as a number.
    #[must_use]
    pub fn last_bits(self) -> u128 {
        self.first_bits() | host_mask(self.family, self.len)
    }

    /// The two halves; `None` for a single address.
    #[must_use]
    pub fn halves(self) -> Option<[Self; 2]> {
        if self.len == self.family.host_len() {
            return None;
        }
        let len = self.len + 1;
        Some([self.first_bits(), self.last_bits()].map(|bits| Self::cut(self.family, bits, len)))
    }

    /// The prefix one bit shorter; `None` for a whole family.
    #[must_use]
    pub fn parent(self) -> Option<Self> {
        let len = self.len.checked_sub(1)?;
        Some(Self::cut(self.family, self.first_bits(), len))
    }

    /// As the field's usual library has it.
    #[must_use]
    pub fn net(self) -> IpNet {
        let address = self.address();
        IpNet::new(address, self.len).unwrap_or_else(|_| IpNet::from(address))
    }
}

impl From<IpNet> for Prefix {
    /// Host bits are cut off.
    fn from(net: IpNet) -> Self {
        Self::containing(net.addr(), net.prefix_len())
    }
}

/// The bits behind a prefix length.
fn host_mask(family: Family, len: u8) -> u128 {
    match family.host_len() - len {
        128 => u128::MAX,
        bits => (1 << bits) - 1,
    }
}

/// An address as a number, IPv4 in the low 32 bits.
#[must_use]
pub fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

/// The address of a number; bits above the family's length are cut.
#[must_use]
#[allow(clippy::cast_possible_truncation)]
pub fn from_bits(family: Family, bits: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(bits as u32)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(bits)),
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.net().to_string())
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.net())
    }
}

impl std::str::FromStr for Prefix {
    type Err = PrefixError;
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let net: IpNet = text
            .parse()
            .map_err(|_| PrefixError::Syntax(text.to_owned()))?;
        if net.trunc() != net {
            return Err(PrefixError::HostBits {
                text: text.to_owned(),
                canonical: net.trunc(),
            });
        }
        Ok(net.into())
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;
    fn try_from(text: String) -> Result<Self, PrefixError> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> String {
        prefix.to_string()
    }
}

/// A set of addresses as its minimal sorted list of prefixes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Prefix>", into = "Vec<Prefix>")]
pub struct PrefixSet(Vec<Prefix>);

impl PrefixSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether no address is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Members in order.
    pub fn iter(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.0.iter().copied()
    }

    /// Members of one family in order.
    pub fn of(&self, family: Family) -> impl Iterator<Item = Prefix> + '_ {
        self.iter().filter(move |prefix| prefix.family() == family)
    }

    /// Whether every address of the prefix is in the set.
    #[must_use]
    pub fn contains(&self, prefix: Prefix) -> bool {
        self.candidate(prefix)
            .is_some_and(|member| member.contains(prefix))
    }

    /// Whether the address is in the set.
    #[must_use]
    pub fn contains_address(&self, address: IpAddr) -> bool {
        self.contains(Prefix::host(address))
    }

    /// A member that shares an address with the prefix, if there is one.
    #[must_use]
    pub fn overlapping(&self, prefix: Prefix) -> Option<Prefix> {
        if let Some(member) = self
            .candidate(prefix)
            .filter(|member| member.overlaps(prefix))
        {
            return Some(member);
        }
        let next = self.0.partition_point(|member| *member < prefix);
        self.0
            .get(next)
            .copied()
            .filter(|member| prefix.contains(*member))
    }

    /// Adds the addresses of a prefix.
    pub fn insert(&mut self, prefix: Prefix) {
        if !self.contains(prefix) {
            self.0.push(prefix);
            self.normalise();
        }
    }

    /// Takes the addresses of a prefix out.
    pub fn remove(&mut self, prefix: Prefix) {
        let mut rest = Vec::with_capacity(self.0.len());
        for &member in &self.0 {
            subtract(member, prefix, &mut rest);
        }
        self.0 = rest;
        self.normalise();
    }

    /// This set without the addresses of the other.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        for prefix in other.iter() {
            rest.remove(prefix);
        }
        rest
    }

    /// Both sets' addresses.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.iter().chain(other.iter()).collect()
    }

    /// The last member that begins at or before the prefix: the only one that can contain it.
    fn candidate(&self, prefix: Prefix) -> Option<Prefix> {
        let after = self.0.partition_point(|member| {
            (member.family(), member.first_bits()) <= (prefix.family(), prefix.first_bits())
        });
        after.checked_sub(1).map(|at| self.0[at])
    }

    fn normalise(&mut self) {
        self.0.sort_unstable();
        let mut minimal: Vec<Prefix> = Vec::with_capacity(self.0.len());
        for &prefix in &self.0 {
            if minimal.last().is_some_and(|last| last.contains(prefix)) {
                continue;
            }
            minimal.push(prefix);
            while let [.., left, right] = minimal[..] {
                match right.parent() {
                    Some(parent)
                        if left.len() == right.len() && left != right && parent.contains(left) =>
                    {
                        minimal.truncate(minimal.len() - 2);
                        minimal.push(parent);
                    }
                    _ => break,
                }
            }
        }
        self.0 = minimal;
    }
}

fn subtract(member: Prefix, hole: Prefix, rest: &mut Vec<Prefix>) {
    if !member.overlaps(hole) {
        rest.push(member);
    } else if !hole.contains(member)
        && let Some(halves) = member.halves()
    {
        for half in halves {
            subtract(half, hole, rest);
        }
    }
}

impl FromIterator<Prefix> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = Prefix>>(prefixes: I) -> Self {
        let mut set = Self(prefixes.into_iter().collect());
        set.normalise();
        set
    }
}

impl From<Vec<Prefix>> for PrefixSet {
    fn from(prefixes: Vec<Prefix>) -> Self {
        prefixes.into_iter().collect()
    }
}

impl From<PrefixSet> for Vec<Prefix> {
    fn from(set: PrefixSet) -> Self {
        set.0
    }
}

impl fmt::Debug for PrefixSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

impl fmt::Display for PrefixSet {
    /// Comma-separated, `-` when empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.pad(&texts.join(","))
    }
}

#[cfg(test)]
mod tests;
