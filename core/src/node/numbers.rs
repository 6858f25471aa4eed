//! Numbers that a node's configuration is written with: the order of its policy rules, and the keepalive.

/// Preference of the rule that sends encrypted packets to the underlay.
pub const PREF_ENCRYPTED: u32 = 101;
/// Preference of the rules for what arrives encrypted for other nodes of the own segment.
pub const PREF_INNER: u32 = 102;
/// Preference of the rule for remote prefixes and the guard.
pub const PREF_REMOTE: u32 = 103;
/// Preference of the rules that leave the own cluster's pods to the CNI's routes.
pub const PREF_CNI: u32 = 104;
/// Preference of the rule for the guard behind the CNI's routes.
pub const PREF_GUARD: u32 = 105;
/// Persistent keepalive in seconds: below the 30 s after which common NATs forget a UDP flow.
pub const KEEPALIVE: u16 = 25;
