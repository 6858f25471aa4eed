//! The AWS VPC CNI: pods have addresses of the VPC's subnets.

use super::known::{Cni, Known};
use super::traces::Traces;

pub(super) const AWS: Known = Known {
    name: "AWS VPC CNI",
    config_maps: &[],
    devices: &[],
    chains: &["AWS-SNAT-*"],
    look,
};

fn look(traces: &Traces<'_>) -> Option<Cni> {
    traces.set(&["aws-node"])?;
    Some(Cni {
        own_addresses: Some("they come from the VPC's subnets".to_owned()),
        ..Cni::by_name(AWS.name)
    })
}
