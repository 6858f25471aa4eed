//! A real Kubernetes control plane for tests, the labs and the demo.
//!
//! etcd, kube-apiserver and, when asked for, kube-controller-manager run as ordinary child processes, in the caller's network
//! namespace or in a given one, with a data folder, certificates and an audit log of their own.
//!
//! ```text
//!   dir/pki         CA, serving certificate, client certificates, key pair of service-account tokens
//!   dir/etcd        the store; it outlives `stop` and `start_again`
//!   dir/audit.log   one JSON line per finished request (`audit_writes_since`)
//!   dir/*.log       what each process printed; the end of it is quoted when a start fails
//! ```
//!
//! Nothing here knows Tieline's kinds or manifests: `apply_path` puts them in. All calls block: from async code use
//! `spawn_blocking`. Every process ends with the [`ControlPlane`] and with the process that started it.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::IpNet;

mod audit;
mod binaries;
mod client;
mod flags;
mod pki;
mod process;

pub use audit::{AuditMark, AuditWrite};
pub use binaries::Binaries;
use pki::Pki;
use process::{Daemon, Spawn};

/// What [`ControlPlane::attach`] needs from `dir/pki` of the control plane: its authority and the administrator's credential.
pub const CREDENTIALS: [&str; 3] = ["ca.crt", "admin.crt", "admin.key"];

/// How long a start may take before it counts as failed.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// What to start, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder for state, certificates and logs. Created when missing; a second start in the same folder finds its store and its
    /// certificates again.
    pub dir: PathBuf,
    /// Address that the API server listens on and that its certificate is valid for. It must exist in the network namespace.
    pub address: IpAddr,
    /// Under which other addresses clients come, through a translation on the way; the certificate is valid for them too.
    pub other_addresses: Vec<IpAddr>,
    /// Port of the API server. Absent: a free one in the caller's namespace, 6443 in a given one.
    pub port: Option<u16>,
    /// Network namespace to run in, as a path that `setns` takes (such as `/run/netns/NAME`); its loopback must be up.
    /// Absent: the caller's.
    pub netns: Option<PathBuf>,
    /// Ranges of Services, one for each family.
    pub service_cidrs: Vec<IpNet>,
    /// Whether kube-controller-manager runs: garbage collection, deletion of namespaces, default service accounts, certificates.
    pub controller_manager: bool,
    /// Cluster ranges from which kube-controller-manager gives nodes their podCIDR (nodeIPAM). Empty: it gives none, and
    /// somebody else may.
    pub node_ipam: Vec<IpNet>,
    /// Whether nodes without a heartbeat become NotReady and lose their pods. Off by default, because the nodes of a lab without
    /// kubelets have no heartbeat, and a token ends with the pod that it is bound to.
    pub node_lifecycle: bool,
    /// More flags for kube-apiserver, after all others.
    pub api_server_flags: Vec<String>,
}

impl Options {
    /// A control plane on loopback in the caller's namespace, with its files in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            address: Ipv4Addr::LOCALHOST.into(),
            other_addresses: Vec::new(),
            port: None,
            netns: None,
            service_cidrs: vec![IpNet::V4(ipnet::Ipv4Net::new_assert(
                Ipv4Addr::new(10, 96, 0, 0),
                16,
            ))],
            controller_manager: false,
            node_ipam: Vec::new(),
            node_lifecycle: false,
            api_server_flags: Vec::new(),
        }
    }

    /// Listens on `address` inside the network namespace at `netns`.
    pub fn in_netns(mut self, netns: impl Into<PathBuf>, address: IpAddr) -> Self {
        self.netns = Some(netns.into());
        self.address = address;
        self
    }

    /// Runs kube-controller-manager too.
    pub fn with_controller_manager(mut self) -> Self {
        self.controller_manager = true;
        self
    }

    /// Runs kube-controller-manager, which gives nodes podCIDRs from `cluster_cidrs`.
    pub fn with_node_ipam(mut self, cluster_cidrs: Vec<IpNet>) -> Self {
        self.controller_manager = true;
        self.node_ipam = cluster_cidrs;
        self
    }
}

/// Ports in use. etcd's are on loopback.
#[derive(Clone, Copy, Debug)]
struct Ports {
    api: u16,
    etcd: u16,
    etcd_peer: u16,
}

/// A running control plane; dropping it ends it.
#[derive(Debug)]
pub struct ControlPlane {
    options: Options,
    binaries: Binaries,
    ports: Ports,
    pki: Pki,
    kubeconfig: PathBuf,
    // Dropped in this order: clients before servers.
    controller_manager: Option<Daemon>,
    api_server: Option<Daemon>,
    etcd: Option<Daemon>,
}

impl ControlPlane {
    /// Starts everything and returns when the API server is ready.
    ///
    /// # Errors
    /// A binary is missing (the message names the command that builds it), a process ended early (the end of its log is quoted),
    /// or nothing was ready after two minutes.
    pub fn start(options: Options) -> Result<Self> {
        let binaries = Binaries::find()?;
        fs::create_dir_all(&options.dir)
            .with_context(|| format!("create {}", options.dir.display()))?;
        let dir = fs::canonicalize(&options.dir)
            .with_context(|| format!("find {}", options.dir.display()))?;
        let options = Options { dir, ..options };
        let ports = choose_ports(&options)?;
        let pki = Pki::prepare(
            &options.dir.join("pki"),
            &[&[options.address], &options.other_addresses[..]].concat(),
            &options.service_cidrs,
        )?;

        let server = url(options.address, ports.api);
        let kubeconfig = options.dir.join("admin.kubeconfig");
        write_private(&kubeconfig, pki.certificate_kubeconfig(&server, "admin"))?;
        write_private(&options.dir.join("audit-policy.json"), flags::AUDIT_POLICY)?;

        let etcd = spawn(
            &options,
            "etcd",
            &binaries.etcd,
            flags::etcd(&options, ports),
        )?;
        let args = flags::api_server(&options, ports, &pki);
        let api_server = spawn(&options, "kube-apiserver", &binaries.kube_apiserver, args)?;
        let mut control_plane = Self {
            options,
            binaries,
            ports,
            pki,
            kubeconfig,
            controller_manager: None,
            api_server: Some(api_server),
            etcd: Some(etcd),
        };
        control_plane.wait_ready()?;
        if control_plane.options.controller_manager {
            control_plane.start_controller_manager()?;
        }
        Ok(control_plane)
    }

    /// A control plane that runs elsewhere and is reached at `address`, port 6443. `dir/pki` holds the files of [`CREDENTIALS`]
    /// from there. What needs its programs (kubectl, a restart) or its authority's key fails here.
    ///
    /// # Errors
    /// The kubeconfig cannot be written.
    pub fn attach(dir: &Path, address: IpAddr) -> Result<Self> {
        let options = Options {
            address,
            ..Options::new(dir)
        };
        let ports = Ports {
            api: 6443,
            etcd: 0,
            etcd_peer: 0,
        };
        let pki = Pki::given(&dir.join("pki"));
        let kubeconfig = dir.join("admin.kubeconfig");
        let server = url(address, ports.api);
        write_private(&kubeconfig, pki.certificate_kubeconfig(&server, "admin"))?;
        Ok(Self {
            options,
            binaries: Binaries::elsewhere(),
            ports,
            pki,
            kubeconfig,
            controller_manager: None,
            api_server: None,
            etcd: None,
        })
    }

    /// Administrator's kubeconfig (client certificate, group `system:masters`), valid wherever the address is reachable.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// `https://ADDRESS:PORT` of the API server.
    pub fn server(&self) -> String {
        url(self.options.address, self.ports.api)
    }

    /// Certificate of the authority that signed the API server's certificate, as a PEM file.
    pub fn ca_certificate(&self) -> PathBuf {
        self.pki.ca_certificate()
    }

    /// Makes a client certificate signed by the cluster's authority and returns a kubeconfig that uses it. `subject` is OpenSSL's
    /// notation: `/O=system:nodes/CN=system:node:NAME` is a kubelet. A second call with the same `name` makes a new key.
    /// Not for several threads at once: the authority counts serial numbers in a file.
    ///
    /// # Errors
    /// openssl failed, or the file cannot be written.
    pub fn client_kubeconfig(&self, name: &str, subject: &str) -> Result<PathBuf> {
        self.pki
            .make_certificate(name, subject, "extendedKeyUsage=clientAuth\n")?;
        let path = self.options.dir.join(format!("{name}.kubeconfig"));
        write_private(&path, self.pki.certificate_kubeconfig(&self.server(), name))?;
        Ok(path)
    }

    /// Makes a serving certificate signed by the cluster's authority, valid for `addresses` and `names`; returns certificate and key.
    /// Not for several threads at once, as above.
    ///
    /// # Errors
    /// openssl failed.
    pub fn serving_certificate(
        &self,
        name: &str,
        subject: &str,
        addresses: &[IpAddr],
        names: &[&str],
    ) -> Result<(PathBuf, PathBuf)> {
        let alternatives: Vec<String> = addresses
            .iter()
            .map(|address| format!("IP:{address}"))
            .chain(names.iter().map(|name| format!("DNS:{name}")))
            .collect();
        let extensions = format!(
            "extendedKeyUsage=serverAuth\nsubjectAltName={}\n",
            alternatives.join(",")
        );
        self.pki.make_certificate(name, subject, &extensions)?;
        let file = |suffix: &str| PathBuf::from(self.pki.file(&format!("{name}.{suffix}")));
        Ok((file("crt"), file("key")))
    }

    /// Bearer token of the administrator, for clients that take no certificate.
    pub fn admin_token(&self) -> &str {
        self.pki.admin_token()
    }

    /// The programs in use, for callers that run `kubectl` themselves.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// Folder with state and logs.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// Waits until `/readyz` says ok.
    ///
    /// # Errors
    /// The API server is stopped or ended by itself, or two minutes passed.
    pub fn wait_ready(&mut self) -> Result<()> {
        let started = std::time::Instant::now();
        loop {
            let failure = match self.kubectl(&["get", "--raw=/readyz", "--request-timeout=5s"]) {
                Ok(_) => return Ok(()),
                Err(failure) => failure,
            };
            if let Some(etcd) = self.etcd.as_mut() {
                etcd.check_running()?;
            }
            match self.api_server.as_mut() {
                Some(api_server) => api_server.check_running()?,
                None => bail!("kube-apiserver is stopped; start_again() starts it"),
            }
            if started.elapsed() > READY_LIMIT {
                return Err(failure.context(format!(
                    "the API server was not ready after {} s",
                    READY_LIMIT.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends the API server at once, as a crash does: open watches break and new connections are refused. etcd and the
    /// controller manager go on.
    pub fn stop(&mut self) {
        self.api_server = None;
    }

    /// Starts the API server that [`stop`](Self::stop) ended, with the same address, store and certificates, and waits until it is
    /// ready.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.api_server.is_none(), "kube-apiserver runs already");
        let args = flags::api_server(&self.options, self.ports, &self.pki);
        self.api_server = Some(spawn(
            &self.options,
            "kube-apiserver",
            &self.binaries.kube_apiserver,
            args,
        )?);
        self.wait_ready()
    }

    /// Starts kube-controller-manager, when it was not started or has ended: with a node whose podCIDR lies outside the
    /// `node_ipam` ranges it ends at every start.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start_controller_manager(&mut self) -> Result<()> {
        let kubeconfig = self.options.dir.join("controller-manager.kubeconfig");
        write_private(
            &kubeconfig,
            self.pki
                .certificate_kubeconfig(&self.server(), "controller-manager"),
        )?;
        let args = flags::controller_manager(&self.options, &self.pki, &kubeconfig);
        self.controller_manager = None;
        self.controller_manager = Some(spawn(
            &self.options,
            "kube-controller-manager",
            &self.binaries.kube_controller_manager,
            args,
        )?);
        Ok(())
    }

    /// Whether kube-controller-manager runs now.
    pub fn controller_manager_runs(&mut self) -> bool {
        self.controller_manager
            .as_mut()
            .is_some_and(|daemon| daemon.check_running().is_ok())
    }

    /// The audit log's end now: the mark to count writes from.
    pub fn audit_mark(&self) -> AuditMark {
        audit::mark(&self.audit_log())
    }

    /// Every request since `mark` that asked to change something, in the order of the audit log. Renewals of Leases, dry runs and
    /// reviews (which store nothing) are left out; refused requests are in, with their code.
    ///
    /// # Errors
    /// The audit log cannot be read.
    pub fn audit_writes_since(&self, mark: AuditMark) -> Result<Vec<AuditWrite>> {
        audit::writes_since(&self.audit_log(), mark)
    }

    /// The audit log: one JSON object a line, level Metadata, stage ResponseComplete.
    pub fn audit_log(&self) -> PathBuf {
        self.options.dir.join("audit.log")
    }
}

fn spawn(options: &Options, name: &str, program: &Path, args: Vec<String>) -> Result<Daemon> {
    Daemon::start(Spawn {
        name: name.into(),
        program: program.into(),
        args,
        dir: options.dir.clone(),
        netns: options.netns.clone(),
    })
}

/// Free ports in the caller's namespace; Kubernetes' usual ones in a namespace of its own.
fn choose_ports(options: &Options) -> Result<Ports> {
    if options.netns.is_some() {
        return Ok(Ports {
            api: options.port.unwrap_or(6443),
            etcd: 2379,
            etcd_peer: 2380,
        });
    }
    // All held at once, so that they differ.
    let listeners = [
        options.address,
        Ipv4Addr::LOCALHOST.into(),
        Ipv4Addr::LOCALHOST.into(),
    ]
    .map(|address| {
        TcpListener::bind((address, 0)).with_context(|| format!("find a free port on {address}"))
    });
    let [api, etcd, etcd_peer] =
        listeners.map(|listener| Ok::<_, anyhow::Error>(listener?.local_addr()?.port()));
    let api = match options.port {
        Some(port) => port,
        None => api?,
    };
    Ok(Ports {
        api,
        etcd: etcd?,
        etcd_peer: etcd_peer?,
    })
}

fn url(address: IpAddr, port: u16) -> String {
    format!("https://{}", std::net::SocketAddr::new(address, port))
}

/// Writes a file that only its owner reads, replacing what was there.
fn write_private(path: &Path, text: impl AsRef<OsStr>) -> Result<()> {
    use std::os::unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _};
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_ref().as_bytes())
    };
    write().with_context(|| format!("write {}", path.display()))
}
