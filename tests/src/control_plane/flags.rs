//! The command lines of the control plane's processes. Pure: options in, flags out.

use std::path::Path;

use ipnet::IpNet;

use super::{Options, Ports, pki::Pki};

/// One line for each finished request, without bodies. Reads are in, because steady lists are counted too.
pub(super) const AUDIT_POLICY: &str = r#"{
  "apiVersion": "audit.k8s.io/v1",
  "kind": "Policy",
  "omitStages": ["RequestReceived", "ResponseStarted"],
  "rules": [{"level": "Metadata"}]
}
"#;

pub(super) fn etcd(options: &Options, ports: Ports) -> Vec<String> {
    let client = format!("http://127.0.0.1:{}", ports.etcd);
    let peer = format!("http://127.0.0.1:{}", ports.etcd_peer);
    vec![
        "--name=lab".into(),
        format!("--data-dir={}", options.dir.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=lab={peer}"),
        "--log-level=warn".into(),
        // A test's store need not survive the machine, and disks differ.
        "--unsafe-no-fsync".into(),
    ]
}

pub(super) fn api_server(options: &Options, ports: Ports, pki: &Pki) -> Vec<String> {
    let dir = &options.dir;
    let mut flags = vec![
        format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd),
        format!("--bind-address={}", options.address),
        format!("--secure-port={}", ports.api),
        format!("--tls-cert-file={}", pki.file("server.crt")),
        format!("--tls-private-key-file={}", pki.file("server.key")),
        format!("--client-ca-file={}", pki.file("ca.crt")),
        format!(
            "--kubelet-client-certificate={}",
            pki.file("kubelet-client.crt")
        ),
        format!("--kubelet-client-key={}", pki.file("kubelet-client.key")),
        format!("--kubelet-certificate-authority={}", pki.file("ca.crt")),
        // The lab's host names are in no DNS.
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--token-auth-file={}", pki.file("tokens.csv")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!(
            "--service-account-key-file={}",
            pki.file("service-accounts.pub")
        ),
        format!(
            "--service-account-signing-key-file={}",
            pki.file("service-accounts.key")
        ),
        format!(
            "--service-cluster-ip-range={}",
            joined(&options.service_cidrs)
        ),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        "--profiling=false".into(),
        format!(
            "--audit-policy-file={}",
            dir.join("audit-policy.json").display()
        ),
        format!("--audit-log-path={}", dir.join("audit.log").display()),
        // Large enough that no test meets a rotation: marks are offsets into one file.
        "--audit-log-maxsize=4096".into(),
    ];
    if options.address.is_loopback() {
        // Endpoints of the service `kubernetes` may not be loopback addresses, so it gets none. An address must be named all the
        // same, because the default is looked for on the default route, which a namespace may lack: one for documentation.
        let family_is_v6 = matches!(options.service_cidrs.first(), Some(IpNet::V6(_)));
        flags.push("--endpoint-reconciler-type=none".into());
        flags.push(format!(
            "--advertise-address={}",
            if family_is_v6 {
                "2001:db8::1"
            } else {
                "192.0.2.1"
            }
        ));
    } else {
        flags.push(format!("--advertise-address={}", options.address));
    }
    flags.extend(options.api_server_flags.iter().cloned());
    flags
}

pub(super) fn controller_manager(options: &Options, pki: &Pki, kubeconfig: &Path) -> Vec<String> {
    let kubeconfig = kubeconfig.display();
    let mut flags = vec![
        format!("--kubeconfig={kubeconfig}"),
        "--leader-elect=false".into(),
        "--use-service-account-credentials=true".into(),
        format!(
            "--service-account-private-key-file={}",
            pki.file("service-accounts.key")
        ),
        format!("--root-ca-file={}", pki.file("ca.crt")),
        format!("--cluster-signing-cert-file={}", pki.file("ca.crt")),
        format!("--cluster-signing-key-file={}", pki.file("ca.key")),
        // No serving port: several may run on one machine.
        "--secure-port=0".into(),
    ];
    if options.node_ipam.is_empty() {
        flags.push("--allocate-node-cidrs=false".into());
    } else {
        flags.push("--allocate-node-cidrs=true".into());
        flags.push(format!("--cluster-cidr={}", joined(&options.node_ipam)));
        flags.push(format!(
            "--service-cluster-ip-range={}",
            joined(&options.service_cidrs)
        ));
    }
    if !options.node_lifecycle {
        flags.push("--controllers=*,-node-lifecycle-controller,-taint-eviction-controller".into());
    }
    flags
}

fn joined(cidrs: &[IpNet]) -> String {
    cidrs
        .iter()
        .map(IpNet::to_string)
        .collect::<Vec<_>>()
        .join(",")
}
