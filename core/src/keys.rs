//! Public keys. Private keys never enter this crate.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// Why a text is no usable public key. A retry with the same text cannot help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not the base64 form of 32 bytes.
    #[error("not a WireGuard public key: write the 44 characters that `wg pubkey` prints")]
    Syntax,
    /// A point of small order: every Diffie-Hellman with it gives a value that anyone can know (RFC 7748, section 6.1).
    #[error(
        "a low-order key (it would make every shared secret public): make a new one with `wg genkey | wg pubkey`"
    )]
    LowOrder,
}

/// A Curve25519 public key (RFC 7748) of a WireGuard device or of a sealing key; never of low order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

/// The u-coordinates of small order on Curve25519 and its twist, in canonical form: 0, 1, p-1, and the two of order 8.
/// Non-canonical encodings of them (p, p+1) are listed too. Source: RFC 7748 section 6.1 and the curve's definition.
const LOW_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    [
        1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0,
    ],
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
    P_PLUS[0],
    P_PLUS[1],
    P_PLUS[2],
];

/// p-1, p and p+1 for p = 2^255 - 19, little-endian.
const P_PLUS: [[u8; 32]; 3] = [near_p(0xec), near_p(0xed), near_p(0xee)];

const fn near_p(low: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = low;
    bytes[31] = 0x7f;
    bytes
}

impl PublicKey {
    /// Checks and takes a key's bytes.
    ///
    /// # Errors
    /// [`KeyError::LowOrder`] for a point of small order.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        let mut masked = bytes;
        masked[31] &= 0x7f; // X25519 ignores the top bit
        if LOW_ORDER.contains(&masked) {
            Err(KeyError::LowOrder)
        } else {
            Ok(Self(bytes))
        }
    }

    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::str::FromStr for PublicKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| KeyError::Syntax)?;
        Self::from_bytes(bytes.try_into().map_err(|_| KeyError::Syntax)?)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;
    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn low_order_points_are_refused_also_with_the_ignored_top_bit_set() {
        for mut bytes in LOW_ORDER {
            assert_eq!(PublicKey::from_bytes(bytes), Err(KeyError::LowOrder));
            bytes[31] |= 0x80;
            assert_eq!(PublicKey::from_bytes(bytes), Err(KeyError::LowOrder));
        }
        assert!(PublicKey::from_bytes([9; 32]).is_ok());
    }

    #[test]
    fn a_key_survives_its_text_form() {
        let key = PublicKey::from_bytes([7; 32]).unwrap();
        assert_eq!(key.to_string().parse::<PublicKey>().unwrap(), key);
        assert_eq!("short".parse::<PublicKey>(), Err(KeyError::Syntax));
    }
}
