//! AddressLedger and the ledgers of `core`.

use super::{Invalid, Object, texts};
use crate::address_ledger::{
    AddressLedger, AddressLedgerSpec, GrantOwner, GrantState, GrantUse, LedgerGrant, OwnerKind,
};
use tieline_core::ledger::{Grant, Ledger, LedgerName, Owner, State, Use};

/// An AddressLedger.
///
/// # Errors
/// [`Invalid`] names the first field that does not hold what it should.
pub fn ledger(object: &AddressLedger) -> Result<(LedgerName, Ledger), Invalid> {
    let at = Object::new("AddressLedger", &object.metadata);
    let name = LedgerName::parse(at.name).ok_or_else(|| {
        at.invalid(
            "metadata.name",
            "a ledger is named hub, or cluster- and the name of a Cluster",
        )
    })?;
    let spec = &object.spec;
    let grants = spec
        .grants
        .iter()
        .enumerate()
        .map(|(index, it)| grant(at, index, it));
    let ledger = Ledger {
        lineage: at.parse("spec.lineage", &spec.lineage)?,
        revision: spec.revision,
        parents: at.parse_all("spec.parents", &spec.parents)?,
        grants: grants.collect::<Result<_, _>>()?,
    };
    Ok((name, ledger))
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

/// The AddressLedger that holds a ledger: name and spec only, so that a writer keeps the resourceVersion that it read.
#[must_use]
pub fn ledger_object(name: &LedgerName, ledger: &Ledger) -> AddressLedger {
    let grants = ledger.grants.iter().map(|grant| LedgerGrant {
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
    });
    let spec = AddressLedgerSpec {
        lineage: ledger.lineage.to_string(),
        revision: ledger.revision,
        parents: texts(ledger.parents.iter()),
        grants: grants.collect(),
    };
    AddressLedger::new(&name.to_string(), spec)
}
