//! Takes out of objects and texts what must not leave a cluster. Pure.
//!
//! One way in for everything that a bundle holds: [`object`] for what the API server gave, [`text`] for logs. Rather too much is taken
//! out than too little: a support bundle that lacks a word is still of use, one with a key in it is not.
//!
//! Taken out, each with a note in its place:
//! * fields and annotations whose name says that they hold a secret (`token`, `password`, `privateKey`, `ciphertext` …);
//! * the annotations in which tools keep a copy of the whole object, and `managedFields`, which repeat what stands elsewhere;
//! * values of environment variables in pods, except our own programs' flags;
//! * in any text: private and pre-shared WireGuard keys by their label, every other value of 32 bytes in base64 or hex that is not
//!   where a public key belongs, bearer tokens, JSON web tokens, PEM blocks, URLs' passwords, and `secret=value` pairs.

use regex::{Captures, Regex};
use serde_json::Value;
use std::sync::LazyLock;

/// What stands where something was taken out.
pub(crate) const MARK: &str = "[redacted]";

/// Annotations that repeat whole objects.
const COPIES: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    "objectset.rio.cattle.io/applied",
];
/// Words in a field's name that say that it holds a secret.
const SECRET_WORDS: &[&str] = &[
    "token",
    "password",
    "passwd",
    "privatekey",
    "presharedkey",
    "psk",
    "ciphertext",
    "credential",
    "apikey",
    "secretkey",
    "accesskey",
    "authorization",
    "cookie",
    "kubeconfig",
    "clientcert",
    "clientkey",
    "cabundle",
    "secretvalue",
    "stringdata",
];
/// Names that contain such a word and hold no secret: names of objects, switches, versions.
const HARMLESS: &[&str] = &[
    "presharedkeysecret",
    "automountserviceaccounttoken",
    "serviceaccounttoken",
    "tokenexpirationseconds",
];
/// Fields that hold public keys, which a diagnosis needs.
const PUBLIC_KEYS: &[&str] = &[
    "key",
    "publickey",
    "peerpublickey",
    "sealingkey",
    "recipientkey",
];

/// An object as it may leave the cluster. What was taken out is marked.
pub(crate) fn object(value: &mut Value) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    walk("", value);
}

fn walk(name: &str, value: &mut Value) {
    let plain = plain(name);
    if holds_secret(&plain) && !value.is_boolean() && !value.is_number() && !value.is_null() {
        *value = Value::String(MARK.to_owned());
        return;
    }
    match value {
        Value::String(found) => {
            if !(PUBLIC_KEYS.contains(&plain.as_str()) && is_key(found)) {
                *found = text(found);
            }
        }
        Value::Array(items) => {
            let variables = plain == "env";
            for item in items {
                if variables {
                    variable(item);
                }
                walk(name, item);
            }
        }
        Value::Object(fields) => {
            if plain == "annotations" {
                for copy in COPIES {
                    if let Some(found) = fields.get_mut(*copy) {
                        *found = Value::String(MARK.to_owned());
                    }
                }
            }
            for (name, item) in fields.iter_mut() {
                walk(name, item);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Values of environment variables are taken out, except our own programs' flags.
fn variable(item: &mut Value) {
    let name = item["name"].as_str().unwrap_or_default();
    let ours = name.starts_with("TIELINE_") && !holds_secret(&plain(name));
    if let Some(value) = item.get_mut("value").filter(|_| !ours) {
        *value = Value::String(MARK.to_owned());
    }
}

/// A name's last part, in letters alone: `example.com/api-token` and `apiToken` are one.
fn plain(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|it| it.to_ascii_lowercase())
        .collect()
}

fn holds_secret(plain: &str) -> bool {
    !HARMLESS.contains(&plain) && SECRET_WORDS.iter().any(|word| plain.contains(word))
}

/// 32 bytes in base64.
fn is_key(text: &str) -> bool {
    text.len() == 44
        && text.ends_with('=')
        && text
            .bytes()
            .take(43)
            .all(|it| it.is_ascii_alphanumeric() || it == b'+' || it == b'/')
}

/// A text as it may leave the cluster.
#[must_use]
pub(crate) fn text(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, keeps_label) in PATTERNS.iter() {
        let replaced = pattern.replace_all(&text, |found: &Captures<'_>| {
            let label = if *keeps_label {
                found.get(1).map_or("", |label| label.as_str())
            } else {
                ""
            };
            format!("{label}{MARK}")
        });
        if let std::borrow::Cow::Owned(replaced) = replaced {
            text = replaced;
        }
    }
    text
}

/// What is looked for in texts, in this order; where the second is true, the first group is kept.
static PATTERNS: LazyLock<Vec<(Regex, bool)>> = LazyLock::new(|| {
    let all = [
        // PEM, also with escaped line ends, and when the end was cut off.
        (
            r"(?s)-----BEGIN [A-Z0-9 ]*(?:PRIVATE KEY|CERTIFICATE)[A-Z0-9 ]*-----.*?(?:-----END [A-Z0-9 ]*-----|\z)",
            false,
        ),
        // JSON web tokens.
        (
            r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?",
            false,
        ),
        // Authorization headers, and bearer tokens anywhere.
        (r"(?i)\b((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}", true),
        // kubeadm's bootstrap tokens.
        (r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b", false),
        // Passwords of URLs.
        (
            r"\b([A-Za-z][A-Za-z0-9+.-]*://[^\s:/@]*:)[^\s@/]+(?:@)",
            true,
        ),
        // secret=value, "secret": "value", secret: value.
        (
            r#"(?i)((?:token|password|passwd|secret|private_?-?key|preshared_?-?key|psk|api_?-?key|access_?-?key|credential|authorization|cookie)[A-Za-z0-9_-]*\\?["']?\s*[:=]\s*\\?["']?)[^\s"',;}\\\]\[]{4,}"#,
            true,
        ),
        // 32 bytes in hex or base64: a key of WireGuard's, and nothing tells private from public ones. Longer runs too: ciphertexts.
        (r"\b[0-9a-fA-F]{64,}\b", false),
        (r"[A-Za-z0-9+/]{42,}={0,2}", false),
    ];
    // The patterns are constants, and a test compiles each.
    all.into_iter()
        .filter_map(|(pattern, label)| Some((Regex::new(pattern).ok()?, label)))
        .collect()
});

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

    #[test]
    fn every_pattern_is_one() {
        assert_eq!(PATTERNS.len(), 8);
    }

    #[test]
    fn secrets_in_texts_are_taken_out() {
        let pem = "before -----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIHh\n-----END PRIVATE KEY----- after";
        assert_eq!(text(pem), format!("before {MARK} after"));
        for (given, secret) in [
            (format!("private key {KEY}"), KEY),
            (format!("PrivateKey = {KEY}"), KEY),
            (format!("peer {KEY} endpoint 192.0.2.1:51820"), KEY),
            (format!("wg set tie0 private-key={KEY}"), KEY),
            ("PresharedKey: hunter2hunter2".to_owned(), "hunter2"),
            (
                "Authorization: Bearer abcdefgh.12345678".to_owned(),
                "abcdefgh",
            ),
            (
                "authorization=\"Basic dXNlcjpwYXNz\"".to_owned(),
                "dXNlcjpwYXNz",
            ),
            ("sent Bearer sha256~Zm9vYmFyYmF6".to_owned(), "Zm9vYmFy"),
            (
                "got eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl back".to_owned(),
                "eyJzdWIi",
            ),
            (
                "https://user:hunter22@registry.example/v2".to_owned(),
                "hunter22",
            ),
            (r#"{"password":"hunter22","a":1}"#.to_owned(), "hunter22"),
            (r#"{\"token\":\"hunter22\"}"#.to_owned(), "hunter22"),
            ("db_password=hunter22 next".to_owned(), "hunter22"),
            (
                "-----BEGIN EC PRIVATE KEY-----\\nMHcCAQEEIcut".to_owned(),
                "MHcCAQEE",
            ),
            (
                "kubeadm join --token abcdef.0123456789abcdef".to_owned(),
                "0123456789abcdef",
            ),
            ("c8a9f5d3".repeat(8), "c8a9f5d3c8a9"),
        ] {
            let kept = text(&given);
            assert!(!kept.contains(secret), "{given} became {kept}");
            assert!(kept.contains(MARK), "{kept}");
        }
    }

    #[test]
    fn what_a_diagnosis_needs_stays() {
        for line in [
            "2026-11-24T19:00:00.123456Z  INFO kernel changed cause=Index changes=12 took=7",
            "0 of 2 paths to gateways are up; down: shop.berlin-1 by tie0",
            "Secret hq-psk in namespace tieline-system does not exist",
            "image registry.example/tieline@sha256:0a1b2c",
            "peer shop.ip-10-0-0-1.eu-central-1.compute.internal at 192.0.2.7:21820 and [2001:db8::7]:21820",
            "VpnAttachment hq: cannot open its sealed secret: it was made for another key",
        ] {
            assert_eq!(text(line), line);
        }
    }

    #[test]
    fn fields_are_judged_by_their_names() {
        let mut found = json!({
            "metadata": {"name": "a", "managedFields": [{"manager": "x"}], "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "{\"spec\": \"old\"}",
                "example.com/api-token": "hunter22",
                "tieline.dev/schema": "2",
            }},
            "spec": {
                "sealedSecrets": [{"name": "hq", "secretVersion": "7", "recipientKey": KEY, "ciphertext": "c2VjcmV0"}],
                "acceptedKeys": [{"device": "tie0", "key": KEY}],
                "wireguard": {"peerPublicKey": KEY, "presharedKeySecret": {"name": "hq-psk"}},
                "note": KEY,
                "automountServiceAccountToken": false,
                "containers": [{"env": [{"name": "X", "value": "hunter22"}, {"name": "TIELINE_PORT", "value": "21820"}, {"name": "Y", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]}],
            },
        });
        object(&mut found);
        assert_eq!(
            found,
            json!({
                "metadata": {"name": "a", "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": MARK,
                    "example.com/api-token": MARK,
                    "tieline.dev/schema": "2",
                }},
                "spec": {
                    "sealedSecrets": [{"name": "hq", "secretVersion": "7", "recipientKey": KEY, "ciphertext": MARK}],
                    "acceptedKeys": [{"device": "tie0", "key": KEY}],
                    "wireguard": {"peerPublicKey": KEY, "presharedKeySecret": {"name": "hq-psk"}},
                    "note": MARK,
                    "automountServiceAccountToken": false,
                    "containers": [{"env": [{"name": "X", "value": MARK}, {"name": "TIELINE_PORT", "value": "21820"}, {"name": "Y", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]}],
                },
            })
        );
    }
}
