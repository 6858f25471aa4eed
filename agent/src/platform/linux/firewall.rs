//! Our nft tables: loaded in one transaction, read back as the kernel's own listing.
//!
//! The kernel prints a ruleset in its own words, so what it printed right after a load is kept on disk beside the ruleset;
//! as long as it prints the same, the tables are as we wrote them. That survives a restart of the agent without a
//! rewrite, and notices any change by others. Listing costs processes, so it is only done when the kernel's ruleset or its
//! links changed since the last time.

use super::generation::{self, Basis, Generation};
use super::sockets::Sockets;
use super::{nft, state};
use crate::files;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use tieline_core::host::firewall::Ruleset;

/// Name of the file in the state directory.
pub(super) const FILE: &str = "firewall.json";
/// How often tables are written again when others change rulesets while ours are read back.
const TRIES: u32 = 4;
/// Families and names of our tables.
const TABLES: [(&str, &str); 2] = [("inet", "tieline"), ("netdev", "tieline")];

/// What was loaded last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Loaded {
    ruleset: Ruleset,
    listing: String,
}

/// Our tables, and what we know of them.
#[derive(Debug)]
pub(super) struct Firewall {
    file: PathBuf,
    loaded: Option<Loaded>,
    /// `loaded` is not on disk yet.
    unsaved: bool,
    listed: Option<(Basis, String)>,
}

impl Firewall {
    /// Remembers what a former run loaded. A file that cannot be read is as good as none: the tables are written again.
    pub(super) fn open(state_dir: &Path) -> Self {
        let file = state_dir.join(FILE);
        Self {
            loaded: state::load(&file),
            unsaved: false,
            listed: None,
            file,
        }
    }

    /// The ruleset in force. Tables that are not as we wrote them are an empty ruleset, which nobody wants, so that they
    /// are replaced or removed; no tables are `None`.
    /// Without a basis, nothing is taken from memory.
    pub(super) async fn read(&mut self, basis: Option<Basis>) -> io::Result<Option<Ruleset>> {
        let listing = match (self.listed.take(), &basis) {
            (Some((then, listing)), Some(now)) if then == *now => listing,
            _ => list().await?,
        };
        self.listed = basis.map(|basis| (basis, listing.clone()));
        if listing.is_empty() {
            return Ok(None);
        }
        if self.unsaved
            && let Err(error) = self.save()
        {
            tracing::debug!(%error, "what was loaded is still not kept: the next start would load it again");
        }
        Ok(Some(match &self.loaded {
            Some(loaded) if loaded.listing == listing => loaded.ruleset.clone(),
            _ => Ruleset::default(),
        }))
    }

    /// Makes our tables this ruleset; `None` removes them. Tells whether it wrote.
    pub(super) async fn write(
        &mut self,
        sockets: &Sockets,
        ruleset: Option<&Ruleset>,
    ) -> io::Result<bool> {
        let Some(ruleset) = ruleset else {
            return self.remove().await;
        };
        self.replace(ruleset, sockets.generation.as_ref()).await?;
        Ok(true)
    }

    /// Makes our tables this ruleset: replaces elements of sets where nothing else differs, else all of them.
    ///
    /// What the kernel lists afterwards counts as ours only when nobody else has committed anything from before the load
    /// until after the listing; else a table that was changed or deleted meanwhile would be taken for what we wrote. Where
    /// it never is as quiet as that, nothing is remembered, and the next look writes again. A file that cannot be written
    /// is an error, but what was loaded is known all the same.
    async fn replace(
        &mut self,
        ruleset: &Ruleset,
        generation: Option<&Generation>,
    ) -> io::Result<()> {
        let mut update = self
            .loaded
            .as_ref()
            .and_then(|loaded| Some((ruleset.update_script(&loaded.ruleset)?, &loaded.listing)));
        for _ in 0..TRIES {
            let before = asked(generation).await;
            // Elements alone only where nobody can have changed the rest since the look.
            let updated = match update.take() {
                Some((script, listing)) if before.is_some() && list().await? == *listing => {
                    nft::load(&script).await.is_ok()
                }
                _ => false,
            };
            if !updated {
                nft::load(&ruleset.script()).await?;
            }
            let listing = list().await?;
            // A kernel that does not tell its generation is believed.
            if before.is_some() && asked(generation).await != before.map(generation::next) {
                continue;
            }
            self.loaded = Some(Loaded {
                ruleset: ruleset.clone(),
                listing,
            });
            return self.save();
        }
        self.forget()
    }

    /// Removes our tables; tables that are gone already are no error. Tells whether there were any.
    async fn remove(&mut self) -> io::Result<bool> {
        let mut script = String::new();
        for (family, name) in TABLES {
            if nft::list_table(family, name).await?.is_some() {
                script.push_str(&format!("delete table {family} {name}\n"));
            }
        }
        if !script.is_empty() {
            nft::load(&script).await?;
        }
        self.forget()?;
        Ok(!script.is_empty())
    }

    fn save(&mut self) -> io::Result<()> {
        self.unsaved = true;
        if let Some(loaded) = &self.loaded {
            state::save(&self.file, loaded)?;
        }
        self.unsaved = false;
        Ok(())
    }

    fn forget(&mut self) -> io::Result<()> {
        self.loaded = None;
        self.unsaved = false;
        files::remove(&self.file)
    }
}

async fn asked(generation: Option<&Generation>) -> Option<u32> {
    match generation {
        Some(generation) => generation.read().await,
        None => None,
    }
}

async fn list() -> io::Result<String> {
    let mut listing = String::new();
    for (family, name) in TABLES {
        if let Some(table) = nft::list_table(family, name).await? {
            listing.push_str(&table);
        }
    }
    Ok(listing)
}
