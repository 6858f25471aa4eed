//! Names, indexes and ports of WireGuard devices.
//!
//! Device index i = 16·(epoch mod 2) + 4·lane + rank. Ports: `tie<i>` P+i; `tiei<i>` P+32+i; `tiev<j>` P+64+j.

use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// Role of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceKind {
    /// `tie<i>`: to gateways of other segments.
    Outer,
    /// `tiei<i>`: between a segment's nodes and its gateways.
    Inner,
    /// `tiev<j>`: to a foreign VPN.
    Vpn,
}

/// A WireGuard device of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceName {
    /// Role.
    pub kind: DeviceKind,
    /// Index, 0 to 31 (outer, inner) or 0 to 15 (VPN).
    pub index: u8,
}

/// A text that is no device name of ours.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{0:?} is no Tieline device: expected tie<i>, tiei<i> (i below 32) or tiev<j> (j below 16)"
)]
pub struct DeviceNameError(pub String);

impl DeviceName {
    /// Outer device of a rank, in lane 0 and epoch 0.
    #[must_use]
    pub fn outer(rank: u8) -> Self {
        Self {
            kind: DeviceKind::Outer,
            index: index(0, 0, rank),
        }
    }

    /// Inner device of a rank, in lane 0 and epoch 0.
    #[must_use]
    pub fn inner(rank: u8) -> Self {
        Self {
            kind: DeviceKind::Inner,
            index: index(0, 0, rank),
        }
    }

    /// VPN device of an attachment's index.
    #[must_use]
    pub fn vpn(index: u8) -> Self {
        Self {
            kind: DeviceKind::Vpn,
            index,
        }
    }

    /// The rank that the index holds (outer and inner devices).
    #[must_use]
    pub fn rank(self) -> u8 {
        self.index % 4
    }

    /// Whether it leads to a foreign VPN.
    #[must_use]
    pub fn is_vpn(self) -> bool {
        self.kind == DeviceKind::Vpn
    }

    /// UDP port, counted from the first port P.
    #[must_use]
    pub fn port(self, first: u16) -> u16 {
        let offset = match self.kind {
            DeviceKind::Outer => 0,
            DeviceKind::Inner => 32,
            DeviceKind::Vpn => 64,
        };
        first + offset + u16::from(self.index)
    }
}

/// Device index of an epoch, a lane (0 to 3) and a rank (0 to 3).
#[must_use]
pub fn index(epoch: u64, lane: u8, rank: u8) -> u8 {
    u8::from(epoch % 2 == 1) * 16 + 4 * (lane % 4) + rank % 4
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stem = match self.kind {
            DeviceKind::Outer => "tie",
            DeviceKind::Inner => "tiei",
            DeviceKind::Vpn => "tiev",
        };
        f.pad(&format!("{stem}{}", self.index))
    }
}

impl std::str::FromStr for DeviceName {
    type Err = DeviceNameError;
    fn from_str(text: &str) -> Result<Self, DeviceNameError> {
        let error = || DeviceNameError(text.to_owned());
        let rest = text.strip_prefix("tie").ok_or_else(error)?;
        let (kind, digits, limit) = match rest.as_bytes().first() {
            Some(b'i') => (DeviceKind::Inner, &rest[1..], 32),
            Some(b'v') => (DeviceKind::Vpn, &rest[1..], 16),
            _ => (DeviceKind::Outer, rest, 32),
        };
        let index: u8 = digits.parse().map_err(|_| error())?;
        let name = Self { kind, index };
        // Only the canonical spelling: `tie07` and `tie+7` are not ours.
        if index < limit && name.to_string() == text {
            Ok(name)
        } else {
            Err(error())
        }
    }
}

impl TryFrom<String> for DeviceName {
    type Error = DeviceNameError;
    fn try_from(text: String) -> Result<Self, DeviceNameError> {
        text.parse()
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> String {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_and_ports_follow_the_index_formula() {
        assert_eq!(DeviceName::outer(1).to_string(), "tie1");
        assert_eq!(DeviceName::outer(1).port(21820), 21821);
        assert_eq!(DeviceName::inner(0).port(21820), 21852);
        assert_eq!(DeviceName::vpn(2).port(21820), 21886);
        assert_eq!(index(3, 2, 1), 16 + 8 + 1);
    }

    #[test]
    fn only_our_own_spelling_is_a_device_of_ours() {
        for name in ["tie0", "tie31", "tiei5", "tiev15"] {
            assert_eq!(name.parse::<DeviceName>().unwrap().to_string(), name);
        }
        for foreign in [
            "tie", "tie32", "tie07", "tie+1", "tiev16", "tiex0", "wg0", "tieline",
        ] {
            assert!(foreign.parse::<DeviceName>().is_err(), "{foreign}");
        }
    }
}
