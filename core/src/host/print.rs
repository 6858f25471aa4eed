//! Prints host state like the tools that a network engineer knows: `wg`, `ip rule`, `ip route`, `nft`.
