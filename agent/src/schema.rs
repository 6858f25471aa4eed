//! Refuses to write to an older schema, which would drop new fields without a word.
//!
//! Asked once, beside the first watches, so that it delays nothing. Reading goes on meanwhile: an older schema holds
//! less than this agent knows, and nothing that it does not.

use crate::report::chain;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, ResourceExt};
use std::time::Duration;
use tieline_crds::{SCHEMA_ANNOTATION, SCHEMA_NUMBER};
use tokio::time::sleep;

/// The definition that an agent writes to.
const DEFINITION: &str = "peers.tieline.dev";
/// Pause between two looks at it.
const PAUSE: Duration = Duration::from_secs(10);

/// Returns when Peers may be written.
pub async fn wait_for(client: Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    loop {
        match api.get_metadata(DEFINITION).await {
            Ok(found) => match objection(found.annotations().get(SCHEMA_ANNOTATION)) {
                None => return,
                Some(objection) => tracing::error!("{objection}"),
            },
            // An installation may withhold this read: the operator's own check stands in for it.
            Err(kube::Error::Api(status)) if status.is_forbidden() => {
                tracing::warn!(error = %status, "schema not checked");
                return;
            }
            Err(error) => tracing::info!(error = %chain(&error), "schema not read yet"),
        }
        sleep(PAUSE).await;
    }
}

fn objection(annotation: Option<&String>) -> Option<String> {
    let number = annotation.and_then(|text| text.parse::<u32>().ok());
    if number.is_some_and(|number| number >= SCHEMA_NUMBER) {
        return None;
    }
    Some(format!(
        "{DEFINITION} has schema {}, and this agent needs {SCHEMA_NUMBER} or newer: apply the CRDs of this version; \
         the Peer's status is not written until then",
        annotation.map_or("none", String::as_str)
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_older_or_unnumbered_schema_is_objected_to_and_a_newer_one_is_fine() {
        assert_eq!(objection(Some(&SCHEMA_NUMBER.to_string())), None);
        assert_eq!(objection(Some(&(SCHEMA_NUMBER + 1).to_string())), None);
        for old in [None, Some(&"0".to_owned()), Some(&"x".to_owned())] {
            assert!(objection(old).unwrap().contains("apply the CRDs"));
        }
    }
}
