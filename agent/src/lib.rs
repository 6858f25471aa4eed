//! One per node: turns the plan into WireGuard devices, routes, rules and firewall.
//!
//! | module | what it does |
//! |---|---|
//! | [`platform`] | the seam to the kernel: observe, apply, wait for news |

pub mod platform;
