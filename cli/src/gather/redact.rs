//! Takes out of objects and texts what must not leave a cluster. Pure.
//!
//! One way in for everything that a bundle holds: [`object`] for what the API server gave, [`text`] for logs. Rather too much is taken
//! out than too little: a support bundle that lacks a word is still of use, one with a key in it is not.
//!
//! Taken out, each with a note in its place:
//! * fields and annotations whose name says that they hold a secret (`token`, `password`, `privateKey`, `ciphertext` …);
//! * annotations in which tools keep a copy of the whole object or any other JSON object, and `managedFields`, which repeat what
//!   stands elsewhere; of a node, whose CNI may say in one what it does, only the secrets in it;
//! * values of environment variables, headers and other pairs of `name` and `value`, except our own programs' flags;
//! * the argument after one that names a secret, as in `--token VALUE`;
//! * in any text: private and pre-shared WireGuard keys by their label, every other value of 32 bytes in base64 or hex that is not
//!   where a public key belongs, bearer tokens, JSON web tokens, PEM blocks, URLs' passwords, and `secret=value` pairs.

use regex::{Captures, Regex};
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// What stands where something was taken out.
pub(crate) const MARK: &str = "[redacted]";

/// Annotations that repeat whole objects, whatever they look like.
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

/// What becomes of a JSON object in an annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Embedded {
    /// It is taken out.
    Out,
    /// The secrets in it are.
    Searched,
}

/// An object as it may leave the cluster. What was taken out is marked.
pub(crate) fn object(value: &mut Value) {
    redact(value, Embedded::Out);
}

/// The same for a node, whose annotations tell of its network.
pub(crate) fn node(value: &mut Value) {
    redact(value, Embedded::Searched);
}

fn redact(value: &mut Value, embedded: Embedded) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    walk("", value, embedded);
}

fn walk(name: &str, value: &mut Value, embedded: Embedded) {
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
            arguments(items, ["args", "command"].contains(&plain.as_str()));
            for item in items {
                walk(name, item, embedded);
            }
        }
        Value::Object(fields) => {
            if plain == "annotations" {
                for (name, item) in fields.iter_mut() {
                    annotation(name, item, embedded);
                }
            }
            pair(fields);
            for (name, item) in fields.iter_mut() {
                walk(name, item, embedded);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Copies of objects are taken out, and so is what is an object in JSON.
fn annotation(name: &str, value: &mut Value, embedded: Embedded) {
    if COPIES.contains(&name) {
        *value = Value::String(MARK.to_owned());
        return;
    }
    let Some(Ok(mut inner)) = value.as_str().map(serde_json::from_str::<Value>) else {
        return;
    };
    if inner.is_object() && embedded == Embedded::Out {
        *value = Value::String(MARK.to_owned());
    } else if inner.is_object() || inner.is_array() {
        walk(name, &mut inner, embedded);
        *value = Value::String(inner.to_string());
    }
}

/// The argument after one that names a secret and does not hold it. Where arguments are expected, such a name needs no dash.
fn arguments(items: &mut [Value], expected: bool) {
    let mut named = false;
    for item in items {
        let word = item.as_str().unwrap_or_default();
        let names = (expected || word.starts_with('-'))
            && !word.contains('=')
            && holds_secret(&plain(word));
        if named && item.is_string() {
            *item = Value::String(MARK.to_owned());
        }
        named = names;
    }
}

/// The value of a variable, a header or whatever else has a name and a value, except our own programs' flags.
fn pair(fields: &mut Map<String, Value>) {
    let Some(name) = fields.get("name").and_then(Value::as_str) else {
        return;
    };
    let ours = name.starts_with("TIELINE_") && !holds_secret(&plain(name));
    if let Some(value) = fields.get_mut("value").filter(|_| !ours) {
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

/// A name that says that what follows is a secret, with the rest of its word.
const SECRET_NAME: &str = r"(?:token|password|passwd|secret|private_?-?key|preshared_?-?key|psk|api_?-?key|access_?-?key|credential|authorization|cookie)[a-z0-9_-]*";

/// What is looked for in texts, in this order; where the second is true, the first group is kept.
static PATTERNS: LazyLock<Vec<(Regex, bool)>> = LazyLock::new(|| {
    let all = [
        // PEM, also with escaped line ends, and when the end was cut off.
        (
            r"(?s)-----BEGIN [A-Z0-9 ]*(?:PRIVATE KEY|CERTIFICATE)[A-Z0-9 ]*-----.*?(?:-----END [A-Z0-9 ]*-----|\z)".to_owned(),
            false,
        ),
        // JSON web tokens.
        (
            r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?".to_owned(),
            false,
        ),
        // Authorization headers, and bearer tokens anywhere.
        (r"(?i)\b((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}".to_owned(), true),
        // kubeadm's bootstrap tokens.
        (r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b".to_owned(), false),
        // Passwords of URLs.
        (
            r"\b([A-Za-z][A-Za-z0-9+.-]*://[^\s:/@]*:)[^\s@/]+(?:@)".to_owned(),
            true,
        ),
        // --token value, also as items of a list.
        (
            format!(
                r#"(?i)((?:^|[\s"'\[])--?[a-z0-9_-]*{SECRET_NAME}["']?,?\s+)(?:"[^"\n]*"|'[^'\n]*'|\S+)"#
            ),
            true,
        ),
        // "secret": "value" and secret='value' up to the closing quote; the first inside of another JSON text.
        (
            format!(
                r#"(?i)({SECRET_NAME}(?:\\")?\s*[:=]\s*\\")(?:\\\\\\"|\\\\|\\[^"\\]|[^"\\\n])+"#
            ),
            true,
        ),
        (
            format!(r#"(?i)({SECRET_NAME}["']?\s*[:=]\s*")(?:\\.|[^"\\\n])+"#),
            true,
        ),
        (
            format!(r#"(?i)({SECRET_NAME}["']?\s*[:=]\s*')(?:''|[^'\n])+"#),
            true,
        ),
        // secret=value and secret: value up to a space; a short word behind a colon belongs to a sentence.
        (
            format!(r#"(?i)({SECRET_NAME}["']?\s*=\s*)[^\s"']\S*"#),
            true,
        ),
        (
            format!(r#"(?i)({SECRET_NAME}\\?["']?\s*:\s*)(?:[^\s"'\\]|\\[^\s"'])\S{{3,}}"#),
            true,
        ),
        // 32 bytes in hex or base64: a key of WireGuard's, and nothing tells private from public ones. Longer runs too: ciphertexts.
        (r"\b[0-9a-fA-F]{64,}\b".to_owned(), false),
        (r"[A-Za-z0-9+/]{42,}={0,2}".to_owned(), false),
    ];
    // The patterns are constants, and a test compiles each.
    all.into_iter()
        .filter_map(|(pattern, label)| Some((Regex::new(&pattern).ok()?, label)))
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
        assert_eq!(PATTERNS.len(), 13);
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
            ("password=\"hunter 22\" next".to_owned(), "22"),
            ("password='it''s 22' next".to_owned(), "22"),
            (r#"{"password":"hun\"ter, 22"}"#.to_owned(), "22"),
            (r#"{\"token\": \"hun\\\"ter, 22\"}"#.to_owned(), "22"),
            (r#"{"msg":"password=\"hunter 22\""}"#.to_owned(), "22"),
            ("db_password=hunter,22;x\"y next".to_owned(), "22"),
            ("db_password=hunter,22;x\"y next".to_owned(), "y"),
            ("api-key: hunter,22 next".to_owned(), "22"),
            ("token=22".to_owned(), "22"),
            ("vault login --vault-token s.22 next".to_owned(), "22"),
            (r#"args: ["--vault-token", "s. 22"]"#.to_owned(), "22"),
            ("login -password 'hunter 22'".to_owned(), "22"),
        ] {
            let kept = text(&given);
            assert_eq!(kept.contains("next"), given.contains("next"), "{kept}");
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
                "kapp.k14s.io/original": "{\"spec\": {\"note\": \"hunter22\"}}",
                "example.com/list": "[{\"name\": \"X\", \"value\": \"hunter22\"}]",
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
                    "kapp.k14s.io/original": MARK,
                    "example.com/list": format!("[{{\"name\":\"X\",\"value\":\"{MARK}\"}}]"),
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

    #[test]
    fn an_argument_after_one_that_names_a_secret_is_one() {
        let mut found = json!({
            "command": ["vault", "login", "token", "s.abc"],
            "args": ["--vault-token", "s.abc", "--port=21820", "--token=hunter22", "--verbose", "yes"],
            "finalizers": ["example.com/token", "x"],
            "livenessProbe": {"httpGet": {"path": "/", "httpHeaders": [{"name": "X-Api", "value": "hunter22"}]}},
        });
        object(&mut found);
        assert_eq!(
            found,
            json!({
                "command": ["vault", "login", "token", MARK],
                "args": ["--vault-token", MARK, "--port=21820", format!("--token={MARK}"), "--verbose", "yes"],
                "finalizers": ["example.com/token", "x"],
                "livenessProbe": {"httpGet": {"path": "/", "httpHeaders": [{"name": "X-Api", "value": MARK}]}},
            })
        );
    }

    #[test]
    fn a_node_keeps_what_its_cni_says_of_itself() {
        let with = |backend: &str| json!({"metadata": {"annotations": {"flannel.alpha.coreos.com/backend-data": backend}}});
        let mut found = with(r#"{"VNI":1,"VtepMAC":"aa:bb","PrivateKey":"hunter22"}"#);
        node(&mut found);
        let kept = format!(r#"{{"PrivateKey":"{MARK}","VNI":1,"VtepMAC":"aa:bb"}}"#);
        assert_eq!(found, with(&kept));
    }
}
