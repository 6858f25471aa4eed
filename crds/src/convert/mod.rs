//! Objects to `core` values and back: the one place where texts of the API become checked values.
//!
//! Everything is parsed once. What a schema guarantees is still checked here, because objects also come from files and
//! from API servers with an older schema; what does not fit *together* is not: that is the planner's business.
//!
//! ```text
//!  ClusterLink, Cluster, Site, VpnAttachment, Node ──► core::fleet      (users write, one way)
//!  AddressLedger ◄──► core::ledger, core::slices                        (the operator's own)
//!  NetworkPlan   ◄──► core::network_plan
//!  Peer.spec     ◄──► core::peer::AcceptedPeer
//!  Peer.status   ◄──► core::peer::Claim                                 (to be checked before it is believed)
//! ```

mod fleet;
mod ledger;
mod ledgers;
mod peer;
mod plan;

pub use fleet::{cluster, link, node, service_cidr, site, vpn};
pub use ledger::{
    ledger_head, ledger_head_object, ledger_object, ledger_slice, ledger_slice_name,
    ledger_slice_object,
};
pub use ledgers::{LedgerReader, LostSlices, StoredLedgers};
pub use peer::{accepted_peer, claim, peer_spec, peer_status};
pub use plan::{PlanTooLarge, network_plan, plan_spec};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeSet;
use std::fmt;
use thiserror::Error;
use tieline_core::notice::{About, Kind, Notice, Reason};

/// A field that does not hold what it should. A retry with the same object cannot help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind} {name}: {field}: {message}")]
pub struct Invalid {
    /// Kind of the object.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Path of the field, as in `spec.pods.cidrs[1]`.
    pub field: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl From<&Invalid> for Notice {
    fn from(it: &Invalid) -> Self {
        Self {
            about: About::Unread(it.kind, it.name.clone()),
            link: None,
            reason: Reason::Invalid,
            message: format!("{}: {}", it.field, it.message),
        }
    }
}

/// The object that is being read.
#[derive(Clone, Copy)]
struct Object<'a> {
    kind: Kind,
    name: &'a str,
}

impl<'a> Object<'a> {
    fn new(kind: Kind, metadata: &'a ObjectMeta) -> Self {
        Self {
            kind,
            name: metadata.name.as_deref().unwrap_or_default(),
        }
    }

    fn invalid(self, field: impl fmt::Display, message: impl fmt::Display) -> Invalid {
        Invalid {
            kind: self.kind,
            name: self.name.to_owned(),
            field: field.to_string(),
            message: message.to_string(),
        }
    }

    /// The object's own name.
    fn own_name<T>(self) -> Result<T, Invalid>
    where
        T: TryFrom<String>,
        T::Error: fmt::Display,
    {
        self.parse("metadata.name", self.name)
    }

    fn parse<T>(self, field: impl fmt::Display, text: &str) -> Result<T, Invalid>
    where
        T: TryFrom<String>,
        T::Error: fmt::Display,
    {
        T::try_from(text.to_owned()).map_err(|error| self.invalid(field, error))
    }

    fn parse_all<T, C>(self, field: impl fmt::Display, texts: &[String]) -> Result<C, Invalid>
    where
        T: TryFrom<String>,
        T::Error: fmt::Display,
        C: FromIterator<T>,
    {
        let parsed = texts
            .iter()
            .enumerate()
            .map(|(at, text)| self.parse(format_args!("{field}[{at}]"), text));
        parsed.collect()
    }

    /// Names as a set; one that stands twice is one.
    fn names<T>(self, field: impl fmt::Display, texts: &[String]) -> Result<BTreeSet<T>, Invalid>
    where
        T: TryFrom<String> + Ord,
        T::Error: fmt::Display,
    {
        self.parse_all::<T, _>(field, texts)
    }

    /// A number with an upper bound.
    fn at_most(self, field: impl fmt::Display, number: u8, limit: u8) -> Result<u8, Invalid> {
        if number > limit {
            return Err(self.invalid(
                field,
                format_args!("{number} is too large: write at most {limit}"),
            ));
        }
        Ok(number)
    }
}

/// Texts of values.
fn texts<T: fmt::Display>(values: impl IntoIterator<Item = T>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}

#[cfg(test)]
mod tests;
