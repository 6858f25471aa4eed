//! Random histories, decided by what changed and as a whole: both have to come to the same.
use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A key that nobody else chose, but for `number`.
fn key(number: u8) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.encode([number.max(1); 32])
}

impl Bench {
    /// What an agent says: its keys, what it carries, its paths.
    fn speak(&mut self, peer: &str, status: Value) {
        let Some(held) = self.index.peers.get(peer) else {
            return;
        };
        let mut peer = Peer::clone(held);
        peer.status = Some(serde_json::from_value(status).unwrap());
        self.index.apply(peer);
    }

    /// Something that happens to one of some nodes, or now and then to something else.
    fn happen(&mut self, rng: &mut StdRng) {
        let number = rng.random_range(0..20_u8);
        let name = format!("n{number}");
        let site = ["berlin", "oslo", "paris"][rng.random_range(0..3_usize)];
        match rng.random_range(0..20) {
            0..4 => self.node(&name, site, number + 10),
            4 => {
                if let Some(node) = self.index.nodes.get(&name).cloned() {
                    self.index.delete(&*node);
                }
            }
            5..17 => {
                let revision = self
                    .index
                    .plans
                    .get("acme")
                    .map_or(0, |it| it.spec.revision);
                let paths = rng.random_range(0..3_u32);
                let keys = json!([
                    {"device": "tie0", "key": key(rng.random_range(1..16))},
                    {"device": "tiei0", "key": key(rng.random_range(100..116))},
                ]);
                self.speak(
                    &format!("shop.{name}"),
                    json!({
                        "keys": if rng.random_bool(0.8) { keys } else { json!([]) },
                        "endpoints": [{"address": format!("198.51.100.{}", rng.random_range(0..9)), "scope": "Public"}],
                        "appliedRevision": rng.random_range(0..=revision),
                        "paths": {"up": rng.random_range(0..=paths), "total": paths},
                    }),
                );
            }
            17 => {
                let pools = [["10.64.0.0/10"], ["10.64.0.0/11"]][rng.random_range(0..2_usize)];
                self.link("acme", pools[0], &["shop"]);
            }
            18 => {
                let lan = format!("192.168.{}.0/24", rng.random_range(0..2));
                self.put::<Site>(json!({"metadata": {"name": "berlin"}, "spec": {"cidrs": [lan]}}));
            }
            _ => {
                let assign = rng.random_bool(0.9);
                self.put::<Cluster>(json!({
                    "metadata": {"name": "shop"},
                    "spec": {"sites": {"fromNodeLabel": "site"}, "pods": {"assign": assign}},
                }));
            }
        }
    }
}

#[test]
fn what_follows_a_change_is_what_a_whole_pass_decides() {
    let (mut passes, mut followed, mut refused) = (0, 0, 0);
    for seed in 0..16 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut bench = Bench::new();
        bench.pass();
        for step in 0..60 {
            for _ in 0..rng.random_range(1..6) {
                bench.happen(&mut rng);
            }
            // Until nothing is left to write: every claim may take a key that another one gives back.
            for turn in 0.. {
                assert!(turn < 20, "seed {seed}, step {step}: it does not end");
                let mut other = keeper("lineage1");
                other.seen = bench.keeper.seen.clone();
                other.memory = bench.keeper.memory.clone();
                other.index = bench.index.clone();
                let (_, whole) = other.decide_whole(&mut OsRng);
                let news = bench.index.follow(&mut bench.keeper.index, Scope::All);
                let (extent, steps) = bench.keeper.decide(&news, &mut OsRng);
                passes += 1;
                followed += usize::from(extent != Extent::All);
                let (mine, theirs) = (
                    bench.keeper.decided.clone().unwrap(),
                    other.decided.unwrap(),
                );
                refused += mine.accepted.refused.len();
                let at = format!("seed {seed}, step {step}, turn {turn}");
                assert_eq!(mine.world, theirs.world, "{at}");
                assert_eq!(mine.proposal(), theirs.proposal(), "{at}");
                assert_eq!(mine.accepted, theirs.accepted, "{at}");
                assert_eq!(mine.objections, theirs.objections, "{at}");
                assert_eq!(mine.uses, theirs.uses, "{at}");
                let texts = |steps: &Steps, late: &[Write]| {
                    let all = steps.urgent.iter().flatten().chain(late);
                    all.map(|it| format!("{it:?}")).collect::<BTreeSet<_>>()
                };
                let (mine, theirs) = (
                    texts(&steps, &bench.keeper.late),
                    texts(&whole, &other.late),
                );
                assert_eq!(mine, theirs, "{at}");
                bench.write_due(&at);
                if mine.is_empty() {
                    break;
                }
                let late = std::mem::take(&mut bench.keeper.late);
                for write in steps.urgent.into_iter().flatten().chain(late) {
                    bench.store(write);
                }
            }
        }
    }
    assert!(refused > 100, "only {refused} claims were refused");
    assert!(
        followed * 2 > passes,
        "only {followed} of {passes} passes followed what changed"
    );
}

impl Bench {
    /// Stores the statuses that are due: then none is left that differs.
    fn write_due(&mut self, at: &str) {
        while self.keeper.has_due(Instant::now()) {
            for announcement in self.keeper.statuses(Timestamp::UNIX_EPOCH, Instant::now()) {
                macro_rules! keep {
                    ($($kind:ident),*) => {
                        match announcement {
                            $(Announcement::$kind(object, status) => {
                                let mut object = (*object).clone();
                                object.status = Some(status);
                                self.index.apply_own(object);
                            })*
                            Announcement::ClusterInUse(..)
                            | Announcement::SiteInUse(..)
                            | Announcement::VpnInUse(..) => {}
                        }
                    };
                }
                keep!(Link, Cluster, Site, Vpn, Ledger, Plan);
            }
        }
        let decided = self.keeper.decided.clone().unwrap();
        let mut left = self.statuses(&decided, &Refused::default());
        left.retain(|it| {
            !matches!(
                it,
                Announcement::ClusterInUse(..) | Announcement::SiteInUse(..)
            )
        });
        assert!(left.is_empty(), "{at}: {left:?}");
    }
}
