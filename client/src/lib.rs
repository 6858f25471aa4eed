//! What every program needs that follows and writes the API: a credential, a connection, the schema's check, leadership, watches.
//!
//! A program brings its policies as arguments: what a deletion means and what an outage is ([`follow::Follower`]), what an objection to
//! the schema is worth ([`schema::wait_for`]), what happens when leadership turns ([`lease::elect`]). Nothing here knows what is written.
//!
//! | module | what it does | |
//! |---|---|---|
//! | [`config`] | the credential: kubeconfig or service account | reads files |
//! | [`mod@connect`] | a connection that ends soon after its other side is gone | IO |
//! | [`schema`] | whether the definitions know all that this program writes | IO |
//! | [`leader`], [`lease`] | who leads | pure; IO |
//! | [`mod@follow`] | a watch that lists again after every break | IO |
//! | [`error`] | errors on one line | pure |
//!
//! `tests.rs` holds a whole program made of these.

pub mod config;
pub mod connect;
pub mod error;
#[cfg(test)]
mod fake;
pub mod follow;
pub mod leader;
pub mod lease;
pub mod schema;

pub use connect::connect;
pub use error::chain;

#[cfg(test)]
mod tests;
