//! The control plane, and how tests run the program.

use anyhow::{Context as _, Result, ensure};
use e2e::control_plane::{ControlPlane, Options};
use e2e::world::{Programs, repository};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Sentences, and what proves them.
pub(crate) type Tests = Vec<(&'static str, fn(&Stage) -> Result<()>)>;

pub(crate) struct Stage {
    // Before its folder.
    control_plane: ControlPlane,
    program: PathBuf,
    folder: Folder,
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if std::env::var_os("TIELINE_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

impl std::ops::Deref for Stage {
    type Target = ControlPlane;
    fn deref(&self) -> &ControlPlane {
        &self.control_plane
    }
}

/// How the program ended.
pub(crate) struct Run {
    code: Option<i32>,
    pub(crate) output: String,
    pub(crate) errors: String,
}

impl Run {
    /// Its exit code; what it said is quoted when it is another one.
    pub(crate) fn ended_with(&self, code: i32) -> Result<()> {
        ensure!(
            self.code == Some(code),
            "exit code {:?} instead of {code}: {}{}",
            self.code,
            self.output,
            self.errors
        );
        Ok(())
    }
}

impl Stage {
    /// A control plane that knows nothing of Tieline.
    pub(crate) fn start() -> Result<Self> {
        let folder =
            Folder(std::env::temp_dir().join(format!("tieline-doctor-{}", std::process::id())));
        let control_plane = ControlPlane::start(Options::new(&folder.0).with_controller_manager())?;
        Ok(Self {
            control_plane,
            program: Programs::find()?.cli,
            folder,
        })
    }

    /// A folder for what a test writes.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// Definitions and manifests, as an installation brings them.
    pub(crate) fn install(&self) -> Result<()> {
        self.apply_crds(&repository().join("crds/yaml"))?;
        self.apply_path(&repository().join("deploy/manifests"))?;
        Ok(())
    }

    /// Runs `tieline` as administrator.
    pub(crate) fn tieline(&self, args: &[&str]) -> Result<Run> {
        self.tieline_as(self.kubeconfig(), args)
    }

    /// Runs `tieline` with another credential.
    pub(crate) fn tieline_as(&self, kubeconfig: &Path, args: &[&str]) -> Result<Run> {
        let output = Command::new(&self.program)
            .args(args)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .env_remove("KUBECONFIG")
            .env("HOME", self.folder())
            .output()
            .context("run tieline")?;
        Ok(Run {
            code: output.status.code(),
            output: String::from_utf8(output.stdout)?,
            errors: String::from_utf8(output.stderr)?,
        })
    }

    /// `tieline doctor -o json`, which must end with this code.
    pub(crate) fn doctor(&self, code: i32) -> Result<Findings> {
        let run = self.tieline(&["doctor", "-o", "json"])?;
        run.ended_with(code)?;
        Findings::parse(&run.output)
    }
}

/// What doctor found.
pub(crate) struct Findings(Vec<Value>);

impl Findings {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("parse doctor's JSON")?;
        Ok(Self(
            value["findings"].as_array().context("findings")?.clone(),
        ))
    }

    /// Every finding has the fields that scripts rely on.
    pub(crate) fn are_complete(&self) -> Result<()> {
        for it in &self.0 {
            for field in ["id", "severity", "message"] {
                ensure!(
                    it[field].as_str().is_some_and(|text| !text.is_empty()),
                    "no {field}: {it}"
                );
            }
            ensure!(
                it["severity"] == "ok" || it["action"].is_string() || it["id"] == "clock-here",
                "nothing to do: {it}"
            );
        }
        Ok(())
    }

    /// Passes when a check found this, somewhere, in these words.
    pub(crate) fn has(&self, id: &str, severity: &str, place: &str, words: &[&str]) -> Result<()> {
        let found = self.0.iter().any(|it| {
            let text = format!("{} {}", it["message"], it["action"]);
            it["id"] == id
                && it["severity"] == severity
                && it["where"].as_str().unwrap_or_default() == place
                && words.iter().all(|word| text.contains(word))
        });
        ensure!(
            found,
            "no {severity} of {id} at '{place}' with {words:?} in {:#?}",
            self.0
        );
        Ok(())
    }

    /// Findings of a severity, as text.
    pub(crate) fn of(&self, severity: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|it| it["severity"] == severity)
            .map(Value::to_string)
            .collect()
    }
}
