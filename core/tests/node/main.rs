//! Node configurations: what a gateway, another node and a gateway with a VPN get, and what holds for all of them.
#![allow(clippy::unwrap_used)]

mod carried;
mod fleet;
mod properties;
mod script;
mod shapes;
mod walk;
