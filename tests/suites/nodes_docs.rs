//! A reader's first ten minutes: the commands of the install, upgrade and uninstall pages, copied and pasted in this order on a
//! fresh cluster of real nodes. Needs the machine's own root.
#![allow(clippy::unwrap_used)]
// How long each command took is part of what this suite is for.
#![allow(clippy::print_stdout)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::docs::{INSTALL, Page, UNINSTALL, UPGRADE};
use e2e::lab::{Lifetime, Topology};
use e2e::nodes::{Cni, NodeLab, ProxyMode, Tieline, enter, probes, tieline};
use e2e::wait::eventually;
use e2e::world::{Programs, repository};
use libtest_mimic::{Arguments, Failed, Trial};

/// All pages whose commands are run, in the order in which a cluster meets them.
/// The only words of the pages that are not taken as they stand: a lab has no registry.
const IMAGE: &str = "image.repository=registry.example/tieline";
/// Tag of the newer image.
const NEXT: &str = "next";
/// From the first command of the install page to a Ready ClusterLink.
const TEN_MINUTES: Duration = Duration::from_secs(120);
/// From Ready to every pod's answer.
const PATIENCE: Duration = Duration::from_secs(15);
const NODES_READY: Duration = Duration::from_secs(60);

fn main() {
    let mut arguments = Arguments::from_args();
    if !arguments.list {
        enter(Lifetime::WithParent);
    }
    // One cluster, from page to page.
    arguments.test_threads = Some(1);
    let trials = vec![
        trial("following the install page ends in Ready", install),
        trial("the objects that pages show are valid", objects),
        trial(
            "following the upgrade page ends in Ready, and back again",
            upgrade,
        ),
        trial("following the uninstall page leaves nothing", uninstall),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(READER.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit();
}

fn trial(name: &'static str, test: fn(&mut Reader) -> Result<()>) -> Trial {
    Trial::test(name, move || {
        let run = || -> Result<()> {
            let mut shared = READER.lock().unwrap_or_else(PoisonError::into_inner);
            if shared.is_none() {
                *shared = Some(Reader::start()?);
            }
            let reader = shared.as_mut().context("no cluster")?;
            let result = test(reader);
            if result.is_err() {
                Tieline::at(&reader.lab)?.keep_logs(&reader.lab);
                drop(shared.take());
            }
            result
        };
        run().map_err(|error| Failed::from(format!("{error:#}")))
    })
}

static READER: Mutex<Option<Reader>> = Mutex::new(None);

/// Somebody with a cluster, a checkout and the three programs.
struct Reader {
    lab: NodeLab,
    /// Stands for the top folder of the checkout, so that files that pages write do not stay in the real one.
    folder: PathBuf,
    path: String,
}

impl Reader {
    /// Seven nodes in three sites, podCIDRs by kube-controller-manager, flannel, kube-proxy with iptables. An odd number, so that
    /// one node's range has no neighbour: the page does not say which range all of them are from.
    fn start() -> Result<Self> {
        let topology = Topology::three_sites()
            .without_vpn()
            .nodes("paris", "shop", 1);
        let options = Tieline::options("docs", topology, Cni::Flannel, ProxyMode::Iptables)?;
        let lab = NodeLab::start_with(options)?;
        lab.import(&Tieline::archive(NEXT)?)?;
        lab.wait_ready(NODES_READY)?;

        let folder = lab.lab().state().join("checkout");
        let bin = folder.join("bin");
        fs::create_dir_all(&bin)?;
        let programs = [
            ("kubectl", lab.control_plane().binaries().kubectl.clone()),
            ("helm", Tieline::at(&lab)?.helm_path().to_path_buf()),
            ("tieline", Programs::find()?.cli),
        ];
        for (name, program) in programs {
            std::os::unix::fs::symlink(program, bin.join(name))?;
        }
        std::os::unix::fs::symlink(repository().join("deploy"), folder.join("deploy"))?;
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
        Ok(Self { lab, folder, path })
    }

    /// Runs commands as a shell does into which they are pasted, but stops at the first that fails.
    fn paste(&self, commands: &str) -> Result<String> {
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", commands])
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", &self.folder)
            .env("KUBECONFIG", self.lab.control_plane().kubeconfig())
            .output()
            .context("running bash")?;
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        ensure!(output.status.success(), "{said}");
        Ok(said)
    }

    /// Follows a page from its first command to its last, with the image of `tag`, and looks around after each.
    fn follow(
        &self,
        file: &str,
        tag: &str,
        mut look: impl FnMut(&str, &str) -> Result<()>,
    ) -> Result<()> {
        let page = Page::read(file)?;
        let commands = page.commands()?;
        ensure!(!commands.is_empty(), "docs/{file} has no commands");
        for (name, commands) in commands {
            let image = format!("image.tag={tag},image.pullPolicy=Never");
            let begun = Instant::now();
            let said = self
                .paste(&commands.replace(IMAGE, &image))
                .with_context(|| format!("docs/{file}, {name}"))?;
            let took = begun.elapsed().as_secs_f64();
            println!("docs/{file}, {name}: {took:.1} s");
            look(name, &said).with_context(|| format!("docs/{file}, after {name}"))?;
        }
        Ok(())
    }

    /// The image that every agent runs.
    fn agents_run(&self, tag: &str) -> Result<()> {
        let images = self.paste(
            "kubectl -n tieline-system get pods -l app.kubernetes.io/component=agent \
             -o jsonpath='{range .items[*]}{.spec.containers[0].image}{\"\\n\"}{end}'",
        )?;
        let images: Vec<&str> = images.lines().collect();
        let nodes = self.lab.running().len();
        ensure!(
            images.len() == nodes
                && images
                    .iter()
                    .all(|image| image.ends_with(&format!(":{tag}"))),
            "{nodes} agents shall run :{tag}: {images:?}"
        );
        Ok(())
    }

    /// Pods on all nodes, and whether each site's first reaches all the others under its own address.
    fn pods_talk(&self) -> Result<()> {
        let nodes = self.lab.running().len();
        self.lab
            .control_plane()
            .apply(&probes("everywhere", None))?;
        let pods =
            self.lab
                .wait_pods("default", "app=everywhere", nodes, Duration::from_secs(60))?;
        for from in &pods {
            for to in pods.iter().filter(|to| to.name != from.name) {
                // A first handshake that got lost is asked for again within seconds.
                let answers = eventually("a pod to answer another", PATIENCE, || {
                    self.lab.ask(from, &to.url(8080)?, 1)
                })?;
                ensure!(
                    answers.len() == 1 && answers[0].client == from.address()?,
                    "{} to {}: {answers:?}",
                    from.node,
                    to.node
                );
            }
        }
        Ok(())
    }
}

fn install(reader: &mut Reader) -> Result<()> {
    let begun = Instant::now();
    let mut planned = false;
    reader.follow(INSTALL, tieline::TAG, |name, said| {
        if name == "plan" {
            ensure!(said.starts_with("Accepted."), "{said}");
            planned = true;
        }
        Ok(())
    })?;
    let took = begun.elapsed();
    println!("docs/{INSTALL}: Ready after {:.1} s", took.as_secs_f64());
    ensure!(took <= TEN_MINUTES, "it took {took:?}");
    ensure!(planned, "the page shows no plan");
    reader.agents_run(tieline::TAG)?;
    reader.pods_talk()
}

fn objects(reader: &mut Reader) -> Result<()> {
    let mut seen = 0;
    for file in [
        INSTALL,
        "k3s.md",
        "eks.md",
        UPGRADE,
        UNINSTALL,
        "troubleshooting.md",
    ] {
        for block in Page::read(file)?.objects() {
            let path = reader.folder.join("objects.yaml");
            fs::write(&path, &block.text)?;
            reader
                .paste("kubectl apply --dry-run=server --validate=strict -f objects.yaml")
                .with_context(|| format!("docs/{file}:{}", block.line))?;
            seen += 1;
        }
    }
    ensure!(seen > 0, "no page shows an object");
    Ok(())
}

fn upgrade(reader: &mut Reader) -> Result<()> {
    let mut ran = Vec::new();
    reader.follow(UPGRADE, NEXT, |name, _| {
        ran.push(name.to_owned());
        match name {
            "upgrade" => reader.agents_run(NEXT)?,
            "rollback" => reader.agents_run(tieline::TAG)?,
            other => bail!("nobody looks what {other} did"),
        }
        reader.pods_talk()
    })?;
    ensure!(ran == ["upgrade", "rollback"], "the page runs {ran:?}");
    Ok(())
}

/// Our routing tables.
const TABLES: [&str; 3] = ["7468", "7469", "7470"];

fn uninstall(reader: &mut Reader) -> Result<()> {
    reader.follow(UNINSTALL, tieline::TAG, |_, _| Ok(()))?;
    for node in reader.lab.running() {
        let look = |program: &str, arguments: &[&str]| reader.lab.on_node(node, program, arguments);
        let left = [
            look("ip", &["-brief", "link"])?,
            look("ip", &["rule"])?,
            look("ip", &["route", "show", "table", "all"])?,
            look("ip", &["-6", "route", "show", "table", "all"])?,
            look("nft", &["list", "tables"])?,
        ]
        .concat();
        // By words: a CNI's devices have random digits in their names.
        let is_ours = |word: &&str| word.starts_with("tie") || TABLES.contains(word);
        let ours = left.split_whitespace().find(is_ours);
        ensure!(ours.is_none(), "{node}: {ours:?} is left: {left}");
        let state = reader.lab.node_path(node, "/var/lib/tieline")?;
        ensure!(!state.exists(), "{node}: /var/lib/tieline is left");
    }
    let kinds = reader.paste("kubectl get crd -o name")?;
    ensure!(!kinds.contains("tieline.dev"), "{kinds}");
    let namespaces = reader.paste("kubectl get namespaces -o name")?;
    ensure!(!namespaces.contains("tieline"), "{namespaces}");
    Ok(())
}
