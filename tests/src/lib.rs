//! What the suites and the demos are made of. Five families, from plain to real:
//!
//! | family | what is real in it | suites |
//! |---|---|---|
//! | [`control_plane`] | etcd, API server and controller manager, with audit log | `api`, `operator`, `doctor` |
//! | [`lab`] | network namespaces as hosts and routers, WireGuard packets, an oracle that hears all of them | `lab_selftest` |
//! | [`world`] | a lab with a control plane, the operator, an agent on each host and pods that answer | `lab_mesh`, `lab_faults`, the demo |
//! | [`guest`] | the same in QEMU, on Debian's kernel with its own WireGuard | `kernel_guest` |
//! | [`nodes`] | real kubelets, containerd, CNIs and kube-proxy on such hosts; Tieline from its chart and image | `nodes_*`, the other demo |
//!
//! [`wait`] is how they wait for what is not there yet; [`docs`] runs the commands of pages.

pub mod control_plane;
pub mod docs;
pub mod guest;
pub mod lab;
pub mod nodes;
pub mod wait;
pub mod world;
