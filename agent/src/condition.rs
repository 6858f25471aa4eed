//! The conditions that an agent ever tells: one list, which the report picks from and the publisher takes back by.
//!
//! A status is shared with the operator, so the publisher has to know which conditions are its own. A type that is not in
//! this list cannot be told, hence none can be told and never be taken back.

use std::fmt;

/// Writes the enum, and with it everything that has to know all of its members.
macro_rules! conditions {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)+) => {
        /// Type of a condition, in the words of the API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ConditionType {
            $($(#[$doc])* $name,)+
        }

        impl ConditionType {
            /// All that there are.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// As the API spells it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }
    };
}

conditions! {
    /// The kernel carries the plan, and a path is up; when false, the reason is that of what is missing.
    Ready = "Ready",
    /// What is wanted is in the kernel, read back; when false, it is not, or it is not known what is wanted.
    Applied = "Applied",
    /// At least one path to a gateway is up, or none is needed.
    PathsUp = "PathsUp",
    /// All sessions of the VPNs that this gateway is active for are up. Absent on others.
    VpnSessionsUp = "VpnSessionsUp",
    /// The API server offers an older plan. Never false.
    RevisionRefused = "RevisionRefused",
    /// The plan is gone and this node's Peer is not, so the last good plan stays. Never false.
    PlanMissing = "PlanMissing",
    /// Another table drops forwarded packets by default, and our devices are no exception. Never false.
    ForwardDropped = "ForwardDropped",
    /// A sealed secret cannot be opened. Never true.
    SecretsOpened = "SecretsOpened",
    /// A file of the state directory is damaged or cannot be written. Never true.
    StateKept = "StateKept",
    /// A plan or Peer cannot be read, or a watch does not work. Never true.
    ObjectsRead = "ObjectsRead",
}

impl ConditionType {
    /// Whether a condition of the API is one of ours: the operator may add its own.
    #[must_use]
    pub fn is_ours(text: &str) -> bool {
        Self::ALL.iter().any(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
