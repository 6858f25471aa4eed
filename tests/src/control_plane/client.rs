//! What a test asks of the API server: `kubectl` as anybody, manifests, and credentials as an agent has them.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use super::{ControlPlane, process::in_netns, write_private};

impl ControlPlane {
    /// Runs `kubectl` as administrator and returns what it printed.
    ///
    /// # Errors
    /// kubectl failed; the message is what it said.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl_as(self.kubeconfig(), args)
    }

    /// Runs `kubectl` with the credential of `kubeconfig`.
    ///
    /// # Errors
    /// kubectl failed; the message is what it said.
    pub fn kubectl_as(&self, kubeconfig: &Path, args: &[&str]) -> Result<String> {
        self.kubectl_with(kubeconfig, args, None)
    }

    /// Creates or changes the objects of a YAML or JSON text, as administrator (server-side apply).
    ///
    /// # Errors
    /// The API server refused an object; the message is its own.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.apply_as(self.kubeconfig(), manifest)
    }

    /// As [`apply`](Self::apply), with the credential of `kubeconfig`.
    ///
    /// # Errors
    /// The API server refused an object; the message is its own.
    pub fn apply_as(&self, kubeconfig: &Path, manifest: &str) -> Result<String> {
        self.kubectl_with(
            kubeconfig,
            &["apply", "--server-side", "--field-manager=test", "-f", "-"],
            Some(manifest),
        )
    }

    /// Applies every manifest of a folder, or one file, as administrator.
    ///
    /// # Errors
    /// The API server refused an object; the message is its own.
    pub fn apply_path(&self, path: &Path) -> Result<String> {
        let path = path
            .to_str()
            .with_context(|| format!("{} is no UTF-8 path", path.display()))?;
        self.kubectl(&["apply", "--server-side", "--field-manager=test", "-f", path])
    }

    /// Applies a folder of custom resource definitions and waits until their kinds are served.
    ///
    /// # Errors
    /// A definition was refused, or not served within 30 s.
    pub fn apply_crds(&self, folder: &Path) -> Result<()> {
        self.apply_path(folder)?;
        let folder = folder.to_str().context("the folder is no UTF-8 path")?;
        self.kubectl(&[
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "-f",
            folder,
        ])?;
        Ok(())
    }

    /// Waits until every ValidatingAdmissionPolicy has been type-checked or `limit` passed, and returns the warnings of that check: the
    /// places where an expression does not fit the schema. Needs the controller manager.
    ///
    /// # Errors
    /// The policies cannot be listed, or one was not checked in time.
    pub fn admission_warnings(&self, limit: Duration) -> Result<Vec<String>> {
        let give_up = Instant::now() + limit;
        loop {
            let text = self.kubectl(&["get", "validatingadmissionpolicies", "-o", "json"])?;
            let list: serde_json::Value =
                serde_json::from_str(&text).context("parse the list of policies")?;
            let policies = list["items"].as_array().cloned().unwrap_or_default();
            let pending: Vec<&str> = policies
                .iter()
                .filter(|policy| {
                    policy["status"]["observedGeneration"] != policy["metadata"]["generation"]
                })
                .filter_map(|policy| policy["metadata"]["name"].as_str())
                .collect();
            if pending.is_empty() {
                let warnings = policies.iter().flat_map(|policy| {
                    let name = policy["metadata"]["name"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned();
                    let warnings = policy["status"]["typeChecking"]["expressionWarnings"]
                        .as_array()
                        .cloned()
                        .unwrap_or_default();
                    warnings
                        .into_iter()
                        .map(move |warning| format!("{name}: {warning}"))
                });
                return Ok(warnings.collect());
            }
            ensure!(
                Instant::now() < give_up,
                "not type-checked after {limit:?}: {}",
                pending.join(", ")
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The token that a kubelet would hand to a pod of `service_account` on `node`: bound to the pod, and so naming the node. Node,
    /// ServiceAccount and Pod are created when missing; the namespace must exist.
    ///
    /// # Errors
    /// The API server refused one of the objects or the token.
    pub fn node_bound_token(
        &self,
        node: &str,
        service_account: &str,
        namespace: &str,
    ) -> Result<String> {
        let pod = format!("{service_account}-{node}");
        self.create_when_missing(
            None,
            "node",
            node,
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}),
        )?;
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": service_account, "namespace": namespace},
        });
        self.create_when_missing(Some(namespace), "serviceaccount", service_account, account)?;
        let manifest = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": namespace},
            "spec": {
                "nodeName": node, "serviceAccountName": service_account,
                // No kubelet looks at it: it is what the token is bound to.
                "containers": [{"name": "none", "image": "none.invalid/none"}],
                "tolerations": [{"operator": "Exists"}],
            },
        });
        self.create_when_missing(Some(namespace), "pod", &pod, manifest)?;
        let bound = ["--bound-object-kind=Pod", "--bound-object-name", &pod];
        self.token(service_account, namespace, &bound)
    }

    /// A token of a ServiceAccount that is bound to nothing.
    ///
    /// # Errors
    /// The ServiceAccount does not exist.
    pub fn unbound_token(&self, service_account: &str, namespace: &str) -> Result<String> {
        self.token(service_account, namespace, &[])
    }

    /// Writes a kubeconfig for a bearer token into the control plane's folder and returns its path. `name` is the file's: a second
    /// call with the same name replaces it.
    ///
    /// # Errors
    /// The name is no plain file name, or the file cannot be written.
    pub fn token_kubeconfig(&self, name: &str, token: &str) -> Result<PathBuf> {
        ensure!(
            !name.is_empty() && !name.contains('/'),
            "'{name}' must be a plain file name"
        );
        let path = self.dir().join(format!("{name}.kubeconfig"));
        write_private(&path, self.pki.token_kubeconfig(&self.server(), token))?;
        Ok(path)
    }

    /// Kubeconfig of the agent on `node`: a node-bound token of `tieline-system/tieline-agent`.
    ///
    /// # Errors
    /// As [`node_bound_token`](Self::node_bound_token).
    pub fn agent_kubeconfig(&self, node: &str) -> Result<PathBuf> {
        let token = self.node_bound_token(node, "tieline-agent", "tieline-system")?;
        self.token_kubeconfig(&format!("agent-{node}"), &token)
    }

    /// Kubeconfig of the operator: a token of `tieline-system/tieline-operator`.
    ///
    /// # Errors
    /// The ServiceAccount does not exist: apply `deploy/manifests` first.
    pub fn operator_kubeconfig(&self) -> Result<PathBuf> {
        let token = self.unbound_token("tieline-operator", "tieline-system")?;
        self.token_kubeconfig("operator", &token)
    }

    fn token(&self, service_account: &str, namespace: &str, more: &[&str]) -> Result<String> {
        let create = [
            "create",
            "token",
            service_account,
            "--namespace",
            namespace,
            "--duration=24h",
        ];
        Ok(self
            .kubectl(&[&create[..], more].concat())?
            .trim()
            .to_owned())
    }

    fn create_when_missing(
        &self,
        namespace: Option<&str>,
        kind: &str,
        name: &str,
        manifest: serde_json::Value,
    ) -> Result<()> {
        let namespace: Vec<&str> = namespace
            .into_iter()
            .flat_map(|namespace| ["--namespace", namespace])
            .collect();
        let found = self.kubectl(
            &[
                &["get", kind, name, "--ignore-not-found", "--output=name"],
                &namespace[..],
            ]
            .concat(),
        )?;
        if found.trim().is_empty() {
            self.kubectl_with(
                self.kubeconfig(),
                &["create", "-f", "-"],
                Some(&manifest.to_string()),
            )?;
        }
        Ok(())
    }

    /// Runs `kubectl` in the control plane's own network namespace, so that the address is reachable.
    fn kubectl_with(
        &self,
        kubeconfig: &Path,
        args: &[&str],
        input: Option<&str>,
    ) -> Result<String> {
        let mut command = in_netns(self.options.netns.as_deref(), &self.binaries.kubectl);
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--cache-dir")
            .arg(self.dir().join("kubectl-cache"))
            .args(args);
        command.env("HOME", self.dir()).env_remove("KUBECONFIG");
        command.stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("run kubectl")?;
        if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
            // kubectl prints nothing before it has read everything, so no pipe can fill up. When it ends early (a bad flag), the
            // write fails and its own message below says why.
            let _ = stdin.write_all(text.as_bytes());
        }
        let output = child.wait_with_output().context("wait for kubectl")?;
        if !output.status.success() {
            bail!(
                "kubectl {}: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        String::from_utf8(output.stdout).context("kubectl printed something that is not UTF-8")
    }
}
