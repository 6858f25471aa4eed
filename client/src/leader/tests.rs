#![allow(clippy::unwrap_used)]
use super::*;

const LEASE: Duration = Duration::from_secs(15);

/// A Lease as the API server keeps it: every accepted write has a new version, and a wrong version is refused.
#[derive(Default)]
struct Server {
    lease: Option<Record>,
    writes: u32,
}

impl Server {
    fn step(&mut self, elector: &mut Elector, now: Instant) -> Action {
        let action = elector.read(self.lease.as_ref(), now);
        if let Action::Write { record, .. } = &action {
            self.store(elector, record.clone(), now);
        }
        action
    }

    fn store(&mut self, elector: &mut Elector, record: Record, sent: Instant) {
        let current = self.lease.as_ref().and_then(|lease| lease.version.clone());
        if record.version != current {
            elector.lost();
            return;
        }
        self.writes += 1;
        let version = Some(self.writes.to_string());
        self.lease = Some(Record {
            version: version.clone(),
            ..record
        });
        elector.stored(version, sent);
    }
}

fn leads(elector: &Elector, now: Instant) -> bool {
    elector.leads_until().is_some_and(|until| now < until)
}

#[test]
fn the_first_takes_the_lease_and_the_second_waits() {
    let (mut server, start) = (Server::default(), Instant::now());
    let mut a = Elector::new("a", LEASE);
    let mut b = Elector::new("b", LEASE);
    server.step(&mut a, start);
    assert!(leads(&a, start));
    assert_eq!(server.step(&mut b, start), Action::Wait);
    assert!(!leads(&b, start));
}

#[test]
fn of_two_that_read_the_same_lease_only_one_wins() {
    let (mut server, start) = (Server::default(), Instant::now());
    let mut a = Elector::new("a", LEASE);
    let mut b = Elector::new("b", LEASE);
    let Action::Write { record: from_a, .. } = a.read(None, start) else {
        panic!("a must try")
    };
    let Action::Write { record: from_b, .. } = b.read(None, start) else {
        panic!("b must try")
    };
    server.store(&mut a, from_a, start);
    server.store(&mut b, from_b, start);
    assert!(leads(&a, start) && !leads(&b, start));
}

#[test]
fn a_silent_leader_stops_before_another_starts() {
    let (mut server, start) = (Server::default(), Instant::now());
    let mut a = Elector::new("a", LEASE);
    let mut b = Elector::new("b", LEASE);
    server.step(&mut a, start);
    let mut taken = None;
    for tenth in 0..=200u32 {
        let now = start + Duration::from_millis(100) * tenth;
        if server.step(&mut b, now) != Action::Wait {
            taken = Some(now);
            break;
        }
        assert!(!leads(&b, now));
    }
    let taken = taken.unwrap();
    assert!(
        taken - start >= LEASE,
        "taken {:?} after the last renewal",
        taken - start
    );
    assert!(!leads(&a, taken) && leads(&b, taken));
    assert_eq!(
        server.step(&mut a, taken),
        Action::Wait,
        "the old leader must notice"
    );
}

#[test]
fn a_leader_that_renews_is_never_replaced() {
    let (mut server, start) = (Server::default(), Instant::now());
    let mut a = Elector::new("a", LEASE);
    let mut b = Elector::new("b", LEASE);
    for second in 0..120u64 {
        let now = start + Duration::from_secs(second);
        if second % 2 == 0 {
            server.step(&mut a, now);
        }
        assert_eq!(server.step(&mut b, now), Action::Wait);
        assert!(leads(&a, now));
    }
}

#[test]
fn a_released_lease_is_taken_at_once() {
    let (mut server, start) = (Server::default(), Instant::now());
    let mut a = Elector::new("a", LEASE);
    let mut b = Elector::new("b", LEASE);
    server.step(&mut a, start);
    assert_eq!(server.step(&mut b, start), Action::Wait);
    let released = a.release(server.lease.as_ref().unwrap()).unwrap();
    assert_eq!(released.holder, "");
    assert_eq!(released.duration, Duration::from_secs(1));
    server.lease = Some(Record {
        version: Some("released".into()),
        ..released
    });
    assert!(!leads(&a, start));
    server.step(&mut b, start);
    assert!(leads(&b, start));
    assert_eq!(
        server.lease.as_ref().unwrap().duration,
        LEASE,
        "the next leader has its own duration"
    );
}

#[test]
fn a_lease_that_somebody_has_taken_meanwhile_is_not_given_back() {
    let (mut server, start) = (Server::default(), Instant::now());
    let mut a = Elector::new("a", LEASE);
    let mut b = Elector::new("b", LEASE);
    server.step(&mut a, start);
    server.step(&mut b, start);
    let later = start + LEASE;
    server.step(&mut b, later);
    assert!(leads(&b, later));
    assert!(a.release(server.lease.as_ref().unwrap()).is_none());
}

#[test]
fn who_waits_looks_every_second_and_who_leads_renews_less_often() {
    let (mut server, start) = (Server::default(), Instant::now());
    let mut a = Elector::new("a", LEASE);
    let mut b = Elector::new("b", LEASE);
    server.step(&mut a, start);
    server.step(&mut b, start);
    assert!(a.period() > Duration::from_secs(2) && a.period() * 4 < a.renew_deadline());
    assert_eq!(b.period(), Duration::from_secs(1));
    let quick = Elector::new("c", Duration::from_secs(3));
    assert!(quick.period() < Duration::from_millis(500));
}

#[test]
fn the_same_name_does_not_inherit_a_lease_that_another_process_holds() {
    let (mut server, start) = (Server::default(), Instant::now());
    let mut first = Elector::new("same", LEASE);
    let mut second = Elector::new("same", LEASE);
    server.step(&mut first, start);
    assert_eq!(server.step(&mut second, start), Action::Wait);
    assert!(
        second.release(server.lease.as_ref().unwrap()).is_none(),
        "it is not the second's to give back"
    );
}
