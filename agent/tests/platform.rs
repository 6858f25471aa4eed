//! The platform on this machine's own kernel.
fn main() {}
