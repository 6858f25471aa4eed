//! Each role on its own: devices, peers, routes and rules of `dataplane.md`'s table.
