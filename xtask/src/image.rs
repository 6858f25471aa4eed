//! The image: operator, agent and command line, static, with `nft` beside them, written without a container engine.
//!
//! ```text
//!  cargo build ─► three static programs ─┐
//!  Debian's packages ─► nft, libraries ──┼─► layers ─► config ─► manifest   one for each architecture
//!  LICENSE, NOTICE, copyrights ──────────┘                         └────────► index ─► one OCI archive
//!  cargo metadata, packages ─► SBOM (CycloneDX), one file for each architecture beside the archive
//! ```
//!
//! The same inputs give the same bytes: files are sorted and carry no time, owner or machine. What is too large, not static or
//! lacks a library is an error, not an image.

mod layer;
mod nft;
mod sbom;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use layer::{Tree, sha256};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Largest image of one architecture, as it is pulled.
const LIMIT: u64 = 40 * 1024 * 1024;
/// Programs, each from the package of this name.
const PROGRAMS: [(&str, &str); 3] = [
    ("tieline-operator", "tieline-operator"),
    ("tieline-agent", "tieline-agent"),
    ("tieline", "tieline-cli"),
];
/// Who runs where nothing else is said.
const USER: &str = "65532:65532";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Flags of `xtask image`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Architectures; several give one image for all of them.
    #[arg(long, value_delimiter = ',', default_value = "amd64,arm64")]
    arch: Vec<Arch>,
    /// Cargo profile: release, or dev for a lab that must not wait.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Name of the image.
    #[arg(long, default_value = "tieline.dev/tieline")]
    name: String,
    /// Tag of the image. Without it: the version.
    #[arg(long)]
    tag: Option<String>,
    /// Folder of the archive and the SBOMs.
    #[arg(long, default_value = "target/image")]
    out: PathBuf,
    /// Take what has been built already.
    #[arg(long)]
    no_build: bool,
    /// For a lab: take the programs of this folder, such as target/debug, as they are, with this machine's libraries. They must
    /// suit Debian's C library in the image. Builds nothing, and the size is not checked.
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
}

/// An architecture, by the name that images use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// x86-64.
    Amd64,
    /// 64-bit Arm.
    Arm64,
}

impl Arch {
    fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Cargo's name of the static target.
    fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }

    /// Debian's folder of libraries.
    fn triplet(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
        }
    }

    /// Whether it is this machine's.
    fn is_host(self) -> bool {
        self.triplet() == format!("{}-linux-gnu", std::env::consts::ARCH)
    }

    /// The C compiler that makes code for it here; ring has some C and assembly, the rest is Rust.
    fn compiler(self) -> String {
        if self.is_host() {
            "gcc".to_owned()
        } else {
            format!("{}-gcc", self.triplet())
        }
    }
}

/// Builds and writes everything. Returns what it did, for people.
///
/// # Errors
/// A build failed, a part is missing or not static, or the image is too large.
pub(crate) fn write(arguments: &Arguments) -> Result<String> {
    let cache = cache()?;
    let binaries = cache.join("image-target");
    if !arguments.no_build && arguments.programs.is_none() {
        build(arguments, &binaries)?;
    }
    let version = env!("CARGO_PKG_VERSION");
    let tag = arguments.tag.as_deref().unwrap_or(version);
    let out = crate::root()?.join(&arguments.out);
    fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    let folder = match arguments.profile.as_str() {
        "dev" => "debug",
        other => other,
    };

    let mut blobs = Blobs::default();
    let mut manifests = Vec::new();
    let mut report = Vec::new();
    for &arch in &arguments.arch {
        let nft = nft::find(arch, &cache.join("image/nft").join(arch.name()))?;
        let own = match &arguments.programs {
            Some(folder) => lab_files(arch, &crate::root()?.join(folder))?,
            None => own_files(arch, &binaries.join(arch.target()).join(folder))?,
        };
        let layers = [layer::pack(&nft.tree)?, layer::pack(&own)?];
        let (descriptor, size, unpacked) = manifest(&mut blobs, arch, version, &layers)?;
        report.push(format!(
            "{}: {:.1} MB to pull, {:.1} MB unpacked",
            arch.name(),
            megabytes(size),
            megabytes(unpacked)
        ));
        // What debug builds hold beside their code is nobody's to pull.
        ensure!(
            size <= LIMIT || arguments.profile == "dev" || arguments.programs.is_some(),
            "the {} image is {:.1} MB, more than the {:.0} MB that it may be",
            arch.name(),
            megabytes(size),
            megabytes(LIMIT)
        );
        manifests.push(descriptor);
        let path = out.join(format!("tieline-{tag}-{}.cdx.json", arch.name()));
        let sbom = sbom::write(arch, version, &PROGRAMS.map(|(_, package)| package), &nft)?;
        fs::write(&path, sbom).with_context(|| format!("writing {}", path.display()))?;
    }
    let index = blobs.add(
        INDEX,
        &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}),
    )?;
    let archive = blobs.archive(index, &format!("{}:{tag}", arguments.name), tag)?;
    let path = out.join(format!("tieline-{tag}.oci.tar"));
    fs::write(&path, &archive).with_context(|| format!("writing {}", path.display()))?;
    report.push(format!(
        "{}:{tag} in {} ({:.1} MB), SBOMs beside it",
        arguments.name,
        path.display(),
        megabytes(archive.len() as u64)
    ));
    Ok(report.join("\n"))
}

fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(
            std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?,
        )
        .join(".cache"),
    };
    Ok(base.join("tieline"))
}

/// One call for all architectures, so that build scripts and derives are compiled once.
fn build(arguments: &Arguments, target_dir: &Path) -> Result<()> {
    let root = crate::root()?;
    let mut command = Command::new("cargo");
    command
        .current_dir(&root)
        .args(["build", "--locked", "--profile", &arguments.profile])
        .args(["--config", r#"profile.release.strip="symbols""#])
        .args(["--config", r#"profile.dev.strip="symbols""#])
        .arg("--target-dir")
        .arg(target_dir);
    for (program, package) in PROGRAMS {
        command.args(["-p", package, "--bin", program]);
    }
    for arch in &arguments.arch {
        let (target, compiler) = (arch.target(), arch.compiler());
        ensure!(
            runs(&compiler),
            "{compiler} is missing: install it (Debian: gcc-{}), or name other architectures with --arch",
            arch.triplet().replace('_', "-")
        );
        let _ = Command::new("rustup")
            .args(["target", "add", target])
            .current_dir(&root)
            .status();
        let variable = target.replace('-', "_");
        // Rust's own linker where the machine's makes other code.
        let linker = if arch.is_host() {
            compiler.as_str()
        } else {
            "rust-lld"
        };
        command
            .args(["--target", target])
            .env(
                format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase()),
                linker,
            )
            .env(format!("CC_{variable}"), &compiler);
        if !arch.is_host() {
            command.env(format!("AR_{variable}"), format!("{}-ar", arch.triplet()));
        }
    }
    ensure!(
        command.status().context("running cargo")?.success(),
        "the build failed"
    );
    Ok(())
}

fn runs(program: &str) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| output.status.success())
}

/// Programs, licence and notice.
fn own_files(arch: Arch, programs: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    for (name, _) in PROGRAMS {
        let path = programs.join(name);
        let bytes = fs::read(&path).with_context(|| {
            format!(
                "reading {}; without --no-build it would be built",
                path.display()
            )
        })?;
        let headers = readelf("-l", &path)?;
        if headers.contains("INTERP") {
            bail!("{name} for {} is not static", arch.name());
        }
        tree.file(&format!("bin/{name}"), bytes, 0o755);
    }
    let root = crate::root()?;
    for name in ["LICENSE", "NOTICE"] {
        let bytes = fs::read(root.join(name)).with_context(|| format!("reading {name}"))?;
        tree.file(&format!("usr/share/doc/tieline/{name}"), bytes, 0o644);
    }
    Ok(tree)
}

/// Programs as a lab builds them: stripped, with the libraries of this machine that they name.
fn lab_files(arch: Arch, programs: &Path) -> Result<Tree> {
    ensure!(
        arch.is_host(),
        "--programs takes this machine's programs: say which with --arch"
    );
    let mut tree = Tree::default();
    let folders = ["/lib", "/usr/lib"].map(|base| Path::new(base).join(arch.triplet()));
    let mut libraries = BTreeMap::new();
    for (name, _) in PROGRAMS {
        let path = programs.join(name);
        let stripped = std::env::temp_dir().join(format!("{name}.{}.tmp", std::process::id()));
        let status = Command::new("strip")
            .arg("-o")
            .args([&stripped, &path])
            .status()
            .context("running strip (Debian: binutils)")?;
        ensure!(status.success(), "cannot strip {}", path.display());
        let bytes = fs::read(&stripped)?;
        fs::remove_file(&stripped)?;
        tree.file(&format!("bin/{name}"), bytes, 0o755);
        for library in nft::needed(&path)? {
            let found = folders.iter().map(|folder| folder.join(&library));
            if let Some(found) = found.into_iter().find(|path| path.exists()) {
                libraries.insert(library, found);
            }
        }
    }
    for (name, path) in libraries {
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        tree.file(&format!("lib/{}/{name}", arch.triplet()), bytes, 0o755);
    }
    Ok(tree)
}

/// Adds config, layers and manifest of one architecture: its descriptor, its size to pull and unpacked.
fn manifest(
    blobs: &mut Blobs,
    arch: Arch,
    version: &str,
    layers: &[layer::Packed],
) -> Result<(Value, u64, u64)> {
    let config = json!({
        "architecture": arch.name(),
        "os": "linux",
        "config": {
            "User": USER,
            "Env": ["PATH=/bin"],
            "Cmd": ["/bin/tieline"],
            "Labels": {
                "org.opencontainers.image.title": "tieline",
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
                "org.opencontainers.image.url": env!("CARGO_PKG_REPOSITORY"),
            },
        },
        "rootfs": {
            "type": "layers",
            "diff_ids": layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>(),
        },
    });
    let config = blobs.add(CONFIG, &config)?;
    let mut described = Vec::new();
    for layer in layers {
        described.push(blobs.add_bytes(LAYER, layer.gzip.clone()));
    }
    let pulled: u64 = layers.iter().map(|layer| layer.gzip.len() as u64).sum();
    let unpacked = layers.iter().map(|layer| layer.unpacked).sum();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": described,
    });
    let mut descriptor = blobs.add(MANIFEST, &manifest)?;
    descriptor["platform"] = json!({"architecture": arch.name(), "os": "linux"});
    Ok((descriptor, pulled, unpacked))
}

/// Blobs by digest.
#[derive(Default)]
struct Blobs(BTreeMap<String, Vec<u8>>);

impl Blobs {
    fn add(&mut self, media_type: &str, value: &Value) -> Result<Value> {
        Ok(self.add_bytes(media_type, serde_json::to_vec(value)?))
    }

    fn add_bytes(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let (digest, size) = (sha256(&bytes), bytes.len());
        self.0.insert(digest.clone(), bytes);
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size})
    }

    /// The OCI image layout as a tar. The names are what `ctr images import` and `skopeo` go by.
    fn archive(self, mut index: Value, image: &str, tag: &str) -> Result<Vec<u8>> {
        index["annotations"] = json!({
            "io.containerd.image.name": image,
            "org.opencontainers.image.ref.name": tag,
        });
        let top = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [index]});
        let mut tree = Tree::default();
        tree.file(
            "oci-layout",
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
            0o644,
        );
        tree.file("index.json", serde_json::to_vec(&top)?, 0o644);
        for (digest, bytes) in self.0 {
            tree.file(&format!("blobs/sha256/{digest}"), bytes, 0o644);
        }
        tree.tar()
    }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

fn readelf(flag: &str, file: &Path) -> Result<String> {
    let output = Command::new("readelf")
        .args([flag, "--wide"])
        .arg(file)
        .env("LC_ALL", "C")
        .output()
        .context("running readelf (Debian: binutils)")?;
    ensure!(
        output.status.success(),
        "readelf cannot read {}",
        file.display()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
