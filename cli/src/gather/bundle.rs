//! The archive: files with a bound on each and on all, and a list of what was left out.

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use std::io::Write;
use std::path::Path;

/// Bytes of one file, before compression. A log keeps its end, a list its beginning.
pub(crate) const FILE_LIMIT: usize = 4 << 20;

/// What will be written.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// Folder that everything lies in.
    pub root: String,
    files: Vec<(String, String)>,
    left_out: Vec<String>,
    limit: usize,
    held: usize,
}

impl Bundle {
    /// An empty one that takes this many bytes.
    pub(crate) fn new(root: String, limit: usize) -> Self {
        Self {
            root,
            files: Vec::new(),
            left_out: Vec::new(),
            limit,
            held: 0,
        }
    }

    /// Says that something is not in it, and why.
    pub(crate) fn leave_out(&mut self, what: impl Into<String>) {
        self.left_out.push(what.into());
    }

    /// Adds a file, when there is room.
    pub(crate) fn add(&mut self, path: &str, text: String) {
        if self.held + text.len() > self.limit {
            self.leave_out(format!("{path}: the bundle is full (--max-size)"));
            return;
        }
        self.held += text.len();
        self.files.push((path.to_owned(), text));
    }

    /// Adds a log; of a long one the end.
    pub(crate) fn add_log(&mut self, path: &str, text: String) {
        let start = text.len().saturating_sub(FILE_LIMIT);
        let start = (start..text.len())
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        if start > 0 {
            self.leave_out(format!("{path}: the first {start} bytes"));
        }
        self.add(path, text[start..].to_owned());
    }

    /// Adds objects as a YAML list; of a long one the beginning.
    pub(crate) fn add_objects(&mut self, path: &str, objects: &[Value]) -> Result<()> {
        let mut text = String::new();
        for (index, object) in objects.iter().enumerate() {
            let one = serde_norway::to_string(object).context("cannot write YAML")?;
            if text.len() + one.len() > FILE_LIMIT {
                self.leave_out(format!(
                    "{path}: {} of {} objects",
                    objects.len() - index,
                    objects.len()
                ));
                break;
            }
            text.push_str("---\n");
            text.push_str(&one);
        }
        if objects.is_empty() {
            text.push_str("# none\n");
        }
        self.add(path, text);
        Ok(())
    }

    /// What is in it, as path and size.
    pub(crate) fn contents(&self) -> impl Iterator<Item = (&str, usize)> {
        self.files
            .iter()
            .map(|(path, text)| (path.as_str(), text.len()))
    }

    /// What is not in it, and why.
    pub(crate) fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Writes the archive for its owner alone. A file that exists is not replaced.
    ///
    /// # Errors
    /// The file exists or cannot be written.
    pub(crate) fn write(&self, path: &Path, seconds: u64) -> Result<()> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options
            .open(path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        let written = self.write_to(file, seconds);
        if written.is_err() {
            let _ = std::fs::remove_file(path);
        }
        written.with_context(|| format!("cannot write {}", path.display()))
    }

    fn write_to(&self, file: impl Write, seconds: u64) -> Result<()> {
        let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
        for (path, text) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(seconds);
            archive.append_data(
                &mut header,
                format!("{}/{path}", self.root),
                text.as_bytes(),
            )?;
        }
        archive.into_inner()?.finish()?.flush()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;
    use std::io::Read;

    #[test]
    fn an_archive_holds_what_was_added_and_no_more_than_its_limit() {
        let mut bundle = Bundle::new("root".into(), FILE_LIMIT + 100);
        bundle.add("a.txt", "hello".into());
        bundle.add_log("b.log", format!("{}end", "x".repeat(FILE_LIMIT)));
        bundle.add("c.txt", "y".repeat(200));
        bundle
            .add_objects("d.yaml", &[json!({"a": 1}), json!({"b": 2})])
            .unwrap();
        assert_eq!(
            bundle.left_out(),
            [
                "b.log: the first 3 bytes",
                "c.txt: the bundle is full (--max-size)"
            ]
        );
        let mut archive = Vec::new();
        bundle.write_to(&mut archive, 7).unwrap();
        let mut found = Vec::new();
        for entry in tar::Archive::new(flate2::read::GzDecoder::new(archive.as_slice()))
            .entries()
            .unwrap()
        {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.push((entry.path().unwrap().display().to_string(), text));
        }
        assert_eq!(found[0], ("root/a.txt".to_owned(), "hello".to_owned()));
        assert!(found[1].1.ends_with("xend") && found[1].1.len() == FILE_LIMIT);
        assert_eq!(
            found[2],
            (
                "root/d.yaml".to_owned(),
                "---\na: 1\n---\nb: 2\n".to_owned()
            )
        );
    }

    #[test]
    fn a_file_that_exists_is_not_replaced() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Bundle::new("root".into(), 1)
            .write(file.path(), 7)
            .unwrap_err();
        assert!(error.to_string().contains("cannot create"), "{error}");
    }

    #[test]
    fn a_long_list_keeps_its_beginning() {
        let mut bundle = Bundle::new("root".into(), 10 * FILE_LIMIT);
        let big = json!({"text": "z".repeat(FILE_LIMIT / 2)});
        bundle
            .add_objects("e.yaml", &[big.clone(), big.clone(), big])
            .unwrap();
        assert_eq!(bundle.left_out(), ["e.yaml: 2 of 3 objects"]);
    }
}
