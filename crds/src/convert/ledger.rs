//! One AddressLedger, as a head or a slice of a ledger of `core`, and back.

use super::{Invalid, Object, texts};
use crate::address_ledger::{
    AddressLedger, AddressLedgerSpec, GrantOwner, GrantState, GrantUse, LedgerGrant, OwnerKind,
    SLICE_COUNT,
};
use tieline_core::ledger::{Grant, Ledger, LedgerName, Owner, State, Use};
use tieline_core::notice::Kind;
use tieline_core::slices::{Head, Slice, SliceId};

/// The head of a ledger: an AddressLedger whose name is a ledger's.
///
/// # Errors
/// [`Invalid`] names the first field that does not hold what it should.
pub fn ledger_head(object: &AddressLedger) -> Result<(LedgerName, Head), Invalid> {
    let at = Object::new(Kind::AddressLedger, &object.metadata);
    let name = ledger_name(at, at.name)?;
    let spec = &object.spec;
    let annotations = object.metadata.annotations.as_ref();
    let count = annotations.and_then(|it| it.get(SLICE_COUNT));
    let listed = spec.slices.len();
    if count.map_or(0, |it| it.parse().unwrap_or(usize::MAX)) != listed {
        let said = count.map_or("0", String::as_str);
        return Err(at.invalid(
            "spec.slices",
            format_args!(
                "{listed} slices are listed, and there were {said} (annotation {SLICE_COUNT}): an older definition dropped the others, or \
                 it was edited by hand. List what follows the dot in the name of every AddressLedger {}.*",
                at.name
            ),
        ));
    }
    let head = Head {
        lineage: at.parse("spec.lineage", &spec.lineage)?,
        revision: spec.revision,
        parents: at.parse_all("spec.parents", &spec.parents)?,
        grants: grants(at, spec)?,
        slices: at.parse_all("spec.slices", &spec.slices)?,
    };
    Ok((name, head))
}

/// A slice: an AddressLedger whose name is a ledger's, a dot and a digest.
///
/// # Errors
/// [`Invalid`] names the first field that does not hold what it should, also where the content is not what the name is the
/// digest of.
pub fn ledger_slice(object: &AddressLedger) -> Result<(LedgerName, Slice), Invalid> {
    let at = Object::new(Kind::AddressLedger, &object.metadata);
    let (name, id) = at.name.split_once('.').unwrap_or((at.name, ""));
    let name = ledger_name(at, name)?;
    let id: SliceId = at.parse("metadata.name", id)?;
    let spec = &object.spec;
    let lineage = at.parse("spec.lineage", &spec.lineage)?;
    let slice = Slice::new(lineage, spec.revision, grants(at, spec)?);
    if *slice.id() == id {
        Ok((name, slice))
    } else {
        Err(at.invalid(
            "spec",
            "it was edited by hand: its name is the digest of another content. Put the saved object back",
        ))
    }
}

fn ledger_name(at: Object<'_>, name: &str) -> Result<LedgerName, Invalid> {
    LedgerName::parse(name).ok_or_else(|| {
        at.invalid(
            "metadata.name",
            "a ledger is named hub, or cluster- and the name of a Cluster",
        )
    })
}

fn grants(at: Object<'_>, spec: &AddressLedgerSpec) -> Result<Vec<Grant>, Invalid> {
    let grants = spec.grants.iter().enumerate();
    grants.map(|(index, it)| grant(at, index, it)).collect()
}

fn grant(at: Object<'_>, index: usize, spec: &LedgerGrant) -> Result<Grant, Invalid> {
    let owner_name = format!("spec.grants[{index}].owner.name");
    Ok(Grant {
        prefix: at.parse(format_args!("spec.grants[{index}].prefix"), &spec.prefix)?,
        used_for: match spec.used_for {
            GrantUse::Pod => Use::Pod,
            GrantUse::Mesh => Use::Mesh,
        },
        owner: match spec.owner.kind {
            OwnerKind::Cluster => Owner::Cluster(at.parse(owner_name, &spec.owner.name)?),
            OwnerKind::Site => Owner::Site(at.parse(owner_name, &spec.owner.name)?),
            OwnerKind::Node => Owner::Node(at.parse(owner_name, &spec.owner.name)?),
        },
        state: match spec.state {
            GrantState::Active => State::Active,
            GrantState::Imported => State::Imported,
            GrantState::Released => State::Released,
        },
    })
}

/// The AddressLedger that holds the head of a ledger: name and spec only, so that a writer keeps the resourceVersion that it
/// read.
#[must_use]
pub fn ledger_head_object(name: &LedgerName, head: &Head) -> AddressLedger {
    let spec = AddressLedgerSpec {
        lineage: head.lineage.to_string(),
        revision: head.revision,
        parents: texts(head.parents.iter()),
        grants: head.grants.iter().map(grant_spec).collect(),
        slices: texts(&head.slices),
    };
    let mut object = AddressLedger::new(&name.to_string(), spec);
    if !head.slices.is_empty() {
        let count = (SLICE_COUNT.to_owned(), head.slices.len().to_string());
        object.metadata.annotations = Some([count].into());
    }
    object
}

/// The AddressLedger that holds a slice.
#[must_use]
pub fn ledger_slice_object(name: &LedgerName, slice: &Slice) -> AddressLedger {
    let spec = AddressLedgerSpec {
        lineage: slice.lineage().to_string(),
        revision: slice.revision(),
        parents: Vec::new(),
        grants: slice.grants().iter().map(grant_spec).collect(),
        slices: Vec::new(),
    };
    AddressLedger::new(&ledger_slice_name(name, slice.id()), spec)
}

/// Name of the AddressLedger that holds a slice.
#[must_use]
pub fn ledger_slice_name(name: &LedgerName, id: &SliceId) -> String {
    format!("{name}.{id}")
}

/// A whole ledger as one AddressLedger, for people to read. It may be larger than what an API server takes.
#[must_use]
pub fn ledger_object(name: &LedgerName, ledger: &Ledger) -> AddressLedger {
    let head = Head {
        lineage: ledger.lineage.clone(),
        revision: ledger.revision,
        parents: ledger.parents.clone(),
        grants: ledger.grants.clone(),
        slices: Vec::new(),
    };
    ledger_head_object(name, &head)
}

fn grant_spec(grant: &Grant) -> LedgerGrant {
    LedgerGrant {
        prefix: grant.prefix.to_string(),
        used_for: match grant.used_for {
            Use::Pod => GrantUse::Pod,
            Use::Mesh => GrantUse::Mesh,
        },
        owner: GrantOwner {
            kind: match grant.owner {
                Owner::Cluster(_) => OwnerKind::Cluster,
                Owner::Site(_) => OwnerKind::Site,
                Owner::Node(_) => OwnerKind::Node,
            },
            name: grant.owner.name().to_owned(),
        },
        state: match grant.state {
            State::Active => GrantState::Active,
            State::Imported => GrantState::Imported,
            State::Released => GrantState::Released,
        },
    }
}
