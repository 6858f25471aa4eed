//! What the agent's and the operator's credentials can do, and what they cannot.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use crate::support::{Server, Tests, peer, refused};

pub(crate) fn tests() -> Tests {
    vec![
        (
            "credentials: an agent writes its own Peer's status",
            own_status,
        ),
        (
            "credentials: an agent cannot write another node's Peer",
            foreign_status,
        ),
        (
            "credentials: an agent cannot change a spec, its own neither",
            own_spec,
        ),
        (
            "credentials: an agent cannot create or delete a Peer",
            create_and_delete,
        ),
        (
            "credentials: an agent's token that is bound to no pod is refused",
            unbound_token,
        ),
        (
            "credentials: an agent reads plans and Peers of the two local namespaces and nothing else",
            reads,
        ),
        (
            "credentials: an agent writes nothing in tieline-mesh",
            mesh_namespace,
        ),
        (
            "credentials: the operator labels an intent and cannot change its spec",
            operator_and_intents,
        ),
        (
            "credentials: the operator gives a node its podCIDR and cannot taint it",
            operator_and_nodes,
        ),
        (
            "credentials: the operator reads Secrets of its own namespace only",
            operator_and_secrets,
        ),
        ("credentials: no role of ours has a wildcard", wildcards),
    ]
}

const STATUS: &str = r#"{"status": {"version": "test"}}"#;

fn patch_status(
    server: &Server,
    credential: &std::path::Path,
    namespace: &str,
    node: &str,
) -> Result<String> {
    let (name, patch) = (format!("shop.{node}"), format!("--patch={STATUS}"));
    server.kubectl_as(
        credential,
        &[
            "patch",
            "peers",
            &name,
            "-n",
            namespace,
            "--subresource=status",
            "--type=merge",
            &patch,
        ],
    )
}

fn own_status(server: &Server) -> Result<()> {
    server.apply(&peer("tieline-system", "own"))?;
    let agent = server.agent_kubeconfig("own")?;
    let mark = server.audit_mark();
    patch_status(server, &agent, "tieline-system", "own")?;
    let version = server.kubectl(&[
        "get",
        "peers",
        "shop.own",
        "-n",
        "tieline-system",
        "--output=jsonpath={.status.version}",
    ])?;
    ensure!(version == "test", "the status says '{version}'");

    // The same write as the audit log has it, which is how later tests count writes.
    let writes = server.audit_writes_since(mark)?;
    let ours: Vec<_> = writes.iter().filter(|write| write.node == "own").collect();
    ensure!(ours.len() == 1, "expected one write: {writes:?}");
    ensure!(
        ours[0].verb == "patch" && ours[0].resource == "peers" && ours[0].subresource == "status",
        "{}",
        ours[0]
    );
    ensure!(
        ours[0].accepted() && !ours[0].by_control_plane(),
        "{}",
        ours[0]
    );
    Ok(())
}

fn foreign_status(server: &Server) -> Result<()> {
    server.apply(&peer("tieline-system", "victim"))?;
    let agent = server.agent_kubeconfig("thief")?;
    let answer = patch_status(server, &agent, "tieline-system", "victim");
    refused(
        answer,
        &[
            "belongs to node 'thief'",
            "Peer 'shop.victim' is node 'victim'",
        ],
    )
}

fn own_spec(server: &Server) -> Result<()> {
    server.apply(&peer("tieline-system", "spec"))?;
    let agent = server.agent_kubeconfig("spec")?;
    let patch = r#"--patch={"spec": {"podCidrs": ["10.0.0.0/8"]}}"#;
    let address = [
        "patch",
        "peers",
        "shop.spec",
        "-n",
        "tieline-system",
        "--type=merge",
        patch,
    ];
    refused(
        server.kubectl_as(&agent, &address),
        &["cannot patch resource \"peers\""],
    )?;
    // Through the status subresource a changed spec is ignored, whatever RBAC says.
    let patch = r#"--patch={"spec": {"podCidrs": ["10.0.0.0/8"]}, "status": {"version": "sly"}}"#;
    let sly = [
        "patch",
        "peers",
        "shop.spec",
        "-n",
        "tieline-system",
        "--subresource=status",
        "--type=merge",
        patch,
    ];
    server.kubectl_as(&agent, &sly)?;
    let text = server.kubectl(&[
        "get",
        "peers",
        "shop.spec",
        "-n",
        "tieline-system",
        "--output=jsonpath={.spec.podCidrs}{.status.version}",
    ])?;
    ensure!(text == "sly", "the spec was changed: {text}");
    Ok(())
}

fn create_and_delete(server: &Server) -> Result<()> {
    server.apply(&peer("tieline-system", "lasting"))?;
    let agent = server.agent_kubeconfig("lasting")?;
    let delete = ["delete", "peers", "shop.lasting", "-n", "tieline-system"];
    refused(
        server.kubectl_as(&agent, &delete),
        &["cannot delete resource \"peers\""],
    )?;
    let invented = server.dir().join("invented.json");
    std::fs::write(&invented, peer("tieline-system", "invented"))?;
    let create = ["create", "-f", &invented.display().to_string()];
    refused(
        server.kubectl_as(&agent, &create),
        &["cannot create resource \"peers\""],
    )
}

fn unbound_token(server: &Server) -> Result<()> {
    server.apply(&peer("tieline-system", "unbound"))?;
    let token = server.unbound_token("tieline-agent", "tieline-system")?;
    let credential = server.token_kubeconfig("agent-unbound", &token)?;
    let answer = patch_status(server, &credential, "tieline-system", "unbound");
    refused(answer, &["does not say which node", "projected token"])
}

fn reads(server: &Server) -> Result<()> {
    let agent = server.agent_kubeconfig("reader")?;
    for namespace in ["tieline-system", "tieline-mesh"] {
        for kind in ["peers.tieline.dev", "networkplans.tieline.dev"] {
            server.kubectl_as(&agent, &["get", kind, "-n", namespace])?;
        }
    }
    server.kubectl_as(
        &agent,
        &[
            "get",
            "customresourcedefinitions",
            "peers.tieline.dev",
            "--output=name",
        ],
    )?;
    let rest = [
        &["get", "secrets", "-n", "tieline-system"][..],
        &["get", "secrets", "-n", "kube-system"],
        &["get", "peers", "--all-namespaces"],
        &["get", "addressledgers.tieline.dev"],
        &["get", "clusterlinks.tieline.dev"],
        &["get", "vpnattachments.tieline.dev"],
        &["get", "nodes"],
        &["get", "pods", "-n", "tieline-system"],
        &["get", "customresourcedefinitions"],
        &[
            "create",
            "token",
            "tieline-operator",
            "-n",
            "tieline-system",
        ],
    ];
    for args in rest {
        refused(server.kubectl_as(&agent, args), &["cannot"])?;
    }
    // All of its rules: these, the questions that everybody may ask about himself, and the URLs of discovery and health.
    let list = server.kubectl_as(
        &agent,
        &[
            "auth",
            "can-i",
            "--list",
            "--no-headers",
            "-n",
            "tieline-system",
        ],
    )?;
    let is_question = |line: &str| line.starts_with("self") && line.contains("reviews.auth");
    let is_url = |line: &str| line.starts_with(' ') && line.ends_with("[get]");
    let ours: BTreeSet<String> = list
        .lines()
        .filter(|line| !is_question(line) && !is_url(line))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let expected = [
        "customresourcedefinitions.apiextensions.k8s.io [] [networkplans.tieline.dev] [get]",
        "customresourcedefinitions.apiextensions.k8s.io [] [peers.tieline.dev] [get]",
        "networkplans.tieline.dev [] [] [get list watch]",
        "peers.tieline.dev [] [] [get list watch]",
        "peers.tieline.dev/status [] [] [get patch update]",
    ];
    ensure!(
        ours == expected.map(str::to_owned).into(),
        "the agent may do more or less than it should: {ours:#?}"
    );
    Ok(())
}

fn mesh_namespace(server: &Server) -> Result<()> {
    server.apply(&peer("tieline-mesh", "mirrored"))?;
    let agent = server.agent_kubeconfig("mirrored")?;
    refused(
        patch_status(server, &agent, "tieline-mesh", "mirrored"),
        &["cannot", "\"peers/status\"", "\"tieline-mesh\""],
    )?;
    for verb in ["create", "update", "patch", "delete"] {
        for subresource in ["", "status"] {
            let subresource = format!("--subresource={subresource}");
            let may = server.kubectl_as(
                &agent,
                &[
                    "auth",
                    "can-i",
                    verb,
                    "peers.tieline.dev",
                    &subresource,
                    "-n",
                    "tieline-mesh",
                ],
            );
            ensure!(
                may.is_err(),
                "an agent may {verb} Peers ({subresource}) in tieline-mesh"
            );
        }
    }
    Ok(())
}

fn operator_and_intents(server: &Server) -> Result<()> {
    server.apply("{apiVersion: tieline.dev/v1alpha1, kind: Site, metadata: {name: intent}, spec: {cidrs: [10.20.0.0/16]}}")?;
    let operator = server.operator_kubeconfig()?;
    server.kubectl_as(
        &operator,
        &[
            "label",
            "sites.tieline.dev",
            "intent",
            "tieline.dev/in-use=true",
        ],
    )?;
    let status = [
        r#"--patch={"status": {"observedGeneration": 1}}"#,
        "--subresource=status",
        "--type=merge",
    ];
    server.kubectl_as(
        &operator,
        &[&["patch", "sites.tieline.dev", "intent"], &status[..]].concat(),
    )?;
    let spec = [
        r#"--patch={"spec": {"cidrs": ["10.0.0.0/8"]}}"#,
        "--type=merge",
    ];
    let answer = server.kubectl_as(
        &operator,
        &[&["patch", "sites.tieline.dev", "intent"], &spec[..]].concat(),
    );
    refused(answer, &["its spec belongs to the people who wrote it"])?;
    let delete = server.kubectl_as(&operator, &["delete", "sites.tieline.dev", "intent"]);
    refused(delete, &["cannot delete resource \"sites\""])
}

fn operator_and_nodes(server: &Server) -> Result<()> {
    server.apply("{apiVersion: v1, kind: Node, metadata: {name: assigned}}")?;
    let operator = server.operator_kubeconfig()?;
    let patch = |patch: &str| {
        server.kubectl_as(
            &operator,
            &[
                "patch",
                "node",
                "assigned",
                "--type=merge",
                &format!("--patch={patch}"),
            ],
        )
    };
    patch(r#"{"spec": {"podCIDR": "10.64.7.0/24", "podCIDRs": ["10.64.7.0/24"]}}"#)?;
    let taint = r#"{"spec": {"taints": [{"key": "evil", "effect": "NoExecute"}]}}"#;
    let waits = r#"{"key": "tieline.dev/agent-not-ready", "effect": "NoSchedule"}"#;
    let other = r#"{"key": "example.com/gpu", "effect": "NoSchedule"}"#;
    let both = format!(r#"{{"spec": {{"taints": [{waits}, {other}]}}}}"#);
    server.kubectl(&["patch", "node", "assigned", "--type=merge", "-p", &both])?;
    // The one that waits for the agent may go, and no other.
    let none = r#"{"spec": {"taints": []}}"#;
    let swapped = format!(r#"{{"spec": {{"taints": [{waits}]}}}}"#);
    for unwanted in [
        taint,
        none,
        swapped.as_str(),
        r#"{"spec": {"unschedulable": true}}"#,
        r#"{"metadata": {"labels": {"role": "mine"}}}"#,
    ] {
        refused(patch(unwanted), &["changes nothing else of it"])?;
    }
    patch(&format!(r#"{{"spec": {{"taints": [{other}]}}}}"#))?;
    Ok(())
}

fn operator_and_secrets(server: &Server) -> Result<()> {
    let operator = server.operator_kubeconfig()?;
    server.kubectl_as(
        &operator,
        &[
            "create",
            "secret",
            "generic",
            "hq-key",
            "-n",
            "tieline-system",
            "--from-literal=key=x",
        ],
    )?;
    for namespace in ["default", "kube-system", "tieline-mesh"] {
        let answer = server.kubectl_as(&operator, &["get", "secrets", "-n", namespace]);
        refused(answer, &["cannot list resource \"secrets\""])?;
    }
    Ok(())
}

fn wildcards(server: &Server) -> Result<()> {
    for kind in ["clusterroles", "roles"] {
        let text = server.kubectl(&[
            "get",
            kind,
            "--all-namespaces",
            "-l",
            "app.kubernetes.io/part-of=tieline",
            "-o",
            "json",
        ])?;
        let list: serde_json::Value = serde_json::from_str(&text)?;
        let roles = list["items"].as_array().map_or(&[][..], Vec::as_slice);
        ensure!(
            roles.len() >= 2,
            "expected at least two {kind} of ours, found {}",
            roles.len()
        );
        for role in roles {
            ensure!(
                !role["rules"].to_string().contains('*'),
                "{}: {}",
                role["metadata"]["name"],
                role["rules"]
            );
        }
    }
    Ok(())
}
