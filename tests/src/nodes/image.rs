//! OCI image archives of one layer, written without a builder and without a registry, as `ctr images import` takes them.
//!
//! The layout is that of the OCI image specification (image-layout.md, manifest.md, config.md); the tar files are POSIX
//! ustar. Same input, same bytes.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};

/// An image to be written.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Full reference with tag: `lab.local/probe:1`.
    pub reference: String,
    /// What containers of it run.
    pub entrypoint: Vec<String>,
    /// Its default arguments.
    pub arguments: Vec<String>,
    /// Files: path in the image, contents, permissions.
    pub files: Vec<(String, Vec<u8>, u32)>,
}

impl Image {
    /// An image with one program at `/NAME`, which is also its entry point.
    ///
    /// # Errors
    /// The program cannot be read.
    pub fn of_program(
        reference: &str,
        name: &str,
        program: &Path,
        arguments: &[&str],
    ) -> Result<Self> {
        let contents =
            fs::read(program).with_context(|| format!("reading {}", program.display()))?;
        Ok(Self {
            reference: reference.to_owned(),
            entrypoint: vec![format!("/{name}")],
            arguments: arguments.iter().map(ToString::to_string).collect(),
            files: vec![(name.to_owned(), contents, 0o755)],
        })
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// The reference has no tag, a path is longer than 100 bytes, or the file cannot be written.
    pub fn write(&self, archive: &Path) -> Result<()> {
        let (_, tag) = self
            .reference
            .rsplit_once(':')
            .with_context(|| format!("image reference '{}' has no tag", self.reference))?;
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let layer = self.layer()?;
        let config = json!({
            "architecture": architecture, "os": "linux",
            "config": {"Env": ["PATH=/"], "Entrypoint": self.entrypoint, "Cmd": self.arguments},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        })
        .to_string()
        .into_bytes();
        let describe = |kind: &str, blob: &[u8]| {
            json!({
                "mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": digest(blob), "size": blob.len(),
            })
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("config.v1+json", &config),
            "layers": [describe("layer.v1.tar", &layer)],
        })
        .to_string()
        .into_bytes();
        let mut entry = describe("manifest.v1+json", &manifest);
        entry["platform"] = json!({"architecture": architecture, "os": "linux"});
        entry["annotations"] = json!({
            "io.containerd.image.name": self.reference,
            "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();

        let mut tar = Tar::default();
        tar.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
        tar.file("index.json", index.as_bytes(), 0o644)?;
        for blob in [&layer, &config, &manifest] {
            let name = digest(blob).replace("sha256:", "blobs/sha256/");
            tar.file(&name, blob, 0o644)?;
        }
        fs::File::create(archive)
            .and_then(|mut file| file.write_all(&tar.finish()))
            .with_context(|| format!("writing {}", archive.display()))
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut tar = Tar::default();
        for folder in ["etc", "tmp", "proc", "sys", "dev", "run", "var"] {
            tar.folder(folder, if folder == "tmp" { 0o1777 } else { 0o755 })?;
        }
        tar.file("etc/passwd", b"root:x:0:0:root:/:/none\n", 0o644)?;
        tar.file("etc/group", b"root:x:0:\n", 0o644)?;
        for (path, contents, mode) in &self.files {
            tar.file(path.trim_start_matches('/'), contents, *mode)?;
        }
        Ok(tar.finish())
    }
}

fn digest(blob: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(blob))
}

/// A ustar file in memory; parents are made when they are first needed.
#[derive(Default)]
struct Tar {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
}

impl Tar {
    fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        if self.folders.insert(path.to_owned()) {
            self.header(&format!("{path}/"), b'5', mode, 0)?;
        }
        Ok(())
    }

    fn file(&mut self, path: &str, contents: &[u8], mode: u32) -> Result<()> {
        for (end, _) in path.match_indices('/') {
            self.folder(&path[..end], 0o755)?;
        }
        self.header(path, b'0', mode, contents.len())?;
        self.bytes.extend_from_slice(contents);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        Ok(())
    }

    /// pax(1), "ustar interchange format": 512 bytes, numbers in octal, owner 0:0, time 0.
    fn header(&mut self, path: &str, kind: u8, mode: u32, size: usize) -> Result<()> {
        ensure!(
            path.len() <= 100,
            "'{path}' is longer than a tar header holds"
        );
        let mut header = [0_u8; 512];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        put(0, path.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{size:011o}").as_bytes());
        put(136, b"00000000000");
        // The checksum counts its own field as spaces.
        put(148, b"        ");
        put(156, &[kind]);
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
        Ok(())
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}
