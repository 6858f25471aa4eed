//! Outside of the guest: control plane, operator, QEMU; and the outcome of each scenario.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::control_plane::{CREDENTIALS, ControlPlane, Options};
use e2e::guest::{Contents, Kernel, Line, Machine};
use e2e::lab::{API4, NetNs, Process};
use e2e::world::{Programs, repository};

use crate::scenarios::NEXT_AGENT;

/// Set for the pipes that QEMU starts: where they connect.
pub(crate) const PIPE: &str = "TIELINE_GUEST_PIPE";
/// A guest that is not through by then hangs. Alone on two cores it takes four minutes, beside other suites more.
const PATIENCE: Duration = Duration::from_secs(900);

/// Everything that runs, and what the guest has said so far.
struct Outside {
    // Dropped in this order.
    machine: Machine,
    _operator: Process,
    _control_plane: ControlPlane,
    scratch: PathBuf,
    started: Instant,
    said: BTreeMap<String, Option<String>>,
    /// Why nothing more will come.
    over: Option<String>,
}

static OUTSIDE: Mutex<Option<Result<Outside, String>>> = Mutex::new(None);

/// What the guest says of a scenario; the first call boots it with `wanted`.
pub(crate) fn outcome(name: &str, wanted: &[&str]) -> Result<()> {
    let mut shared = OUTSIDE.lock().unwrap_or_else(PoisonError::into_inner);
    let outside = shared
        .get_or_insert_with(|| Outside::start(wanted).map_err(|error| format!("{error:#}")))
        .as_mut()
        .map_err(|error| anyhow::anyhow!("there is no guest: {error}"))?;
    match outside.wait_for(name)? {
        None => Ok(()),
        Some(failure) => bail!("{failure}"),
    }
}

/// Reads to the guest's end, so that its logs are kept, and ends everything.
pub(crate) fn end() {
    let shared = OUTSIDE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(Ok(mut outside)) = shared {
        while outside.over.is_none() {
            outside.listen();
        }
        let took = outside.started.elapsed().as_secs_f64();
        figures(
            "kernel guest, boot to end",
            &serde_json::json!({"seconds": (took * 10.0).round() / 10.0}),
        );
        let _ = fs::remove_dir_all(&outside.scratch);
    }
}

impl Outside {
    fn start(wanted: &[&str]) -> Result<Self> {
        let kernel = Kernel::find()?;
        let programs = Programs::find()?;
        let own = std::env::current_exe()?;
        let scratch = std::env::temp_dir().join(format!("tieline-guest-{}", std::process::id()));
        let control_plane = ControlPlane::start(Options {
            other_addresses: vec![API4.into()],
            ..Options::new(&scratch).with_controller_manager()
        })?;
        control_plane.apply_crds(&repository().join("crds/yaml"))?;
        control_plane.apply_path(&repository().join("deploy/manifests"))?;

        let mut contents = Contents {
            test: own.clone(),
            programs: vec![
                ("tieline-agent".to_owned(), programs.agent.clone()),
                (NEXT_AGENT.to_owned(), Programs::next()?.agent),
                ("platform".to_owned(), platform_suite()?),
            ],
            files: vec![("wanted.json".to_owned(), serde_json::to_vec(wanted)?)],
        };
        for name in CREDENTIALS {
            let path = control_plane.dir().join("pki").join(name);
            let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            contents
                .files
                .push((format!("control-plane/pki/{name}"), bytes));
        }
        let address = control_plane.server();
        let address = address
            .strip_prefix("https://")
            .context("the API server has no address")?;
        let started = Instant::now();
        let machine = Machine::boot(
            "kernel-guest",
            &kernel,
            &contents,
            (&own, PIPE),
            address.parse()?,
            PATIENCE,
        )?;
        let mut operator = Command::new(&programs.operator);
        operator
            .args(["--cluster-name", "shop", "--kubeconfig"])
            .arg(control_plane.operator_kubeconfig()?);
        let operator = Process::start(
            &*NetNs::own()?,
            "operator",
            &mut operator,
            machine.folder().join("operator.log"),
        )?;
        control_plane.apply_path(&repository().join("tests/kernel-guest/network.yaml"))?;
        figures(
            "kernel guest",
            &serde_json::json!({"kernel": kernel.release()?}),
        );
        Ok(Self {
            machine,
            _operator: operator,
            _control_plane: control_plane,
            scratch,
            started,
            said: BTreeMap::new(),
            over: None,
        })
    }

    fn wait_for(&mut self, name: &str) -> Result<Option<String>> {
        loop {
            if let Some(outcome) = self.said.remove(name) {
                return Ok(outcome);
            }
            if let Some(why) = &self.over {
                bail!("the guest said nothing of it: {why}");
            }
            self.listen();
        }
    }

    /// Takes the next line of the report in.
    fn listen(&mut self) {
        match self.machine.next_line() {
            Ok(Some(Line::Step(_))) => {}
            Ok(Some(Line::Result {
                name,
                failure,
                seconds,
            })) => {
                figures(
                    &name,
                    &serde_json::json!({"seconds": (seconds * 10.0).round() / 10.0}),
                );
                self.said.insert(name, failure);
            }
            Ok(Some(Line::Figures {
                what,
                figures: value,
            })) => figures(&what, &value),
            Ok(Some(Line::Log { name, text })) => {
                // A guest's file name is no path.
                let name = name.replace('/', "-");
                let _ = fs::write(self.machine.folder().join(name), text);
            }
            Ok(None) => self.over = Some(format!("it has ended; {}", self.machine.last_words())),
            Err(error) => self.over = Some(format!("{error:#}")),
        }
    }
}

fn figures(what: &str, value: &serde_json::Value) {
    let line = serde_json::json!({"what": what, "figures": value});
    let _ = writeln!(std::io::stdout(), "figures: {line}");
}

/// The newest build of the agent's own suite, beside this one.
fn platform_suite() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("this program is in no folder")?;
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with("platform-") && path.extension().is_none() {
            found.push((fs::metadata(&path)?.modified()?, path));
        }
    }
    found.sort();
    ensure!(
        !found.is_empty(),
        "the suite `platform` is not built: run `cargo build --workspace --all-targets` first"
    );
    Ok(found.pop().map(|(_, path)| path).unwrap_or_default())
}
