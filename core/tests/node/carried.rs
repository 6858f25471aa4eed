//! A wanted state that is carried from change to change is the one that is made from nothing, and its differences are those that a
//! look at everything finds.

use crate::fleet::{World, facts, key, prefix, world};
use crate::properties::shapes;
use proptest::prelude::*;
use proptest::sample::Index;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tieline_core::cidr::Prefix;
use tieline_core::health::{PathId, PathState};
use tieline_core::host::diff::{Livenesses, diff_parts};
use tieline_core::host::{DeviceName, HostState, diff};
use tieline_core::ids::PeerName;
use tieline_core::node::{Configurator, Inputs, LocalFacts, Touched, node_config, resolve};
use tieline_core::peer::{AcceptedPeer, Endpoint, Scope};

/// What may happen in a network. An index picks among what there is.
#[derive(Debug, Clone)]
enum Event {
    Moves(Index),
    LosesKeys(Index),
    TurnsKeys(Index),
    TakesKeyOf(Index, Index),
    ChangesSegment(Index, Index),
    GetsMeshAddress(Index, u8),
    GetsPods(Index, u8),
    Leaves(Index),
    Returns(Index),
    PathIs(Index, Option<PathState>),
    IsSeen(Index, u8),
    LearnsMtu(u32),
    /// Its API server has the mesh address of a node.
    ServerIs(Index),
    TransitTurnsKeys,
    LosesIpv6(bool),
    PlanGrows,
    SegmentLosesGateway(Index),
    Nothing,
}

fn events() -> impl Strategy<Value = Event> {
    let at = any::<Index>;
    let state = prop_oneof![
        Just(None),
        Just(Some(PathState::Up)),
        Just(Some(PathState::Down))
    ];
    prop_oneof![
        3 => at().prop_map(Event::Moves),
        1 => at().prop_map(Event::LosesKeys),
        2 => at().prop_map(Event::TurnsKeys),
        1 => (at(), at()).prop_map(|(who, whose)| Event::TakesKeyOf(who, whose)),
        1 => (at(), at()).prop_map(|(who, to)| Event::ChangesSegment(who, to)),
        1 => (at(), any::<u8>()).prop_map(|(who, number)| Event::GetsMeshAddress(who, number)),
        1 => (at(), any::<u8>()).prop_map(|(who, number)| Event::GetsPods(who, number)),
        2 => at().prop_map(Event::Leaves),
        2 => at().prop_map(Event::Returns),
        4 => (at(), state).prop_map(|(which, state)| Event::PathIs(which, state)),
        2 => (at(), any::<u8>()).prop_map(|(which, number)| Event::IsSeen(which, number)),
        1 => (1400_u32..1600).prop_map(Event::LearnsMtu),
        1 => at().prop_map(Event::ServerIs),
        2 => Just(Event::TransitTurnsKeys),
        1 => any::<bool>().prop_map(Event::LosesIpv6),
        1 => Just(Event::PlanGrows),
        1 => at().prop_map(Event::SegmentLosesGateway),
        1 => Just(Event::Nothing),
    ]
}

/// One node of a network, and what it knows.
struct Scene {
    first: World,
    now: World,
    own: Option<PeerName>,
    facts: LocalFacts,
}

impl Scene {
    fn peer(&mut self, which: &Index) -> Option<&mut AcceptedPeer> {
        let mut peers: Vec<_> = self.now.peers.values_mut().collect();
        let at = (!peers.is_empty()).then(|| which.index(peers.len()))?;
        Some(Arc::make_mut(peers.swap_remove(at)))
    }

    fn path(&self, which: &Index, state: &HostState) -> Option<PathId> {
        let paths: Vec<PathId> = state
            .devices
            .iter()
            .flat_map(|(name, device)| device.peers.keys().map(|far| PathId::new(*name, *far)))
            .collect();
        (!paths.is_empty()).then(|| paths[which.index(paths.len())])
    }

    fn play(&mut self, event: &Event, round: usize, state: &HostState) -> Option<()> {
        match event {
            Event::Moves(who) => {
                let address = format!("198.51.100.{}", round % 250);
                let endpoint = Endpoint::parse(&address, Scope::Public).unwrap();
                self.peer(who)?.endpoints = vec![endpoint];
            }
            Event::LosesKeys(who) => self.peer(who)?.keys.clear(),
            Event::TurnsKeys(who) => {
                for (device, held) in &mut self.peer(who)?.keys {
                    *held = key(&format!("turn-{round}"), *device);
                }
            }
            Event::TakesKeyOf(who, whose) => {
                let keys = self.peer(whose)?.keys.clone();
                self.peer(who)?.keys = keys;
            }
            Event::ChangesSegment(who, to) => {
                let segments = &self.now.plan.segments;
                let segment = segments[to.index(segments.len())].name.clone();
                self.peer(who)?.segment = segment;
            }
            Event::GetsMeshAddress(who, number) => {
                self.peer(who)?.mesh_addresses = vec![[100, 127, 200, *number].into()];
            }
            Event::GetsPods(who, number) => {
                let pods = Prefix::containing([10, 64, *number, 0].into(), 26);
                self.peer(who)?.pod_cidrs.push(pods);
            }
            Event::Leaves(who) => {
                let names: Vec<_> = self.now.peers.keys().cloned().collect();
                let at = (!names.is_empty()).then(|| who.index(names.len()))?;
                self.now.peers.remove(&names[at]);
            }
            Event::Returns(who) => {
                let peers: Vec<_> = self.first.peers.iter().collect();
                let (name, peer) = peers[who.index(peers.len())];
                self.now.peers.insert(name.clone(), peer.clone());
            }
            Event::PathIs(which, health) => {
                let path = self.path(which, state)?;
                match health {
                    Some(health) => drop(self.facts.paths.insert(path, *health)),
                    None => drop(self.facts.paths.remove(&path)),
                }
            }
            Event::IsSeen(which, number) => {
                let path = self.path(which, state)?;
                let socket = ([198, 51, 100, *number], 4000).into();
                self.facts.last_seen.insert(path, socket);
            }
            Event::LearnsMtu(mtu) => self.facts.underlay.values_mut().next()?.mtu = *mtu,
            Event::ServerIs(who) => {
                let server = self.peer(who)?.mesh_addresses[0];
                self.facts.api_servers = [server].into();
            }
            Event::TransitTurnsKeys => {
                let plan = &self.now.plan;
                let mut segments = plan.segments.iter();
                let transit = segments.find(|it| Some(&it.site) == plan.transit.as_ref())?;
                let gateway = transit.gateways.first()?.peer.clone();
                let peer = Arc::make_mut(self.now.peers.get_mut(&gateway)?);
                for (device, held) in &mut peer.keys {
                    *held = key(&format!("turn-{round}"), *device);
                }
            }
            Event::LosesIpv6(gone) => self.facts.without_ipv6 = *gone,
            Event::PlanGrows => {
                self.now.plan.revision += 1;
                self.now.plan.bypass.insert(prefix("203.0.113.9/32"));
            }
            Event::SegmentLosesGateway(which) => {
                let segments = &mut self.now.plan.segments;
                let at = which.index(segments.len());
                segments[at].gateways.pop()?;
            }
            Event::Nothing => {}
        }
        Some(())
    }

    fn inputs(&self) -> Inputs {
        Inputs {
            plan: Arc::new(self.now.plan.clone()),
            peers: Arc::new(self.now.peers.clone()),
            own: self.own.clone(),
            facts: self.facts.clone(),
        }
    }
}

/// How many turns touched parts only, of how many.
static PARTS: AtomicUsize = AtomicUsize::new(0);
static TURNS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn a_carried_state_is_the_one_from_nothing_after_every_change() {
    proptest!(ProptestConfig::with_cases(300), |(
        shape in shapes(),
        who in any::<Index>(),
        is_unknown in prop::bool::weighted(0.05),
        events in prop::collection::vec(events(), 1..25),
    )| {
        let first = world(&shape);
        let names: Vec<_> = first.peers.keys().cloned().collect();
        let own = names[who.index(names.len())].clone();
        let facts = facts(&first.peers[&own]);
        let own = (!is_unknown).then_some(own);
        let mut scene = Scene { now: first.clone(), first, own, facts };
        let mut carried = Configurator::default();
        carried.follow(scene.inputs());
        for (round, event) in events.iter().enumerate() {
            let before = carried.state().clone();
            scene.play(event, round, &before);
            let turn = carried.follow(scene.inputs());
            let config = node_config(&scene.now.plan, &scene.now.peers, scene.own.as_ref());
            let whole = resolve(&config, &scene.facts);
            let now = carried.state();
            prop_assert_eq!(now, &whole, "after {:?}", event);
            for (name, device) in &before.devices {
                for (far, peer) in &device.peers {
                    let path = PathId::new(*name, *far);
                    let new = now.devices.get(name).and_then(|it| it.peers.get(far)?.endpoint);
                    let moved = peer.endpoint.filter(|_| new.is_some() && new != peer.endpoint);
                    prop_assert_eq!(turn.left.get(&path).copied(), moved);
                }
            }
            TURNS.fetch_add(1, Ordering::Relaxed);
            if let Touched::Parts { paths, routes } = &turn.touched {
                PARTS.fetch_add(1, Ordering::Relaxed);
                let unknown = Livenesses::new();
                let parts = diff_parts(&before, &unknown, now, paths, routes);
                prop_assert_eq!(parts, diff(&before, &unknown, now), "after {:?}", event);
            }
        }
    });
    let (parts, turns) = (PARTS.load(Ordering::Relaxed), TURNS.load(Ordering::Relaxed));
    assert!(
        parts * 3 > turns,
        "{parts} of {turns} turns touched parts only"
    );
}

#[test]
fn a_gateway_that_moves_elsewhere_touches_its_own_path_alone() {
    let world = world(&crate::fleet::Shape {
        sites: vec![Default::default(), Default::default()],
        transit: None,
        granularity: tieline_core::fleet::Granularity::Site,
        ipv6: true,
        services: false,
        imported: false,
    });
    let mut names = world.plan.segments.iter().map(|it| &it.gateways[0].peer);
    let (own, far) = (names.next().unwrap(), names.next().unwrap());
    let mut inputs = Inputs {
        facts: facts(&world.peers[own]),
        own: Some(own.clone()),
        plan: Arc::new(world.plan.clone()),
        peers: Arc::new(world.peers.clone()),
    };
    let mut carried = Configurator::default();
    assert_eq!(carried.follow(inputs.clone()).touched, Touched::Everything);
    let peers = Arc::make_mut(&mut inputs.peers);
    let endpoint = Endpoint::parse("198.51.100.1", Scope::Public).unwrap();
    Arc::make_mut(peers.get_mut(far).unwrap()).endpoints = vec![endpoint];
    let turn = carried.follow(inputs);
    let rail = DeviceName::outer(0);
    let path = PathId::new(rail, world.peers[far].keys[&rail]);
    let Touched::Parts { paths, .. } = turn.touched else {
        panic!("everything was made again");
    };
    assert_eq!(paths, [path].into());
    assert_eq!(turn.left.into_keys().collect::<Vec<_>>(), [path]);
}
