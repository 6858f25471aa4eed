//! Refuses to write to an older schema, which would drop new fields without a word.
//!
//! Reading does no harm meanwhile: an older schema holds less than this program knows, and nothing that it does not.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, ResourceExt};
use std::ops::ControlFlow;
use std::time::Duration;
use thiserror::Error;
use tieline_crds::{SCHEMA_ANNOTATION, SCHEMA_NUMBER};

/// Why objects of a kind are not written.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// The definition is older than this program. A retry helps once it has been updated.
    #[error(
        "{name} has schema {found}, and this program needs {SCHEMA_NUMBER} or newer: apply the CRDs of this version first"
    )]
    Older {
        /// Name of the definition.
        name: String,
        /// What it says.
        found: String,
    },
    /// The definition is not there. A retry helps once it has been applied.
    #[error("{0} is not defined: apply the CRDs first")]
    Missing(String),
    /// The API server did not say. A retry can help, unless it refused.
    #[error("cannot read the definition of {name}")]
    Unreadable {
        /// Name of the definition.
        name: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
}

impl SchemaError {
    /// Whether the API server refuses to let this program look.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Unreadable { source: kube::Error::Api(status), .. } if status.is_forbidden())
    }
}

/// Names of all definitions, for a program that writes to all.
#[must_use]
pub fn all() -> Vec<String> {
    tieline_crds::all()
        .iter()
        .map(ResourceExt::name_any)
        .collect()
}

/// Looks at these definitions until they fit, with a `pause` between two looks. `objection` hears each time why they do not, and may
/// say that it makes no difference.
pub async fn wait_for(
    client: &Client,
    definitions: &[String],
    pause: Duration,
    mut objection: impl FnMut(&SchemaError) -> ControlFlow<()>,
) {
    while let Err(error) = check(client, definitions).await {
        if objection(&error).is_break() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

/// Checks these definitions.
///
/// # Errors
/// [`SchemaError`] for the first that does not fit.
pub async fn check(client: &Client, definitions: &[String]) -> Result<(), SchemaError> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for name in definitions {
        let found = api
            .get_metadata_opt(name)
            .await
            .map_err(|source| SchemaError::Unreadable {
                name: name.clone(),
                source,
            })?;
        let found = found.ok_or_else(|| SchemaError::Missing(name.clone()))?;
        let number = found.annotations().get(SCHEMA_ANNOTATION);
        fits(name, number.map(String::as_str))?;
    }
    Ok(())
}

fn fits(name: &str, annotation: Option<&str>) -> Result<(), SchemaError> {
    let number = annotation.and_then(|text| text.parse::<u32>().ok());
    if number.is_some_and(|number| number >= SCHEMA_NUMBER) {
        return Ok(());
    }
    Err(SchemaError::Older {
        name: name.to_owned(),
        found: annotation.map_or_else(|| "none".to_owned(), |text| format!("{text:?}")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_older_or_unnumbered_schema_is_refused_and_a_newer_one_is_fine() {
        let ours = SCHEMA_NUMBER.to_string();
        let newer = (SCHEMA_NUMBER + 1).to_string();
        assert!(fits("x", Some(&ours)).is_ok());
        assert!(fits("x", Some(&newer)).is_ok());
        for bad in [None, Some("0"), Some("-1"), Some("new")] {
            let message = fits("peers.tieline.dev", bad).unwrap_err().to_string();
            assert!(message.contains("apply the CRDs"), "{message}");
        }
    }
}
