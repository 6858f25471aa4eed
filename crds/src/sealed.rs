//! What a sealed secret holds once it is opened: the one place that both ends, operator and agent, read it from.
//!
//! The operator writes [`AttachmentSecret::to_json`], seals it (libsodium sealed box) to a node's sealing key and puts
//! the box into `Peer.spec.sealedSecrets[].ciphertext`; that node's agent opens it. It is never stored unsealed.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Keys of a VPN attachment.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentSecret {
    /// The attachment's WireGuard private key, 32 bytes in base64.
    pub private_key: String,
    /// Pre-shared key with the foreign box, 32 bytes in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preshared_key: Option<String>,
}

impl AttachmentSecret {
    /// The bytes to seal.
    ///
    /// # Errors
    /// None in practice: the value is two texts.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Reads what was sealed.
    ///
    /// # Errors
    /// When the bytes are not such a value. The error may quote them: do not print it.
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

impl fmt::Debug for AttachmentSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AttachmentSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_survives_its_json_form_and_is_never_printed() {
        let secret = AttachmentSecret {
            private_key: "cHJpdmF0ZQ==".to_owned(),
            preshared_key: None,
        };
        let json = secret.to_json().unwrap();
        assert_eq!(json, br#"{"privateKey":"cHJpdmF0ZQ=="}"#);
        assert_eq!(AttachmentSecret::from_json(&json).unwrap(), secret);
        assert!(!format!("{secret:?}").contains("cHJp"));
    }
}
