//! What holds for everybody, an administrator included: the policies of `deploy/manifests`, and the fencing of revisions by the
//! definitions (which run at every update, so no policy repeats it).

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::support::{Server, Tests, ledger, refused};

pub(crate) fn tests() -> Tests {
    vec![
        (
            "admission: what a mesh uses is not deleted, and the refusal says what to remove first",
            in_use,
        ),
        ("admission: what nothing uses is deleted", not_in_use),
        ("admission: a ClusterLink is deleted, in use or not", link),
        (
            "admission: a ledger is deleted only after its name was confirmed",
            ledger_delete,
        ),
        (
            "fencing: a ledger's revision does not fall",
            ledger_revision,
        ),
        (
            "fencing: a plan's revision does not fall within a lineage",
            plan_revision,
        ),
        (
            "admission: every expression of our policies fits the schemas",
            type_check,
        ),
    ]
}

fn intents(name: &str, labels: &str) -> String {
    let key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
    let vpn = format!(
        "{{site: {name}, prefixes: [172.16.0.0/16], wireguard: {{peerPublicKey: '{key}'}}}}"
    );
    let documents = [("Cluster", "{sites: {name: berlin}}"), ("Site", "{cidrs: [192.168.40.0/22]}"), ("VpnAttachment", &vpn)].map(
        |(kind, spec)| {
            format!("{{apiVersion: tieline.dev/v1alpha1, kind: {kind}, metadata: {{name: {name}, labels: {labels}}}, spec: {spec}}}")
        },
    );
    documents.join("\n---\n")
}

fn in_use(server: &Server) -> Result<()> {
    server.apply(&intents("used", "{tieline.dev/in-use: 'true'}"))?;
    let expected = [
        (
            "clusters.tieline.dev",
            "Cluster 'used' is in use. First remove it from spec.members.clusters",
        ),
        (
            "sites.tieline.dev",
            "Site 'used' is in use. First remove it from spec.members.sites",
        ),
        (
            "vpnattachments.tieline.dev",
            "VpnAttachment 'used' is in use. First remove it from spec.members.vpnAttachments",
        ),
    ];
    for (kind, message) in expected {
        refused(server.kubectl(&["delete", kind, "used"]), &[message])?;
        // The way round: a collection is judged object by object.
        refused(
            server.kubectl(&[
                "delete",
                kind,
                "-l",
                "tieline.dev/in-use=true",
                "--field-selector=metadata.name=used",
            ]),
            &[message],
        )?;
        server.kubectl(&["label", kind, "used", "tieline.dev/in-use-"])?;
        server.kubectl(&["delete", kind, "used"])?;
    }
    Ok(())
}

fn not_in_use(server: &Server) -> Result<()> {
    server.apply(&intents("unused", "{tieline.dev/in-use: 'false'}"))?;
    for kind in [
        "clusters.tieline.dev",
        "sites.tieline.dev",
        "vpnattachments.tieline.dev",
    ] {
        server.kubectl(&["delete", kind, "unused"])?;
    }
    Ok(())
}

fn link(server: &Server) -> Result<()> {
    server.apply(
        "{apiVersion: tieline.dev/v1alpha1, kind: ClusterLink, metadata: {name: going, labels: {tieline.dev/in-use: 'true'}},
          spec: {members: {clusters: [a]}}}",
    )?;
    server.kubectl(&["delete", "clusterlinks.tieline.dev", "going"])?;
    Ok(())
}

fn ledger_delete(server: &Server) -> Result<()> {
    server.apply(&ledger("cluster-kept", "kept-lineage", 1))?;
    let delete = || server.kubectl(&["delete", "addressledgers.tieline.dev", "cluster-kept"]);
    let annotate = |value: &str| {
        let annotation = format!("tieline.dev/confirm-delete={value}");
        server.kubectl(&[
            "annotate",
            "--overwrite",
            "addressledgers.tieline.dev",
            "cluster-kept",
            &annotation,
        ])
    };
    refused(
        delete(),
        &[
            "who holds which addresses",
            "kubectl annotate addressledgers.tieline.dev cluster-kept",
        ],
    )?;
    annotate("true")?;
    refused(delete(), &["tieline.dev/confirm-delete=cluster-kept"])?;
    annotate("cluster-kept")?;
    delete()?;
    Ok(())
}

fn ledger_revision(server: &Server) -> Result<()> {
    server.apply(&ledger("cluster-fenced", "fenced-lineage", 5))?;
    refused(
        server.apply(&ledger("cluster-fenced", "fenced-lineage", 4)),
        &["never falls"],
    )?;
    server.apply(&ledger("cluster-fenced", "fenced-lineage", 6))?;
    let revision = server.kubectl(&[
        "get",
        "addressledgers",
        "cluster-fenced",
        "--output=jsonpath={.spec.revision}",
    ])?;
    ensure!(revision == "6", "{revision}");
    Ok(())
}

fn plan_revision(server: &Server) -> Result<()> {
    let plan = |lineage: &str, revision: u32| {
        format!(
            "{{apiVersion: tieline.dev/v1alpha1, kind: NetworkPlan, metadata: {{name: fenced, namespace: tieline-system}},
               spec: {{link: fenced, lineage: {lineage}, revision: {revision}, granularity: Site}}}}"
        )
    };
    server.apply(&plan("first-lineage", 5))?;
    refused(server.apply(&plan("first-lineage", 4)), &["never falls"])?;
    server.apply(&plan("first-lineage", 5))?;
    server.apply(&plan("second-lineage", 1))?;
    Ok(())
}

fn type_check(server: &Server) -> Result<()> {
    let warnings = server.admission_warnings(Duration::from_secs(30))?;
    ensure!(warnings.is_empty(), "{warnings:#?}");
    Ok(())
}
