//! What an agent says about its node. Pure, and it cannot fail: every error of a reconcile ends as a condition.
//!
//! Which conditions there are, and what they mean, says [`PeerCondition`].
//!
//! Messages are stable: sorted, bounded, without times and ages, so that a node at rest writes nothing.

use crate::desired::Refused;
use crate::facts::Paths;
use std::collections::{BTreeMap, BTreeSet};
use tieline_core::host::firewall::let_through;
use tieline_core::ids::VpnName;
use tieline_crds::condition::{PeerCondition, Standing};
use tieline_crds::peer::{PeerPaths, VpnSessions};

/// Entries that a message lists before it says how many more there are.
const LISTED: usize = 5;
/// Characters of one entry.
const ENTRY: usize = 300;

/// What one reconcile came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What this node is to be.
    pub role: Role,
    /// The plan's revision.
    pub revision: Option<u64>,
    /// The plan came from disk.
    pub from_disk: bool,
    /// Lists that have not been read yet.
    pub awaiting: Vec<&'static str>,
    /// What the API server says and was not followed.
    pub refused: Option<Refused>,
    /// Objects that cannot be used, and watches that do not work.
    pub unreadable: BTreeMap<String, String>,
    /// Sealed secrets that cannot be opened.
    pub secrets: BTreeMap<VpnName, String>,
    /// Trouble with the state directory.
    pub store: BTreeMap<String, String>,
    /// The kernel could not be read.
    pub read_error: Option<String>,
    /// Changes that failed.
    pub write_errors: Vec<String>,
    /// What differs still, after everything was written.
    pub remaining: Vec<String>,
    /// Changes that were made.
    pub writes: usize,
    /// Paths to gateways.
    pub paths: Paths,
    /// Whether the session of each VPN that this gateway is active for is up.
    pub sessions: BTreeMap<VpnName, bool>,
    /// Forward chains of others that drop what they do not know.
    pub forward_drops: BTreeSet<String>,
}

/// What a node is in the mesh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// Nothing is known.
    #[default]
    Unknown,
    /// There is no plan.
    Withdrawn,
    /// There is a plan, and this node is not accepted yet: it carries the guard alone.
    Guard,
    /// Part of the mesh.
    Member,
}

/// A judgement, without the time that it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Condition type.
    pub kind: PeerCondition,
    /// Whether it holds.
    pub holds: bool,
    /// Why, for machines.
    pub reason: Standing,
    /// Why, for people.
    pub message: String,
}

impl Outcome {
    /// Whether the kernel is as wanted.
    #[must_use]
    pub fn is_applied(&self) -> bool {
        matches!(self.role, Role::Guard | Role::Member | Role::Withdrawn)
            && self.read_error.is_none()
            && self.write_errors.is_empty()
            && self.remaining.is_empty()
    }

    /// Whether this node carries its share of the mesh.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.role == Role::Member && self.is_applied() && self.has_path()
    }

    fn has_path(&self) -> bool {
        self.paths.total == 0 || self.paths.up > 0
    }

    /// Paths to gateways, counted; none while this node is not part of the mesh.
    #[must_use]
    pub fn path_count(&self) -> Option<PeerPaths> {
        (self.role == Role::Member).then(|| PeerPaths {
            up: count(self.paths.up),
            total: count(self.paths.total),
            connecting: count(self.paths.connecting),
        })
    }

    /// Sessions of each VPN that this gateway is active for, in order of name.
    #[must_use]
    pub fn session_counts(&self) -> Vec<VpnSessions> {
        let sessions = self.sessions.iter().map(|(vpn, up)| VpnSessions {
            name: vpn.to_string(),
            up: u32::from(*up),
            total: 1,
        });
        sessions.collect()
    }

    /// All conditions, in order of type.
    #[must_use]
    pub fn verdicts(&self) -> Vec<Verdict> {
        let applied = self.applied();
        let paths = self.paths_up();
        let mut all = vec![self.ready(&applied, &paths), applied, paths];
        if !self.sessions.is_empty() {
            all.push(self.sessions_up());
        }
        if let Some(refused) = &self.refused {
            let (kind, reason) = match refused {
                Refused::Older { .. } => (PeerCondition::RevisionRefused, Standing::OlderThanSeen),
                Refused::Missing { .. } => (PeerCondition::PlanMissing, Standing::PeerExists),
            };
            all.push(verdict(kind, true, reason, refused.to_string()));
        }
        if !self.forward_drops.is_empty() {
            all.push(verdict(
                PeerCondition::ForwardDropped,
                true,
                Standing::ForeignChain,
                format!(
                    "other forward chains drop what they do not know, which Tieline cannot override; let the mesh pass, and keep the \
                     rules where that firewall is configured: {}",
                    list(self.forward_drops.iter().map(|chain| remedy(chain)))
                ),
            ));
        }
        let entries = |map: &BTreeMap<String, String>| {
            list(map.iter().map(|(what, why)| format!("{what}: {why}")))
        };
        if !self.secrets.is_empty() {
            let secrets = self
                .secrets
                .iter()
                .map(|(vpn, why)| format!("VpnAttachment {vpn}: {why}"));
            all.push(verdict(
                PeerCondition::SecretsOpened,
                false,
                Standing::CannotOpen,
                list(secrets),
            ));
        }
        if !self.store.is_empty() {
            all.push(verdict(
                PeerCondition::StateKept,
                false,
                Standing::Damaged,
                entries(&self.store),
            ));
        }
        if !self.unreadable.is_empty() {
            let message = entries(&self.unreadable);
            all.push(verdict(
                PeerCondition::ObjectsRead,
                false,
                Standing::Unreadable,
                message,
            ));
        }
        all.sort_by_key(|verdict| verdict.kind.as_str());
        all
    }

    fn ready(&self, applied: &Verdict, paths: &Verdict) -> Verdict {
        let (holds, reason, message) = match self.role {
            _ if !applied.holds => (false, applied.reason, applied.message.clone()),
            Role::Member if !paths.holds => (false, paths.reason, paths.message.clone()),
            Role::Member => (true, Standing::InMesh, "this node carries its share of the mesh".to_owned()),
            Role::Guard => (
                false,
                Standing::NotAccepted,
                "the operator has not accepted this node's keys yet; planned ranges are unreachable until then".to_owned(),
            ),
            Role::Withdrawn | Role::Unknown => (false, applied.reason, applied.message.clone()),
        };
        verdict(PeerCondition::Ready, holds, reason, message)
    }

    fn applied(&self) -> Verdict {
        let (holds, reason, message) = if let Some(error) = &self.read_error {
            (false, Standing::CannotRead, entry(error))
        } else if !self.write_errors.is_empty() {
            (
                false,
                Standing::CannotWrite,
                list(self.write_errors.iter().cloned()),
            )
        } else if !self.remaining.is_empty() {
            let message = format!(
                "what was written does not stay: {}. Something else on this host may be changing it",
                list(self.remaining.iter().cloned())
            );
            (false, Standing::ReadBackDiffers, message)
        } else {
            match (self.role, self.revision) {
                (Role::Unknown, _) if self.refused.is_some() => (
                    false,
                    Standing::RevisionRefused,
                    "the only plan there is was refused, and there is no last good one; what the kernel holds stays".to_owned(),
                ),
                (Role::Unknown, _) if self.awaiting.is_empty() => (
                    false,
                    Standing::PlanUnreadable,
                    "the only plan there is cannot be read, and there is no last good one; what the kernel holds stays".to_owned(),
                ),
                (Role::Unknown, _) => (
                    false,
                    Standing::Waiting,
                    format!(
                        "no plan is known yet; waiting for {}",
                        self.awaiting.join(", ")
                    ),
                ),
                (Role::Withdrawn, _) => (
                    true,
                    Standing::NoPlan,
                    "there is no NetworkPlan; nothing of Tieline is in this node's kernel"
                        .to_owned(),
                ),
                (_, revision) => {
                    let revision = revision.unwrap_or_default();
                    let source = if self.from_disk {
                        ", the last good one, from disk"
                    } else {
                        ""
                    };
                    (
                        true,
                        Standing::UpToDate,
                        format!("the kernel carries plan revision {revision}{source}"),
                    )
                }
            }
        };
        verdict(PeerCondition::Applied, holds, reason, message)
    }

    fn sessions_up(&self) -> Verdict {
        let names = |wanted: bool| {
            let names: Vec<&str> = self
                .sessions
                .iter()
                .filter_map(|(vpn, up)| (*up == wanted).then_some(vpn.as_str()))
                .collect();
            names
        };
        let (up, down) = (names(true), names(false));
        let mut message = format!(
            "{} of {} VPN sessions are up",
            up.len(),
            self.sessions.len()
        );
        for (word, names) in [("up", &up), ("down", &down)] {
            if !names.is_empty() {
                message.push_str(&format!("; {word}: {}", names.join(", ")));
            }
        }
        let reason = if down.is_empty() {
            Standing::AllUp
        } else {
            Standing::SomeDown
        };
        verdict(
            PeerCondition::VpnSessionsUp,
            down.is_empty(),
            reason,
            message,
        )
    }

    fn paths_up(&self) -> Verdict {
        let Paths {
            up, total, down, ..
        } = &self.paths;
        let count = format!("{up} of {total} paths to gateways are up");
        let (holds, reason, message) = match (*up, *total) {
            (_, 0) => (
                true,
                Standing::NoneNeeded,
                "this node needs no path to another gateway".to_owned(),
            ),
            (0, _) => (
                false,
                Standing::NoneUp,
                format!("{count}; down: {}", list(down.iter().cloned())),
            ),
            (up, total) if up < total => (
                true,
                Standing::SomeUp,
                format!("{count}; down: {}", list(down.iter().cloned())),
            ),
            _ => (true, Standing::AllUp, count),
        };
        verdict(PeerCondition::PathsUp, holds, reason, message)
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn verdict(kind: PeerCondition, holds: bool, reason: Standing, message: String) -> Verdict {
    Verdict {
        kind,
        holds,
        reason,
        message,
    }
}

/// A chain, and what lets our traffic through it.
fn remedy(chain: &str) -> String {
    let [first, second] = let_through(chain);
    format!("{chain}: run `{first}` and `{second}`")
}

/// The first entries, and how many more there are.
fn list(entries: impl IntoIterator<Item = String>) -> String {
    let all: Vec<String> = entries.into_iter().collect();
    let mut text = all
        .iter()
        .take(LISTED)
        .map(|text| entry(text))
        .collect::<Vec<_>>()
        .join("; ");
    if all.len() > LISTED {
        text.push_str(&format!("; and {} more", all.len() - LISTED));
    }
    text
}

fn entry(text: &str) -> String {
    if text.chars().count() <= ENTRY {
        return text.to_owned();
    }
    text.chars().take(ENTRY).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn find(outcome: &Outcome, kind: &str) -> Verdict {
        outcome
            .verdicts()
            .into_iter()
            .find(|verdict| verdict.kind.as_str() == kind)
            .unwrap()
    }

    fn member() -> Outcome {
        Outcome {
            role: Role::Member,
            revision: Some(7),
            paths: Paths {
                up: 1,
                total: 2,
                connecting: 0,
                down: vec!["shop.b by tie0".to_owned()],
            },
            ..Outcome::default()
        }
    }

    #[test]
    fn a_member_with_one_path_is_ready_and_says_which_path_is_down() {
        let outcome = member();
        assert!(outcome.is_ready());
        assert!(find(&outcome, "Ready").holds);
        let paths = find(&outcome, "PathsUp");
        assert_eq!(paths.reason, Standing::SomeUp);
        assert!(
            paths.message.contains("shop.b by tie0"),
            "{}",
            paths.message
        );
    }

    #[test]
    fn whatever_is_wrong_is_the_reason_of_not_ready() {
        let cases = [
            (
                Outcome {
                    role: Role::Unknown,
                    awaiting: vec!["NetworkPlans"],
                    ..member()
                },
                Standing::Waiting,
            ),
            (
                Outcome {
                    role: Role::Unknown,
                    ..member()
                },
                Standing::PlanUnreadable,
            ),
            (
                Outcome {
                    role: Role::Guard,
                    ..member()
                },
                Standing::NotAccepted,
            ),
            (
                Outcome {
                    role: Role::Withdrawn,
                    ..member()
                },
                Standing::NoPlan,
            ),
            (
                Outcome {
                    read_error: Some("no nft".to_owned()),
                    ..member()
                },
                Standing::CannotRead,
            ),
            (
                Outcome {
                    write_errors: vec!["EPERM".to_owned()],
                    ..member()
                },
                Standing::CannotWrite,
            ),
            (
                Outcome {
                    remaining: vec!["route".to_owned()],
                    ..member()
                },
                Standing::ReadBackDiffers,
            ),
            (
                Outcome {
                    paths: Paths {
                        up: 0,
                        total: 2,
                        connecting: 0,
                        down: Vec::new(),
                    },
                    ..member()
                },
                Standing::NoneUp,
            ),
        ];
        for (outcome, reason) in cases {
            let ready = find(&outcome, "Ready");
            assert_eq!((ready.holds, ready.reason), (false, reason));
            assert!(!outcome.is_ready());
        }
    }

    #[test]
    fn vpn_sessions_are_named_in_an_order_that_does_not_change() {
        let vpn = |name: &str| VpnName::new(name).unwrap();
        let outcome = Outcome {
            sessions: BTreeMap::from([(vpn("hq"), true), (vpn("lab"), false), (vpn("dr"), true)]),
            ..member()
        };
        let verdict = find(&outcome, "VpnSessionsUp");
        assert!(!verdict.holds);
        assert_eq!(
            verdict.message,
            "2 of 3 VPN sessions are up; up: dr, hq; down: lab"
        );
        assert!(
            member()
                .verdicts()
                .iter()
                .all(|verdict| verdict.kind != PeerCondition::VpnSessionsUp)
        );
    }

    #[test]
    fn a_chain_that_drops_is_named_with_the_rules_to_add() {
        let outcome = Outcome {
            forward_drops: BTreeSet::from([
                "inet lockdown fwd".to_owned(),
                "ip filter FORWARD".to_owned(),
            ]),
            ..member()
        };
        let message = find(&outcome, "ForwardDropped").message;
        for words in [
            "inet lockdown fwd: run `nft insert rule inet lockdown fwd iifname \"tie*\" accept` and `nft insert rule inet lockdown fwd oifname \"tie*\" accept`",
            "ip filter FORWARD: run `iptables -I FORWARD -i tie+ -j ACCEPT` and `iptables -I FORWARD -o tie+ -j ACCEPT`",
        ] {
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn messages_are_bounded() {
        let outcome = Outcome {
            write_errors: (0..1000)
                .map(|n| format!("{n} {}", "x".repeat(1000)))
                .collect(),
            ..member()
        };
        let message = find(&outcome, "Applied").message;
        assert!(message.len() < 2000, "{}", message.len());
        assert!(message.ends_with("and 995 more"));
    }
}
