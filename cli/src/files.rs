//! Reads the objects of files and folders, as `kubectl apply -f` would, but with subfolders.
//!
//! Only reads. What an object means is `tieline-crds`' business.

use serde::Deserialize;
use serde_json::Value;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Folders below folders that are still read; deeper ones are an error, so that a link loop ends.
const MAX_DEPTH: usize = 8;

/// Why objects could not be read. A retry with the same files cannot help.
#[derive(Debug, Error)]
pub(crate) enum FilesError {
    /// File or folder missing or unreadable.
    #[error("cannot read {path}")]
    Read {
        /// Where.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// Not YAML or JSON.
    #[error("{origin} is no YAML or JSON")]
    Syntax {
        /// File and document.
        origin: Origin,
        /// Cause.
        #[source]
        source: serde_norway::Error,
    },
    /// A document without kind or name.
    #[error("{origin} is no Kubernetes object: it needs apiVersion, kind and metadata.name")]
    NoObject {
        /// File and document.
        origin: Origin,
    },
    /// Folders too deep.
    #[error("{path} lies more than {MAX_DEPTH} folders deep; name the folder itself with -f")]
    TooDeep {
        /// Where.
        path: PathBuf,
    },
    /// Nothing found.
    #[error("no object in {0}: expected .yaml, .yml or .json files")]
    Nothing(String),
}

/// Where an object stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// File.
    pub path: PathBuf,
    /// Number of the document in it, from 1.
    pub document: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (document {})", self.path.display(), self.document)
    }
}

/// One object of a file.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    /// Where it stands.
    pub origin: Origin,
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// The whole object.
    pub value: Value,
}

/// Reads all objects of the given files and folders, in the order of their paths. Items of a `List` are unpacked.
///
/// # Errors
/// [`FilesError`], naming file and document.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Object>, FilesError> {
    let mut files = Vec::new();
    for path in paths {
        collect(path, 0, &mut files)?;
    }
    let mut objects = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).map_err(|source| FilesError::Read {
            path: path.clone(),
            source,
        })?;
        for (at, document) in serde_norway::Deserializer::from_str(&text).enumerate() {
            let origin = Origin {
                path: path.clone(),
                document: at + 1,
            };
            let value = Value::deserialize(document).map_err(|source| FilesError::Syntax {
                origin: origin.clone(),
                source,
            })?;
            unpack(value, origin, &mut objects)?;
        }
    }
    if objects.is_empty() {
        let names: Vec<String> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        return Err(FilesError::Nothing(names.join(", ")));
    }
    Ok(objects)
}

fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), FilesError> {
    let read_error = |source| FilesError::Read {
        path: path.to_owned(),
        source,
    };
    if !fs::metadata(path).map_err(read_error)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    if depth > MAX_DEPTH {
        return Err(FilesError::TooDeep {
            path: path.to_owned(),
        });
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(read_error)? {
        entries.push(entry.map_err(read_error)?.path());
    }
    entries.sort();
    for entry in entries {
        let is_manifest = entry
            .extension()
            .is_some_and(|ext| ext == "yaml" || ext == "yml" || ext == "json");
        if entry.is_dir() || is_manifest {
            collect(&entry, depth + 1, files)?;
        }
    }
    Ok(())
}

fn unpack(value: Value, origin: Origin, objects: &mut Vec<Object>) -> Result<(), FilesError> {
    if value.is_null() {
        return Ok(()); // an empty document: a comment between two `---`
    }
    let text = |field: &str| value.get(field).and_then(Value::as_str).map(str::to_owned);
    let (Some(api_version), Some(kind)) = (text("apiVersion"), text("kind")) else {
        return Err(FilesError::NoObject { origin });
    };
    if kind == "List" {
        for item in value
            .get("items")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            unpack(item.clone(), origin.clone(), objects)?;
        }
        return Ok(());
    }
    if value
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .is_none()
    {
        return Err(FilesError::NoObject { origin });
    }
    objects.push(Object {
        origin,
        api_version,
        kind,
        value,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_document_that_is_no_object_is_named_by_file_and_number() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("a.yaml"),
            "apiVersion: v1\nkind: Node\nmetadata: {name: n}\n---\nkind: X\n",
        )
        .unwrap();
        let error = read(&[dir.path().to_owned()]).unwrap_err().to_string();
        assert!(
            error.contains("a.yaml (document 2)") && error.contains("metadata.name"),
            "{error}"
        );
    }

    #[test]
    fn lists_are_unpacked_and_other_files_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Node, metadata: {name: a}}\n- {apiVersion: v1, kind: Node, metadata: {name: b}}\n";
        fs::write(dir.path().join("sub/list.yml"), list).unwrap();
        fs::write(dir.path().join("README.md"), "# no manifest").unwrap();
        assert_eq!(read(&[dir.path().to_owned()]).unwrap().len(), 2);
        assert!(matches!(
            read(&[dir.path().join("absent")]),
            Err(FilesError::Read { .. })
        ));
    }
}
