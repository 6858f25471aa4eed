//! The labs: a real API server, network namespaces with real WireGuard packets, and the oracles
//! that the suites and the demo share.

pub mod control_plane;
pub mod docs;
pub mod guest;
pub mod lab;
pub mod nodes;
pub mod world;
