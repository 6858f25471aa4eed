//! What gather puts into a bundle, and what it must not: secrets are planted everywhere, and the unpacked bundle is searched.

use crate::diagnosis::{peer, report};
use crate::support::{Stage, Tests};
use anyhow::{Context as _, Result, ensure};
use e2e::wait::eventually;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) fn tests() -> Tests {
    vec![
        (
            "gather: a bundle holds objects, events, logs and doctor's findings, and none of the planted secrets",
            planted,
        ),
        ("gather: a file that exists is not replaced", exists),
        (
            "gather: the namespace of mirrors is the one that the agents are told",
            mesh_namespace,
        ),
        (
            "gather: what may not be read is left out and named",
            without_rights,
        ),
    ]
}

/// Made up for this test; none opens anything. Each is planted in the way that its name says.
const SECRETS: &[(&str, &str)] = &[
    (
        "psk in a Secret",
        "QWxsWW91ckJhc2VBcmVCZWxvbmdUb1VzSW5UaGlzMDA=",
    ),
    (
        "private key in a configuration Secret",
        "cHJpdmF0ZS1rZXktb2YtYS1jb25maWd1cmF0aW9uMTI=",
    ),
    (
        "ciphertext of a sealed secret",
        "c2VhbGVkLWJveC10aGF0LW9ubHktb25lLW5vZGUtY2FuLW9wZW4=",
    ),
    (
        "private key in a log line",
        "bG9nZ2VkLWJ5LW1pc3Rha2UtcHJpdmF0ZS1rZXkhISE=",
    ),
    (
        "bearer token in a log line",
        "planted-bearer-0123456789abcdef",
    ),
    (
        "web token in a log line",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJwbGFudGVkIn0.c2lnbmF0dXJlLXBsYW50ZWQ",
    ),
    ("PEM in a log line", "UExBTlRFRCBQRU0gQk9EWSBOT1QgQSBLRVk"),
    ("password of a URL in a log line", "planted-url-password"),
    ("value of a variable", "planted-variable-value"),
    ("annotation that keeps a copy", "planted-in-last-applied"),
    ("annotation named token", "planted-annotation-token"),
    (
        "private key in an event",
        "ZXZlbnQtbWVzc2FnZS1wcml2YXRlLWtleS0xMjM0NTY=",
    ),
    ("password in a condition", "planted-condition-password"),
    ("argument behind a flag", "planted-argument"),
    ("value of a header", "planted-header-value"),
    ("manifest in an annotation", "planted-in-a-manifest"),
    (
        "value in quotes in a log line",
        "planted, with spaces and commas",
    ),
];

fn secret(name: &str) -> &'static str {
    SECRETS
        .iter()
        .find(|(it, _)| *it == name)
        .map_or("", |(_, value)| value)
}

fn planted(stage: &Stage) -> Result<()> {
    plant(stage)?;
    let kubelet = Kubelet::start(stage)?;
    let archive = stage.folder().join("bundle.tar.gz");
    let output = archive.display().to_string();
    let run = stage.tieline(&["gather", "-o", &output])?;
    run.ended_with(0)?;
    drop(kubelet);

    let files = unpack(stage, &archive)?;
    let all: String = files
        .iter()
        .map(|(path, text)| format!("{path}\n{text}"))
        .collect();
    for (what, value) in SECRETS {
        ensure!(!all.contains(value), "the bundle holds the {what}");
        // Nor as base64 of it, as Secrets are written.
        let encoded = base64(value.as_bytes());
        ensure!(
            !all.contains(encoded.trim_end_matches('=')),
            "the bundle holds the {what} in base64"
        );
    }
    for piece in ["presharedKey:", "kind: Secret\n", "BEGIN PRIVATE KEY"] {
        ensure!(!all.contains(piece), "the bundle holds '{piece}'");
    }

    // What a diagnosis needs is there.
    let file = |name: &str| -> Result<&str> {
        let found = files.iter().find(|(path, _)| path.ends_with(name));
        Ok(&found
            .with_context(|| {
                format!(
                    "{name} is missing; there are {:?}",
                    files.iter().map(|(path, _)| path).collect::<Vec<_>>()
                )
            })?
            .1)
    };
    for (name, words) in [
        ("objects/clusters.yaml", &["name: shop", "name: berlin"][..]),
        (
            "objects/peers-tieline-system.yaml",
            &[
                "name: shop.a",
                "ciphertext: '[redacted]'",
                "secretVersion: '7'",
            ],
        ),
        ("nodes/nodes.yaml", &["podCIDR: 10.244.1.0/24"]),
        (
            "workloads/deployments-tieline-system.yaml",
            &["name: planted", "value: '[redacted]'"],
        ),
        ("events/events-tieline-system.yaml", &["reason: Planted"]),
        (
            "logs/tieline-agent-a/agent.log",
            &["a line without secrets", "[redacted]"],
        ),
        (
            "logs/tieline-agent-a/boot-guard.log",
            &["nothing was changed on this node"],
        ),
        ("doctor.json", &["\"findings\""]),
        ("doctor.txt", &["RESULT"]),
        ("version.json", &["kubernetes"]),
        (
            "README.txt",
            &["Left out", "Secrets and ConfigMaps", "look through it"],
        ),
    ] {
        let text = file(name)?;
        for word in words {
            ensure!(text.contains(word), "{name} lacks '{word}': {text}");
        }
    }
    ensure!(
        run.output.contains("contains:") && run.output.contains("left out:"),
        "{}",
        run.output
    );
    let size = std::fs::metadata(&archive)?.len();
    ensure!(size < 1 << 20, "{size} bytes");
    Ok(())
}

fn plant(stage: &Stage) -> Result<()> {
    let psk = secret("psk in a Secret");
    let key = secret("private key in a configuration Secret");
    stage.apply(&format!(
        "{{apiVersion: v1, kind: Secret, metadata: {{name: hq-psk, namespace: tieline-system}}, stringData: {{presharedKey: \"{psk}\"}}}}"
    ))?;
    stage.apply(&format!(
        "{{apiVersion: v1, kind: Secret, metadata: {{name: hq-config, namespace: tieline-system}}, stringData: {{wg.conf: \"[Interface]\\nPrivateKey = {key}\\n\"}}}}"
    ))?;
    // A node's Peer, as the operator and the agent write it.
    peer(stage, "a")?;
    let sealed = format!(
        "--patch={{\"spec\": {{\"sealedSecrets\": [{{\"name\": \"hq\", \"secretVersion\": \"7\", \"recipientKey\": \"ISEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISE=\", \"ciphertext\": \"{}\"}}]}}}}",
        secret("ciphertext of a sealed secret")
    );
    stage.kubectl(&[
        "patch",
        "peers",
        "shop.a",
        "-n",
        "tieline-system",
        "--type=merge",
        &sealed,
    ])?;
    let message = format!(
        "cannot log in: password={}",
        secret("password in a condition")
    );
    report(
        stage,
        "a",
        "\"version\": \"0.1.0\"",
        &[("Ready", "False", "Planted", &message)],
    )?;
    stage.kubectl(&[
        "annotate",
        "clusters.tieline.dev",
        "shop",
        "--overwrite",
        &format!(
            "kubectl.kubernetes.io/last-applied-configuration={{\"note\": \"{}\"}}",
            secret("annotation that keeps a copy")
        ),
        &format!("example.com/api-token={}", secret("annotation named token")),
        &format!(
            "kapp.k14s.io/original={{\"data\": {{\"x\": \"{}\"}}}}",
            secret("manifest in an annotation")
        ),
    ])?;
    stage.apply(&format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: planted, namespace: tieline-system}}, spec: {{replicas: 0, selector: {{matchLabels: {{a: b}}}},
           template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: c, image: none.invalid/none, env: [{{name: PASS, value: {}}}],
             args: [--vault-token, {}], livenessProbe: {{httpGet: {{port: 80, httpHeaders: [{{name: X-Api, value: {}}}]}}}}}}]}}}}}}}}",
        secret("value of a variable"),
        secret("argument behind a flag"),
        secret("value of a header"),
    ))?;
    stage.apply(&format!(
        "{{apiVersion: v1, kind: Event, metadata: {{name: planted, namespace: tieline-system}}, reason: Planted, type: Warning, message: \"private key {}\",
           involvedObject: {{apiVersion: v1, kind: Pod, name: x, namespace: tieline-system}}, source: {{component: test}}}}",
        secret("private key in an event")
    ))?;
    stage.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: tieline-agent-a, namespace: tieline-system,
            labels: {app.kubernetes.io/part-of: tieline, app.kubernetes.io/component: agent}},
          spec: {nodeName: a, initContainers: [{name: boot-guard, image: none.invalid/none}], containers: [{name: agent, image: none.invalid/none}], tolerations: [{operator: Exists}]}}",
    )?;
    Ok(())
}

/// Answers one question of a kubelet's API: the log of a container. `openssl s_server -WWW` serves files under the name that is
/// asked for, and the API server asks for this one.
struct Kubelet(Child);

impl Kubelet {
    fn start(stage: &Stage) -> Result<Self> {
        let folder = stage.folder().join("kubelet");
        let logs = folder.join("containerLogs/tieline-system/tieline-agent-a");
        std::fs::create_dir_all(&logs)?;
        let log = format!(
            "2026-01-01T00:00:00Z a line without secrets\n\
             2026-01-01T00:00:01Z read private key {}\n\
             2026-01-01T00:00:02Z GET /apis with Authorization: Bearer {}\n\
             2026-01-01T00:00:03Z token was {}\n\
             2026-01-01T00:00:04Z -----BEGIN PRIVATE KEY-----\n2026-01-01T00:00:04Z {}\n2026-01-01T00:00:04Z -----END PRIVATE KEY-----\n\
             2026-01-01T00:00:05Z pulled from https://user:{}@registry.example/v2\n\
             2026-01-01T00:00:06Z login with password=\"{}\"\n",
            secret("private key in a log line"),
            secret("bearer token in a log line"),
            secret("web token in a log line"),
            secret("PEM in a log line"),
            secret("password of a URL in a log line"),
            secret("value in quotes in a log line"),
        );
        let guard = "2026-01-01T00:00:00Z nothing was changed on this node\n";
        for (container, text) in [("boot-guard", guard), ("agent", log.as_str())] {
            let name = format!("{container}?limitBytes=2097152&tailLines=5000&timestamps=true");
            std::fs::write(logs.join(name), text)?;
        }
        let (certificate, key) = stage.serving_certificate(
            "kubelet-a",
            "/O=system:nodes/CN=system:node:a",
            &[std::net::Ipv4Addr::LOCALHOST.into()],
            &[],
        )?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new("openssl")
            .args(["s_server", "-WWW", "-quiet", "-accept"])
            .arg(format!("127.0.0.1:{port}"))
            .arg("-cert")
            .arg(certificate)
            .arg("-key")
            .arg(key)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("run openssl s_server")?;
        let kubelet = Self(child);
        let status = format!(
            "--patch={{\"status\": {{\"addresses\": [{{\"type\": \"InternalIP\", \"address\": \"127.0.0.1\"}}], \"daemonEndpoints\": {{\"kubeletEndpoint\": {{\"Port\": {port}}}}}}}}}"
        );
        stage.kubectl(&[
            "patch",
            "node",
            "a",
            "--subresource=status",
            "--type=merge",
            &status,
        ])?;
        eventually("openssl s_server", Duration::from_secs(10), || {
            Ok(std::net::TcpStream::connect(("127.0.0.1", port))?)
        })?;
        Ok(kubelet)
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The files of a bundle, as path and text. Everything in it is text.
fn unpack(stage: &Stage, archive: &Path) -> Result<Vec<(String, String)>> {
    let folder = stage.folder().join("unpacked");
    std::fs::create_dir_all(&folder)?;
    let status = Command::new("tar")
        .arg("-xzf")
        .arg(archive)
        .arg("-C")
        .arg(&folder)
        .status()
        .context("run tar")?;
    ensure!(status.success(), "tar cannot read the bundle");
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("{} is no text", path.display()))?;
                files.push((path.display().to_string(), text));
            }
        }
    }
    Ok(files)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn exists(stage: &Stage) -> Result<()> {
    let path = stage.folder().join("taken.tar.gz");
    std::fs::write(&path, "mine")?;
    let run = stage.tieline(&["gather", "-o", &path.display().to_string()])?;
    run.ended_with(1)?;
    ensure!(run.errors.contains("cannot create"), "{}", run.errors);
    ensure!(
        std::fs::read_to_string(&path)? == "mine",
        "the file was replaced"
    );
    Ok(())
}

fn mesh_namespace(stage: &Stage) -> Result<()> {
    let path = stage.folder().join("mesh.tar.gz");
    let output = path.display().to_string();
    stage.apply(
        "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: tieline-agent, namespace: tieline-system},
          spec: {selector: {matchLabels: {a: agent}}, template: {metadata: {labels: {a: agent}}, spec: {nodeSelector: {no: where},
            containers: [{name: agent, image: none.invalid/none, env: [{name: TIELINE_MESH_NAMESPACE, value: mesh-copies}]}]}}}}",
    )?;
    let run = stage.tieline(&["gather", "-o", &output, "--pods=0"])?;
    stage.kubectl(&["delete", "-n", "tieline-system", "daemonset/tieline-agent"])?;
    run.ended_with(0)?;
    for (file, taken) in [
        ("objects/peers-mesh-copies.yaml", true),
        ("objects/peers-tieline-mesh.yaml", false),
    ] {
        ensure!(run.output.contains(file) == taken, "{file}: {}", run.output);
    }
    Ok(())
}

fn without_rights(stage: &Stage) -> Result<()> {
    let token = stage.unbound_token("nobody", "default")?;
    let credential = stage.token_kubeconfig("nobody", &token)?;
    let path = stage.folder().join("nobody.tar.gz");
    let run = stage.tieline_as(&credential, &["gather", "-o", &path.display().to_string()])?;
    run.ended_with(0)?;
    let left_out = run.output.split("left out:").nth(1).context("left out")?;
    for word in [
        "objects/peers-tieline-system.yaml",
        "nodes/nodes.yaml",
        "forbidden",
    ] {
        ensure!(left_out.contains(word), "{left_out}");
    }
    Ok(())
}
