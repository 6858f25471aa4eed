//! The definitions of `crds/yaml`: what they refuse, what they say then, and how they read.

use anyhow::{Context as _, Result, ensure};

use crate::support::{Server, Tests, ledger, peer, refused};

pub(crate) fn tests() -> Tests {
    vec![
        (
            "definitions: the smallest useful network is accepted",
            smallest_network,
        ),
        (
            "definitions: a CIDR with host bits or upper case is refused, and an example says how to write it",
            host_bits,
        ),
        (
            "definitions: a range that is no CIDR is refused with an example",
            no_cidr,
        ),
        (
            "definitions: pools that overlap each other are refused",
            overlapping_pools,
        ),
        (
            "definitions: a Cluster that says twice where its nodes are is refused",
            sites_twice,
        ),
        (
            "definitions: a ClusterLink without members is refused",
            no_members,
        ),
        (
            "definitions: a VpnAttachment's site cannot be changed",
            immutable_site,
        ),
        (
            "definitions: a WireGuard key of the wrong length is refused",
            short_key,
        ),
        (
            "definitions: a name that cannot be a label value is refused",
            long_name,
        ),
        (
            "definitions: a Peer must carry the name of its node",
            peer_name,
        ),
        (
            "definitions: a field that does not exist is refused",
            unknown_field,
        ),
        (
            "definitions: every kind has a short name and the category tieline",
            names_of_kinds,
        ),
        (
            "definitions: kubectl explain describes every field",
            explain,
        ),
        (
            "definitions: kubectl get shows columns that answer questions",
            columns,
        ),
    ]
}

fn cluster(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: tieline.dev/v1alpha1, kind: Cluster, metadata: {{name: {name}}}, spec: {spec}}}"
    )
}

fn link(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: tieline.dev/v1alpha1, kind: ClusterLink, metadata: {{name: {name}}}, spec: {spec}}}"
    )
}

fn vpn(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: tieline.dev/v1alpha1, kind: VpnAttachment, metadata: {{name: {name}}}, spec: {spec}}}"
    )
}

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

fn smallest_network(server: &Server) -> Result<()> {
    server.apply(&cluster(
        "small",
        "{sites: {fromNodeLabel: topology.kubernetes.io/region}}",
    ))?;
    server.apply(&link(
        "small",
        "{addressing: {podPools: [10.64.0.0/10]}, members: {clusters: [small]}}",
    ))?;
    Ok(())
}

fn host_bits(server: &Server) -> Result<()> {
    let answer = server.apply(&link(
        "host-bits",
        "{addressing: {podPools: [10.64.0.1/16]}, members: {clusters: [small]}}",
    ));
    refused(
        answer,
        &[
            "spec.addressing.podPools[0]",
            "10.64.0.1/16",
            "no bits set behind the prefix length",
        ],
    )?;
    let answer = server.apply(&link(
        "upper-case",
        "{addressing: {podPools: ['FD00:64::/48']}, members: {clusters: [small]}}",
    ));
    refused(
        answer,
        &[
            "spec.addressing.podPools[0]",
            "lower case",
            "like 10.64.0.0/16 or fd00:64::/48",
        ],
    )
}

fn no_cidr(server: &Server) -> Result<()> {
    let answer = server.apply(&cluster(
        "no-cidr",
        "{sites: {name: a}, serviceCidrs: [10.96.0.0]}",
    ));
    refused(answer, &["spec.serviceCidrs[0]", "like 10.64.0.0/16"])
}

fn overlapping_pools(server: &Server) -> Result<()> {
    let pools =
        "{addressing: {podPools: [10.64.0.0/10, 10.65.0.0/16]}, members: {clusters: [small]}}";
    refused(
        server.apply(&link("overlap", pools)),
        &["spec.addressing.podPools", "two entries overlap"],
    )
}

fn sites_twice(server: &Server) -> Result<()> {
    let twice = cluster(
        "twice",
        "{sites: {name: a, fromNodeLabel: topology.kubernetes.io/region}}",
    );
    refused(server.apply(&twice), &["spec.sites", "exactly one of"])?;
    refused(
        server.apply(&cluster("never", "{sites: {}}")),
        &["spec.sites", "exactly one of"],
    )
}

fn no_members(server: &Server) -> Result<()> {
    refused(
        server.apply(&link("empty", "{members: {}}")),
        &["spec.members", "at least one member"],
    )
}

fn immutable_site(server: &Server) -> Result<()> {
    let at = |site: &str| {
        vpn(
            "moving",
            &format!(
                "{{site: {site}, prefixes: [172.16.0.0/16], wireguard: {{peerPublicKey: '{KEY}'}}}}"
            ),
        )
    };
    server.apply(&at("berlin"))?;
    refused(
        server.apply(&at("paris")),
        &[
            "spec.site",
            "cannot be changed",
            "create another VpnAttachment",
        ],
    )
}

fn short_key(server: &Server) -> Result<()> {
    let short = vpn(
        "short-key",
        "{site: berlin, prefixes: [172.16.0.0/16], wireguard: {peerPublicKey: 'abc='}}",
    );
    refused(
        server.apply(&short),
        &["spec.wireguard.peerPublicKey", "wg pubkey"],
    )
}

fn long_name(server: &Server) -> Result<()> {
    let long = "a".repeat(64);
    refused(
        server.apply(&cluster(&long, "{sites: {name: a}}")),
        &["63 characters", "label value"],
    )
}

fn peer_name(server: &Server) -> Result<()> {
    let wrong = peer("tieline-system", "node-a").replace("name: shop.node-a", "name: shop.node-b");
    refused(server.apply(&wrong), &["CLUSTER.NODE"])
}

fn unknown_field(server: &Server) -> Result<()> {
    let answer = server.apply(&link(
        "bgp",
        "{members: {clusters: [small]}, bgp: {asn: 64512}}",
    ));
    refused(answer, &["bgp"])
}

fn names_of_kinds(server: &Server) -> Result<()> {
    let text = server.kubectl(&["api-resources", "--api-group=tieline.dev", "--output=wide"])?;
    let kinds = [
        ("addressledgers", "false"),
        ("clusterlinks", "false"),
        ("clusters", "false"),
        ("networkplans", "true"),
        ("peers", "true"),
        ("sites", "false"),
        ("vpnattachments", "false"),
    ];
    for (plural, namespaced) in kinds {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{plural} ")))
            .with_context(|| format!("no {plural}: {text}"))?;
        let columns: Vec<&str> = line.split_whitespace().collect();
        ensure!(
            columns.contains(&namespaced) && line.trim_end().ends_with("tieline"),
            "{line}"
        );
    }
    for short in ["tll", "tlc", "tls", "tlv", "tlp"] {
        server.kubectl(&["get", short, "--all-namespaces"])?;
    }
    server.kubectl(&["get", "tieline"])?;
    Ok(())
}

fn explain(server: &Server) -> Result<()> {
    for kind in [
        "clusterlinks",
        "clusters",
        "sites",
        "vpnattachments",
        "addressledgers",
        "networkplans",
        "peers",
    ] {
        let text = server.kubectl(&[
            "explain",
            "--api-version=tieline.dev/v1alpha1",
            "--recursive=false",
            kind,
        ])?;
        ensure!(
            text.contains("DESCRIPTION:") && !text.contains("<empty>"),
            "{kind} has no description: {text}"
        );
        for part in ["spec", "status"] {
            let text = server.kubectl(&[
                "explain",
                "--api-version=tieline.dev/v1alpha1",
                &format!("{kind}.{part}"),
            ])?;
            ensure!(
                !text.contains("<no description>") && !text.contains("<empty>"),
                "{kind}.{part}: {text}"
            );
        }
    }
    let text = server.kubectl(&[
        "explain",
        "--api-version=tieline.dev/v1alpha1",
        "clusters.spec.pods.assign",
    ])?;
    ensure!(text.contains("kube-controller-manager"), "{text}");
    Ok(())
}

fn columns(server: &Server) -> Result<()> {
    server.apply(&link("columns", "{members: {clusters: [columns]}}"))?;
    let text = server.kubectl(&["get", "clusterlinks", "columns"])?;
    ensure!(
        text.lines()
            .next()
            .is_some_and(|header| header.contains("READY")),
        "{text}"
    );
    server.apply(&ledger("cluster-columns", "columns-lineage", 7))?;
    let text = server.kubectl(&["get", "addressledgers", "cluster-columns"])?;
    ensure!(text.contains("REVISION") && text.contains(" 7 "), "{text}");
    Ok(())
}
