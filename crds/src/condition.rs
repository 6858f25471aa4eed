//! The conditions of our objects and their reasons, as closed sets: who writes a status takes its words from here, and so does
//! who reads one. What a condition says of an object, and when, is judged by its writer.
//!
//! A condition either passes on what stands against its object, with that notice's [`Reason`], or says how the object as a
//! whole [stands](Standing).

use crate::Condition;
use std::fmt;
use tieline_core::notice::Reason;

/// Writes an enum whose members are words of the API, in order.
macro_rules! words {
    ($(#[$about:meta])* $set:ident { $($(#[$doc:meta])* $name:ident,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $set {
            $($(#[$doc])* $name,)+
        }

        impl $set {
            /// All that there are.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// As the API spells it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }

        impl fmt::Display for $set {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

/// Makes a set of words the types of conditions.
macro_rules! types {
    ($set:ident) => {
        impl $set {
            /// Whether a condition is of this type.
            #[must_use]
            pub fn is(self, condition: &Condition) -> bool {
                condition.type_ == self.as_str()
            }

            /// The condition of this type among those that an object has.
            #[must_use]
            pub fn of(self, conditions: &[Condition]) -> Option<&Condition> {
                conditions.iter().find(|it| self.is(it))
            }

            /// Whether there is one of this type, and it is True.
            #[must_use]
            pub fn holds(self, conditions: &[Condition]) -> bool {
                self.of(conditions).is_some_and(|it| it.status == "True")
            }
        }
    };
}

words! {
    /// Type of a condition that the operator tells.
    ObjectCondition {
        /// Nothing stands against the object itself.
        Accepted,
        /// All nodes of a link carry its plan.
        Converged,
        /// A ledger gives no new grants.
        Frozen,
        /// A link uses the site.
        InUse,
        /// A link's plan is written as its members want it.
        Planned,
        /// A gateway of the site has a path that is up.
        Reachable,
        /// All of the object is as it should be.
        Ready,
    }
}

words! {
    /// Type of a condition that an agent tells of its node.
    PeerCondition {
        /// What is wanted is in the kernel, read back; when false, it is not, or it is not known what is wanted.
        Applied,
        /// Another table drops forwarded packets by default, and our devices are no exception. Never false.
        ForwardDropped,
        /// A plan or Peer cannot be read, or a watch does not work. Never true.
        ObjectsRead,
        /// At least one path to a gateway is up, or none is needed.
        PathsUp,
        /// The plan is gone and this node's Peer is not, so the last good plan stays. Never false.
        PlanMissing,
        /// The kernel carries the plan, and a path is up; when false, the reason is that of what is missing.
        Ready,
        /// The API server offers an older plan. Never false.
        RevisionRefused,
        /// A sealed secret cannot be opened. Never true.
        SecretsOpened,
        /// A file of the state directory is damaged or cannot be written. Never true.
        StateKept,
        /// All sessions of the VPNs that this gateway is active for are up. Absent on others.
        VpnSessionsUp,
    }
}

types!(ObjectCondition);
types!(PeerCondition);

impl PeerCondition {
    /// Whether a condition of a Peer is its agent's: the operator may add its own. A type that is not in the list cannot be told,
    /// hence none can be told and never be taken back.
    #[must_use]
    pub fn is_any(condition: &Condition) -> bool {
        Self::ALL.iter().any(|kind| kind.is(condition))
    }
}

words! {
    /// How an object as a whole stands.
    Standing {
        /// Nothing stands against it.
        Accepted,
        /// Some nodes of the link do not carry its plan.
        AgentsBehind,
        /// All paths or sessions are up.
        AllUp,
        /// A sealed secret cannot be opened.
        CannotOpen,
        /// The kernel cannot be read.
        CannotRead,
        /// The kernel cannot be changed.
        CannotWrite,
        /// The plan breaks an invariant.
        CheckFailed,
        /// All nodes of the link carry its plan.
        Converged,
        /// A file of the state directory is damaged or cannot be written.
        Damaged,
        /// A chain of somebody else's drops what it does not know.
        ForeignChain,
        /// The node carries its share of the mesh.
        InMesh,
        /// The API server refuses to store a ledger.
        LedgerRefused,
        /// The hub's ledger lacks what a cluster's ledger splits.
        LedgersDisagree,
        /// Some members of the link are not ready.
        MembersNotReady,
        /// There is no plan.
        NoPlan,
        /// Some nodes that take part are not ready.
        NodesNotReady,
        /// Some nodes take no part.
        NodesWaiting,
        /// The node needs no path.
        NoneNeeded,
        /// No path is up.
        NoneUp,
        /// No link names it.
        NotAMember,
        /// The operator has not accepted the node's keys.
        NotAccepted,
        /// No plan carries it.
        NotPlanned,
        /// No gateway has told of its paths.
        NotReported,
        /// No link uses it.
        NotUsed,
        /// The plan is not written.
        NotWritten,
        /// The plan is older than one that was applied.
        OlderThanSeen,
        /// A gateway has a path that is up.
        PathsUp,
        /// The plan is gone, and the node's Peer is not.
        PeerExists,
        /// The plan does not fit into one object.
        PlanTooLarge,
        /// The plan cannot be read, and there is no last good one.
        PlanUnreadable,
        /// The plan is written.
        Planned,
        /// Something else changes what was written.
        ReadBackDiffers,
        /// All of it is as it should be.
        Ready,
        /// A ledger or plan cannot be read.
        RecordUnreadable,
        /// Something of the link was refused.
        Refused,
        /// Somebody has seen a newer revision.
        RevisionBehind,
        /// The only plan there is was refused.
        RevisionRefused,
        /// An object of the link cannot be read, so what is applied stays.
        SetAside,
        /// A part of a ledger is gone.
        SliceMissing,
        /// Some sessions are down.
        SomeDown,
        /// Some paths are down.
        SomeUp,
        /// An object cannot be read.
        Unreadable,
        /// What is held is the newest.
        UpToDate,
        /// A link uses it.
        Used,
        /// No plan is known yet.
        Waiting,
        /// The link's mode is Plan.
        Withheld,
        /// The API server refuses a write.
        WriteRefused,
    }
}

words! {
    /// What has happened, where no condition tells of it: reason of an Event.
    Occurrence {
        /// A node became a gateway of its site.
        GatewayElected,
        /// A node got its podCIDR.
        PodCidrAssigned,
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

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    fn condition(kind: &str, status: &str) -> Condition {
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Standing::SomeUp.to_string(),
            message: String::new(),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            observed_generation: None,
        }
    }

    #[test]
    fn a_condition_holds_when_it_is_there_and_true() {
        let all = [condition("PathsUp", "True"), condition("Ready", "Unknown")];
        assert!(PeerCondition::PathsUp.holds(&all));
        assert!(!PeerCondition::Ready.holds(&all));
        assert!(!PeerCondition::Applied.holds(&all));
        assert_eq!(PeerCondition::Ready.of(&all), Some(&all[1]));
    }

    #[test]
    fn a_condition_of_another_writer_is_not_the_agents() {
        assert!(PeerCondition::is_any(&condition("StateKept", "False")));
        assert!(!PeerCondition::is_any(&condition("Converged", "True")));
    }

    #[test]
    fn a_word_is_spelt_as_it_is_named() {
        assert_eq!(ConditionReason::from(Standing::NoPlan).as_str(), "NoPlan");
        assert_eq!(ConditionReason::from(Reason::NoSite).as_str(), "NoSite");
        assert!(Standing::ALL.is_sorted_by_key(|it| it.as_str()));
    }
}
