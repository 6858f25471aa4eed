//! The conditions that this program writes, and their reasons, as closed sets. Which of them holds is judged in [`crate::status`].
//!
//! A condition either passes on what stands against its object, with that notice's [`Reason`], or says how the object as a
//! whole [stands](Standing).

use std::fmt;
use tieline_core::notice::Reason;
use tieline_crds::Condition;

/// Writes an enum whose members are words of the API.
macro_rules! words {
    ($(#[$about:meta])* $set:ident { $($(#[$doc:meta])* $name:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $set {
            $($(#[$doc])* $name,)+
        }

        impl $set {
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

words! {
    /// Type of a condition.
    ConditionType {
        /// Nothing stands against the object itself.
        Accepted = "Accepted",
        /// All nodes of a link carry its plan.
        Converged = "Converged",
        /// A ledger gives no new grants.
        Frozen = "Frozen",
        /// A link uses the site.
        InUse = "InUse",
        /// A link's plan is written as its members want it.
        Planned = "Planned",
        /// A gateway of the site has a path that is up.
        Reachable = "Reachable",
        /// All of the object is as it should be.
        Ready = "Ready",
    }
}

words! {
    /// How an object as a whole stands.
    Standing {
        /// Nothing stands against it.
        Accepted = "Accepted",
        /// Some nodes of the link do not carry its plan.
        AgentsBehind = "AgentsBehind",
        /// The plan breaks an invariant.
        CheckFailed = "CheckFailed",
        /// All nodes of the link carry its plan.
        Converged = "Converged",
        /// The API server refuses to store a ledger.
        LedgerRefused = "LedgerRefused",
        /// The hub's ledger lacks what a cluster's ledger splits.
        LedgersDisagree = "LedgersDisagree",
        /// Some members of the link are not ready.
        MembersNotReady = "MembersNotReady",
        /// There is no plan for the link.
        NoPlan = "NoPlan",
        /// Some nodes that take part are not ready.
        NodesNotReady = "NodesNotReady",
        /// Some nodes take no part.
        NodesWaiting = "NodesWaiting",
        /// No link names it.
        NotAMember = "NotAMember",
        /// No plan carries it.
        NotPlanned = "NotPlanned",
        /// No gateway has told of its paths.
        NotReported = "NotReported",
        /// No link uses it.
        NotUsed = "NotUsed",
        /// The plan is not written.
        NotWritten = "NotWritten",
        /// A gateway has a path that is up.
        PathsUp = "PathsUp",
        /// The plan does not fit into one object.
        PlanTooLarge = "PlanTooLarge",
        /// The plan is written.
        Planned = "Planned",
        /// All of it is as it should be.
        Ready = "Ready",
        /// A ledger or plan cannot be read.
        RecordUnreadable = "RecordUnreadable",
        /// Something of the link was refused.
        Refused = "Refused",
        /// Somebody has seen a newer revision.
        RevisionBehind = "RevisionBehind",
        /// An object of the link cannot be read, so what is applied stays.
        SetAside = "SetAside",
        /// A part of a ledger is gone.
        SliceMissing = "SliceMissing",
        /// Nobody has seen a newer revision.
        UpToDate = "UpToDate",
        /// A link uses it.
        Used = "Used",
        /// The link's mode is Plan.
        Withheld = "Withheld",
        /// The API server refuses a write.
        WriteRefused = "WriteRefused",
    }
}

/// Reason of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionReason {
    /// How the object as a whole stands.
    Of(Standing),
    /// What stands against it, or against what it needs.
    Because(Reason),
}

impl ConditionReason {
    /// As the API spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Of(standing) => standing.as_str(),
            Self::Because(reason) => reason.as_str(),
        }
    }
}

impl From<Standing> for ConditionReason {
    fn from(standing: Standing) -> Self {
        Self::Of(standing)
    }
}

impl From<Reason> for ConditionReason {
    fn from(reason: Reason) -> Self {
        Self::Because(reason)
    }
}

impl ConditionType {
    /// The condition of this type among those that an object has.
    pub(crate) fn of(self, held: &[Condition]) -> Option<&Condition> {
        held.iter().find(|it| self.is(it))
    }

    /// Whether a condition of the API is of this type.
    pub(crate) fn is(self, condition: &Condition) -> bool {
        condition.type_ == self.as_str()
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
