//! Keys and certificates of a throw-away control plane, made with the `openssl` program; and the kubeconfigs that use them.
//!
//! The serving certificate is valid for the address that is given, for loopback and for the service `kubernetes`, so that clients in
//! every namespace verify it. A folder that is complete is kept, so that a second start has the same authority.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::json;

use super::write_private;

#[derive(Debug)]
pub(super) struct Pki {
    folder: PathBuf,
    admin_token: String,
}

impl Pki {
    /// A folder with credentials that another one made; nothing can be signed here.
    pub(super) fn given(folder: &Path) -> Self {
        Self {
            folder: folder.into(),
            admin_token: String::new(),
        }
    }

    /// Makes everything in `folder`, or finds it there.
    pub(super) fn prepare(
        folder: &Path,
        addresses: &[IpAddr],
        service_cidrs: &[IpNet],
    ) -> Result<Self> {
        let pki = Self {
            folder: folder.into(),
            admin_token: String::new(),
        };
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        // Written last, so that its presence means the folder is complete.
        let token_file = folder.join("tokens.csv");
        if !token_file.exists() {
            pki.make_authority()?;
            pki.make_certificate(
                "server",
                "/CN=kube-apiserver",
                &server_extensions(addresses, service_cidrs),
            )?;
            let client = "extendedKeyUsage=clientAuth\n";
            pki.make_certificate("admin", "/O=system:masters/CN=tieline-admin", client)?;
            pki.make_certificate(
                "controller-manager",
                "/CN=system:kube-controller-manager",
                client,
            )?;
            pki.new_key("service-accounts.key")?;
            openssl(
                folder,
                &[
                    "pkey",
                    "-in",
                    "service-accounts.key",
                    "-pubout",
                    "-out",
                    "service-accounts.pub",
                ],
            )?;
            let token = openssl(folder, &["rand", "-hex", "24"])?;
            write_private(
                &token_file,
                format!(
                    "{},tieline-admin,tieline-admin,system:masters\n",
                    token.trim()
                ),
            )?;
        }
        // The API server's own credential at kubelets. Also in a folder from before there was one.
        if !folder.join("kubelet-client.crt").exists() {
            pki.make_certificate(
                "kubelet-client",
                "/O=system:masters/CN=kube-apiserver-kubelet-client",
                "extendedKeyUsage=clientAuth\n",
            )?;
        }
        let tokens = fs::read_to_string(&token_file)
            .with_context(|| format!("read {}", token_file.display()))?;
        let admin_token = tokens.split(',').next().unwrap_or_default().to_owned();
        Ok(Self { admin_token, ..pki })
    }

    /// Absolute path of one file, as a flag's value.
    pub(super) fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    pub(super) fn ca_certificate(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    pub(super) fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// A kubeconfig for the client certificate `name`.
    pub(super) fn certificate_kubeconfig(&self, server: &str, name: &str) -> String {
        let user = json!({
            "client-certificate": self.file(&format!("{name}.crt")),
            "client-key": self.file(&format!("{name}.key")),
        });
        self.kubeconfig(server, user)
    }

    /// A kubeconfig for a bearer token.
    pub(super) fn token_kubeconfig(&self, server: &str, token: &str) -> String {
        self.kubeconfig(server, json!({ "token": token }))
    }

    // JSON is YAML, so no quoting question arises.
    fn kubeconfig(&self, server: &str, user: serde_json::Value) -> String {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority": self.file("ca.crt")}}],
            "users": [{"name": "lab", "user": user}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
            "current-context": "lab",
        });
        format!("{config:#}\n")
    }

    fn make_authority(&self) -> Result<()> {
        self.new_key("ca.key")?;
        let request = [
            "req",
            "-x509",
            "-new",
            "-key",
            "ca.key",
            "-subj",
            "/CN=tieline-lab",
            "-days",
            "30",
            "-out",
            "ca.crt",
        ];
        let extensions = [
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
        ];
        openssl(&self.folder, &[&request[..], &extensions[..]].concat())?;
        Ok(())
    }

    pub(super) fn make_certificate(
        &self,
        name: &str,
        subject: &str,
        extensions: &str,
    ) -> Result<()> {
        let file = |suffix: &str| format!("{name}.{suffix}");
        let (key, request, extension_file, certificate) =
            (file("key"), file("csr"), file("ext"), file("crt"));
        self.new_key(&key)?;
        write_private(&self.folder.join(&extension_file), extensions)?;
        openssl(
            &self.folder,
            &[
                "req", "-new", "-key", &key, "-subj", subject, "-out", &request,
            ],
        )?;
        let authority = [
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "30",
        ];
        let files = [
            "-in",
            &request,
            "-extfile",
            &extension_file,
            "-out",
            &certificate,
        ];
        openssl(
            &self.folder,
            &[&["x509", "-req"], &authority[..], &files[..]].concat(),
        )?;
        Ok(())
    }

    fn new_key(&self, name: &str) -> Result<()> {
        openssl(
            &self.folder,
            &[
                "genpkey",
                "-algorithm",
                "EC",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-out",
                name,
            ],
        )?;
        Ok(())
    }
}

fn server_extensions(own: &[IpAddr], service_cidrs: &[IpNet]) -> String {
    // The API server takes the first address of the service range for the service `kubernetes`.
    let service_addresses = service_cidrs.iter().filter_map(|cidr| match cidr {
        IpNet::V4(cidr) => cidr.hosts().next().map(IpAddr::V4),
        IpNet::V6(cidr) => cidr.hosts().nth(1).map(IpAddr::V6),
    });
    let addresses: std::collections::BTreeSet<String> = service_addresses
        .chain(own.iter().copied())
        .map(|ip| ip.to_string())
        .chain(["127.0.0.1".into(), "::1".into()])
        .collect();
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let alternatives: Vec<String> = names
        .iter()
        .map(|name| format!("DNS:{name}"))
        .chain(addresses.iter().map(|address| format!("IP:{address}")))
        .collect();
    format!(
        "extendedKeyUsage=serverAuth\nsubjectAltName={}\n",
        alternatives.join(",")
    )
}

fn openssl(folder: &Path, args: &[&str]) -> Result<String> {
    let output = Command::new("openssl")
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .context("run openssl, which makes the lab's certificates (Debian package openssl)")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "openssl {} failed: {}",
        args.join(" "),
        errors.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
