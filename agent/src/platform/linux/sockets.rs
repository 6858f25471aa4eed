//! What every resource reaches the kernel by: a routing socket, a socket that tells when rulesets changed, and the links for
//! as long as they are known to be the same.

use super::generation::{Basis, Generation};
use super::links::Links;
use super::netlink::Netlink;
use std::io;
use std::sync::Arc;

/// The sockets, in the network namespace in which they were opened.
pub(super) struct Sockets {
    /// Links, addresses, routes and rules.
    pub(super) netlink: Netlink,
    /// Generations of nft rulesets; none where the kernel does not tell.
    pub(super) generation: Option<Generation>,
    /// Links as long as no device of ours was made or removed since they were read.
    links: Option<Arc<Links>>,
}

impl Sockets {
    /// Opens them and serves them on the current tokio runtime.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            netlink: Netlink::open()?,
            generation: Generation::open().ok(),
            links: None,
        })
    }

    /// The links, good enough to write by.
    pub(super) async fn links(&mut self) -> io::Result<Arc<Links>> {
        if let Some(links) = &self.links {
            return Ok(Arc::clone(links));
        }
        let links = Arc::new(Links::read(&self.netlink).await?);
        self.links = Some(Arc::clone(&links));
        Ok(links)
    }

    /// The links may be others now.
    pub(super) fn forget_links(&mut self) {
        self.links = None;
    }

    /// What a listing of tables depends on; `None` where the kernel does not tell.
    pub(super) async fn basis(&self, links: &Links) -> Option<Basis> {
        let generation = self.generation.as_ref()?.read().await?;
        Some(Basis {
            generation,
            links: links.names(),
        })
    }
}
