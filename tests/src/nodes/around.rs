//! What a cluster is made of beside its nodes: control plane, scheduler, images, and what the edges of sites do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::binaries::Programs;
use super::{Cni, Image, PROBE_IMAGE, PodRanges, config};
use crate::control_plane::{ControlPlane, Options as ControlPlaneOptions};
use crate::lab::{API4, Lab, Process, SiteKind};

pub(super) fn start_control_plane(
    lab: &Lab,
    pod_ranges: &PodRanges,
    api_server_flags: Vec<String>,
) -> Result<ControlPlane> {
    let mut options = ControlPlaneOptions::new(lab.logs().join("control-plane"))
        .in_netns("/run/netns/api", API4.into());
    options.service_cidrs = config::service_ranges(lab.topology().dual_stack);
    options.controller_manager = true;
    options.node_lifecycle = true;
    if let PodRanges::ControllerManager(ranges) = pod_ranges {
        options.node_ipam.clone_from(ranges);
    }
    options.api_server_flags = api_server_flags;
    ControlPlane::start(options)
}

pub(super) fn start_scheduler(
    lab: &Lab,
    control_plane: &ControlPlane,
    programs: &Programs,
) -> Result<Process> {
    let kubeconfig =
        control_plane.client_kubeconfig("kube-scheduler", "/CN=system:kube-scheduler")?;
    let kubeconfig = kubeconfig.display();
    let mut command = Command::new(programs.path("kube-scheduler"));
    command.args([
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--leader-elect=false".into(),
        "--bind-address=127.0.0.1".into(),
    ]);
    lab.spawn("api", "kube-scheduler", &mut command)
}

/// Writes the lab's own images into a folder.
pub(super) fn write_archives(folder: &Path, programs: &Programs) -> Result<Vec<PathBuf>> {
    let (probe, coredns) = (folder.join("probe.tar"), folder.join("coredns.tar"));
    Image::of_program(PROBE_IMAGE, "probe", &programs.path("probe"), &["pause"])?.write(&probe)?;
    Image::of_program(config::DNS_IMAGE, "coredns", &programs.path("coredns"), &[])?
        .write(&coredns)?;
    Ok(vec![probe, coredns])
}

pub(super) fn copy_into(folder: &Path, archive: &Path) -> Result<()> {
    let name = archive
        .file_stem()
        .with_context(|| format!("{} is no file", archive.display()))?;
    fs::copy(archive, folder.join(name).with_extension("tar"))
        .with_context(|| format!("copying {}", archive.display()))?;
    Ok(())
}

/// What the edges of sites do for the CNI, see the module's head.
pub(super) fn edges(lab: &Lab, cni: Cni) -> Result<()> {
    for site in &lab.topology().sites {
        let router = lab.host(&format!("rt-{}", site.name))?;
        match cni {
            Cni::Bridge => {}
            Cni::Flannel => router.nft(
                r#"table inet lab_edge {
                    chain forward {
                        type filter hook forward priority -1;
                        iifname "wan0" udp dport 8472 drop
                        oifname "wan0" udp dport 8472 drop
                    }
                }"#,
            )?,
            Cni::Plain if site.kind == SiteKind::Nat => {}
            Cni::Plain => router.nft(&format!(
                r#"table inet lab_edge {{
                    chain post {{
                        type nat hook postrouting priority 100;
                        oifname "wan0" ip saddr != {} masquerade
                        oifname "wan0" ip6 saddr fc00::/7 masquerade
                    }}
                }}"#,
                site.lan4
            ))?,
        }
    }
    Ok(())
}
