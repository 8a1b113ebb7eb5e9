//! Who may connect: how many at once, how many from one place, and for how long.
//!
//! Every accepted connection holds a [`Permit`] until its socket is closed, wherever the socket goes meanwhile:
//! to hyper, to the writer, back again. The permit is one pointer, so that a stream in the writer can carry it,
//! and gives its place back when it is dropped: no path has to remember to.
//!
//! # Memory use
//!
//! Connections that are not counted by address share one place. Otherwise there is one place for each address
//! (IPv4) or network of 64 bits (IPv6) that has a connection open: 32 bytes, and about 30 in the map.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::config::Connections;
use crate::stream::Moment;
use crate::sync::{Arc, AtomicU64, AtomicUsize, Counted, Mutex, Ordering, lock};

/// What happened to connections since the start, and how many there are.
#[derive(Debug, Default)]
pub struct ConnectionCounters {
    /// On a line of its own: every connection writes it twice.
    open: CachePadded<AtomicUsize>,
    accepted: AtomicU64,
    refused_total: AtomicU64,
    refused_address: AtomicU64,
    refused_handshake: AtomicU64,
    closed: [AtomicU64; Closed::KINDS],
}

/// Why the server ended a connection that the client would have kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// It reached its age.
    Age,
    /// No request for too long.
    Idle,
    /// A head or a TLS handshake took too long.
    Deadline,
    /// The client took nothing for too long.
    Stalled,
    /// More HTTP/2 frames about nothing than any use of it needs.
    Flood,
}

impl Closed {
    const KINDS: usize = Self::Flood as usize + 1;
}

impl ConnectionCounters {
    /// Connections open at the moment, counted from their acceptance to the closing of their socket.
    #[must_use]
    pub fn open(&self) -> usize {
        // Relaxed: a number for whoever looks, which orders nothing. Likewise below.
        self.open.load(Ordering::Relaxed)
    }

    /// Connections accepted and let in.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections closed at once because [`Connections::max`] were open.
    #[must_use]
    pub fn refused_total(&self) -> u64 {
        self.refused_total.load(Ordering::Relaxed)
    }

    /// Connections closed at once because [`Connections::max_per_address`] were open from their address.
    #[must_use]
    pub fn refused_address(&self) -> u64 {
        self.refused_address.load(Ordering::Relaxed)
    }

    /// Connections whose TLS handshake failed; not those that took too long for it.
    #[must_use]
    pub fn refused_handshake(&self) -> u64 {
        self.refused_handshake.load(Ordering::Relaxed)
    }

    /// Connections that reached [`Connections::max_age`].
    #[must_use]
    pub fn closed_age(&self) -> u64 {
        self.closed(Closed::Age)
    }

    /// Connections without a request for [`Connections::idle`].
    #[must_use]
    pub fn closed_idle(&self) -> u64 {
        self.closed(Closed::Idle)
    }

    /// Connections whose client took too long to send a request head, or for a TLS handshake.
    #[must_use]
    pub fn closed_deadline(&self) -> u64 {
        self.closed(Closed::Deadline)
    }

    /// Connections, and streams of an HTTP/2 connection, whose client took nothing for too long.
    #[must_use]
    pub fn closed_stalled(&self) -> u64 {
        self.closed(Closed::Stalled)
    }

    /// HTTP/2 connections that sent more control frames than [`Connections::max_http2_control_rate`].
    #[must_use]
    pub fn closed_flood(&self) -> u64 {
        self.closed(Closed::Flood)
    }

    fn closed(&self, why: Closed) -> u64 {
        self.closed[why as usize].load(Ordering::Relaxed)
    }

    pub(super) fn count_closed(&self, why: Closed) {
        self.closed[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(feature = "tls")]
    pub(super) fn count_refused_handshake(&self) {
        self.refused_handshake.fetch_add(1, Ordering::Relaxed);
    }
}

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// As many as there may be are open.
    Total,
    /// As many as one address may have are open from there.
    Address,
}

impl Full {
    /// What is at its limit, as the operator's settings call it.
    pub(super) fn setting(self) -> &'static str {
        match self {
            Self::Total => "connections.max",
            Self::Address => "connections.max_per_address",
        }
    }
}

/// See the [module documentation](self).
pub(super) struct Gate {
    max: usize,
    max_per_address: Option<u32>,
    counts_loopback: bool,
    max_age: Option<Duration>,
    places: Arc<Places>,
    /// Where those are that are not counted by address.
    anywhere: Counted<Place>,
    random: RandomState,
}

/// Who is there.
struct Places {
    counters: Arc<ConnectionCounters>,
    /// Connections by where they come from, no place without one. Held for an instant at the beginning and at the
    /// end of a connection that is counted by address.
    by_address: Mutex<HashMap<u64, Counted<Place>>>,
}

/// Where connections come from.
struct Place {
    places: Arc<Places>,
    /// `None`: anywhere.
    network: Option<u64>,
    /// Changed under the lock of `by_address` alone; stays 0 for anywhere.
    open: AtomicUsize,
}

/// Leave for one connection to be open, given back when it is dropped.
pub(super) struct Permit(Counted<Place>);

impl Gate {
    /// Makes a gate for at most `max` connections.
    pub(super) fn new(config: &Connections, max: usize) -> Self {
        let places = Arc::new(Places {
            counters: Arc::new(ConnectionCounters::default()),
            by_address: Mutex::default(),
        });
        let anywhere =
            Counted::new(Place { places: places.clone(), network: None, open: AtomicUsize::new(0) });
        Self {
            max,
            max_per_address: config.max_per_address.map(|max| u32::try_from(max).unwrap_or(u32::MAX)),
            counts_loopback: config.count_loopback,
            max_age: config.max_age,
            places,
            anywhere,
            random: RandomState::new(),
        }
    }

    pub(super) fn counters(&self) -> &Arc<ConnectionCounters> {
        &self.places.counters
    }

    /// Lets a connection from `address` in, or says why not.
    pub(super) fn admit(&self, address: IpAddr) -> Result<Permit, Full> {
        let counters = &self.places.counters;
        // Relaxed, here and where it is given back: the number alone matters, and each change of it is one step.
        if counters.open.fetch_add(1, Ordering::Relaxed) >= self.max {
            counters.open.fetch_sub(1, Ordering::Relaxed);
            counters.refused_total.fetch_add(1, Ordering::Relaxed);
            return Err(Full::Total);
        }
        let place = match self.max_per_address {
            Some(max) if self.counts_loopback || !address.to_canonical().is_loopback() => {
                self.places.enter(network(address), max as usize)
            }
            _ => Some(self.anywhere.clone()),
        };
        if let Some(place) = place {
            counters.accepted.fetch_add(1, Ordering::Relaxed);
            return Ok(Permit(place));
        }
        counters.open.fetch_sub(1, Ordering::Relaxed);
        counters.refused_address.fetch_add(1, Ordering::Relaxed);
        Err(Full::Address)
    }

    /// When a connection that begins at `now` ends: up to a tenth sooner than its age, so that those that came
    /// together do not go together.
    pub(super) fn ends(&self, now: Moment) -> Ends {
        let Some(age) = self.max_age else { return Ends::NEVER };
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let sooner = self.random.hash_one(self.places.counters.accepted()) % (age / 10 + 1);
        Ends::at(Moment(now.0.saturating_add(age - sooner)))
    }
}

impl Places {
    /// One more at `network`, unless there are `max`.
    fn enter(self: &Arc<Self>, network: u64, max: usize) -> Option<Counted<Place>> {
        let mut by_address = lock(&self.by_address);
        let place = by_address.entry(network).or_insert_with(|| {
            Counted::new(Place { places: self.clone(), network: Some(network), open: AtomicUsize::new(0) })
        });
        // Relaxed: under the lock.
        let open = place.open.load(Ordering::Relaxed);
        if open >= max {
            return None;
        }
        place.open.store(open + 1, Ordering::Relaxed);
        Some(place.clone())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Place { places, network, open } = &*self.0;
        // Relaxed: see `admit`.
        places.counters.open.fetch_sub(1, Ordering::Relaxed);
        let Some(network) = network else { return };
        let mut by_address = lock(&places.by_address);
        // Relaxed: under the lock.
        let left = open.load(Ordering::Relaxed) - 1;
        open.store(left, Ordering::Relaxed);
        if left == 0 {
            by_address.remove(network);
            if by_address.is_empty() {
                // What a crowd needed is given back when it is gone.
                *by_address = HashMap::new();
            }
        }
    }
}

/// When a connection has had its time: tenths of a second since the server's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends(u32);

impl Ends {
    /// Not by its age.
    pub(super) const NEVER: Self = Self(u32::MAX);

    fn at(moment: Moment) -> Self {
        Self(u32::try_from(moment.0.div_ceil(100)).unwrap_or(u32::MAX))
    }

    pub(super) fn has_come(self, now: Moment) -> bool {
        self != Self::NEVER && now.0 / 100 >= u64::from(self.0)
    }

    /// How long until then; `None` is for ever.
    pub(super) fn after(self, now: Moment) -> Option<Duration> {
        (self != Self::NEVER).then(|| Duration::from_millis((u64::from(self.0) * 100).saturating_sub(now.0)))
    }
}

/// What counts as one place: an IPv4 address, or the 64 bits of an IPv6 address that name a network, which one
/// client has to itself. IPv4 takes numbers that no IPv6 network has.
fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => 0xffff << 32 | u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

/// How many connections there may be where the operator does not say: as many descriptors as the process may
/// have, less a quarter for everything else, which is at least 16 and at most 1024.
pub(super) fn room() -> usize {
    descriptors().map_or(usize::MAX, |limit| limit.saturating_sub((limit / 4).clamp(16, 1024)).max(1))
}

/// Descriptors that this process may have open; `None` is any number.
pub(super) fn descriptors() -> Option<usize> {
    #[cfg(unix)]
    return rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    #[cfg(not(unix))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(max: usize, max_per_address: usize) -> Gate {
        let config = Connections { max_per_address: Some(max_per_address), ..Connections::default() };
        Gate::new(&config, max)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_counted_and_given_back() {
        let gate = gate(3, 2);
        let near = address("192.0.2.1");
        let first = gate.admit(near).unwrap();
        let second = gate.admit(near).unwrap();
        assert_eq!(gate.admit(near).err(), Some(Full::Address));
        let other = gate.admit(address("192.0.2.2")).unwrap();
        assert_eq!(gate.admit(address("192.0.2.3")).err(), Some(Full::Total));
        drop(first);
        let third = gate.admit(near).unwrap();
        drop((second, third, other));
        let counters = gate.counters();
        assert_eq!((counters.open(), counters.accepted()), (0, 4));
        assert_eq!((counters.refused_total(), counters.refused_address()), (1, 1));
        assert!(lock(&gate.places.by_address).is_empty(), "nothing is kept for those who left");
    }

    #[test]
    fn a_network_of_ipv6_is_one_place_and_loopback_is_none() {
        let gate = gate(100, 1);
        let _one = gate.admit(address("2001:db8:0:1::1")).unwrap();
        assert_eq!(gate.admit(address("2001:db8:0:1:ffff::2")).err(), Some(Full::Address));
        let _two = gate.admit(address("2001:db8:0:2::1")).unwrap();
        let _three = gate.admit(address("192.0.2.1")).unwrap();
        assert_eq!(gate.admit(address("::ffff:192.0.2.1")).err(), Some(Full::Address), "the same address");
        for loopback in ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"] {
            let both = [(); 2].map(|()| gate.admit(address(loopback)).unwrap());
            drop(both);
        }
    }

    #[test]
    fn ages_differ_by_a_tenth_at_most() {
        let config = Connections { max_age: Some(Duration::from_secs(1000)), ..Connections::default() };
        let gate = Gate::new(&config, 1000);
        let mut seen = Vec::new();
        let permits: Vec<_> = (0..100)
            .map(|_| {
                let permit = gate.admit(address("127.0.0.1")).unwrap();
                seen.push(gate.ends(Moment(5000)).after(Moment(5000)).unwrap().as_secs());
                permit
            })
            .collect();
        assert!(seen.iter().all(|age| (900..=1000).contains(age)), "{seen:?}");
        seen.sort_unstable();
        seen.dedup();
        assert!(seen.len() > 30, "they differ: {seen:?}");
        drop(permits);
        assert!(!Ends::NEVER.has_come(Moment(u64::MAX)));
        assert!(
            Ends::at(Moment(5000)).has_come(Moment(5000)) && !Ends::at(Moment(5000)).has_come(Moment(4900))
        );
    }
}
