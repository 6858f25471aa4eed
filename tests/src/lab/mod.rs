//! A network laboratory on one machine: sites, routers, nodes, pods, a company VPN and an
//! eavesdropper, all of them network namespaces inside one user, mount and PID namespace.
//!
//! ```text
//!                  switch of the WAN   203.0.113.0/24, 2001:db8:ffff::/64
//!   ┌────────┬───────────┬──────────┬──────────┬───────────┬────────┐
//! admin     api      rt-berlin   rt-paris   rt-oslo       hq ─ hq-host
//! (this  192.0.2.10   (NAT)     (public)   (routed)   172.16.9.0/24
//! process)              │           │          │
//!                   sw-berlin    sw-paris   sw-oslo      each underlay switch is listened on
//!                     │   │
//!               berlin-1  berlin-2       hosts: eth0, cni0, the agent under test
//!                  │
//!              berlin-1-p0 …             pods: e0 behind cni0
//! ```
//!
//! [`enter()`] must come first: it moves the whole test binary into namespaces of its own, so that
//! nothing a test does can touch the machine and nothing can outlive the test. [`Lab::build`]
//! then makes the underlay of a [`Topology`]; pods come when their prefixes are known
//! ([`Lab::assign_pods`]); [`Oracle`] listens and counts what crossed in clear.
//!
//! The lab knows nothing of Tieline. It offers an underlay, a CNI, the masquerade rules of real
//! nodes, and measurements; what runs on the nodes is the suite's affair.

mod build;
mod dump;
mod enter;
mod netns;
mod node;
mod oracle;
mod process;
mod rules;
mod topology;
mod traffic;
mod vpn;

pub(crate) use build::logs_folder;
pub use build::{ADMIN4, API4, API6, Lab, Pods};
pub use dump::Dump;
pub use enter::{Demands, Lifetime, enter, enter_for, from_outside};
pub use netns::NetNs;
pub use node::{Node, Pod};
pub use oracle::{CaptureReport, Oracle, Planned, Verdict};
pub use process::Process;
pub use rules::{NodeRules, RuleFlavour};
pub use topology::{NodeSpec, Site, SiteKind, Topology, Vpn};
pub use traffic::{
    Bulk, Endpoint, Family, Flows, MatrixReport, PairResult, PingReport, PingStats, PingStream,
    Protocol, Server,
};
