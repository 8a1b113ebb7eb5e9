//! Limits connections: their number, their number for each address, and their age.
//!
//! Every accepted connection holds a [`Permit`] until its socket is closed, wherever the socket goes meanwhile:
//! to hyper, to the writer, back again. The permit is one pointer, so that a stream in the writer can carry it,
//! and releases its place when it is dropped, so that no path can forget it.
//!
//! # Memory use
//!
//! Connections that are not counted by address share one place. Otherwise there is one place for each address
//! (IPv4) or /64 network (IPv6) that has a connection open: 40 bytes, and about 30 in the map. A connection that a
//! proxy announces has a place of its own, and 32 bytes more for its client.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use super::linger::Lingers;
use crate::server::config::{Connections, Proxies};
use crate::server::metrics::connections::ConnectionCounters;
use crate::server::request::ends::Ends;
use crate::stream::Moment;
use crate::sync::{Arc, AtomicUsize, Counted, Mutex, Ordering, lock};

/// Why a connection is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum LimitReached {
    /// The limit of all connections is reached.
    Total,
    /// The limit of connections from one address is reached.
    Address,
}

impl LimitReached {
    /// The name of the option whose limit is reached.
    pub(in crate::server) fn setting(self) -> &'static str {
        match self {
            Self::Total => "max_connections",
            Self::Address => "max_connections_per_address",
        }
    }
}

/// See the [module documentation](self).
pub(in crate::server) struct Gate {
    max: usize,
    max_per_address: Option<u32>,
    counts_loopback: bool,
    proxies: Proxies,
    max_age: Option<Duration>,
    places: Arc<AddressCounts>,
    /// The place of connections that are not counted by address.
    anywhere: Counted<CountedAddress>,
    random: RandomState,
    /// Connections that are closed in stages.
    lingers: Arc<Lingers>,
    /// The same for rejected connections, which no permit counts.
    turned_away: Arc<Lingers>,
}

/// Who is there.
struct AddressCounts {
    counters: Arc<ConnectionCounters>,
    /// Places by address, each with at least one connection. Locked for an instant at the beginning and at the
    /// end of a connection that is counted by address.
    by_address: Mutex<HashMap<u64, Counted<CountedAddress>>>,
}

/// A place that connections come from.
struct CountedAddress {
    places: Arc<AddressCounts>,
    /// `None`: anywhere.
    network: Option<u64>,
    /// Changed only under the lock of `by_address`; stays 0 for anywhere.
    open: AtomicUsize,
    /// The client of a connection that a proxy announced; it is counted in place of the proxy.
    client: Option<Box<AnnouncedClient>>,
}

/// A client that a proxy announced.
struct AnnouncedClient {
    address: IpAddr,
    /// The place where it is counted, if it is counted by address.
    counted: Option<Counted<CountedAddress>>,
}

/// The right of one connection to be open, released when it is dropped.
pub(in crate::server) struct Permit(Counted<CountedAddress>);

/// What travels with a connection: its permit, and the end of its age.
pub(in crate::server) struct Admitted {
    pub(in crate::server) permit: Permit,
    pub(in crate::server) ends: Ends,
}

impl Gate {
    /// Creates a gate for at most `max` connections.
    pub(in crate::server) fn new(config: &Connections, proxies: Proxies, max: usize) -> Self {
        let places = Arc::new(AddressCounts {
            counters: Arc::new(ConnectionCounters::default()),
            by_address: Mutex::default(),
        });
        let anywhere = Counted::new(CountedAddress::anywhere(places.clone(), None));
        Self {
            max,
            max_per_address: config.max_per_address.map(|max| u32::try_from(max).unwrap_or(u32::MAX)),
            counts_loopback: config.count_loopback,
            proxies,
            max_age: config.max_age,
            places,
            anywhere,
            random: RandomState::new(),
            lingers: Lingers::new((max / 8).clamp(16, 1024)),
            // Some of the spare descriptors are for the process itself.
            turned_away: Lingers::new(spare().saturating_sub(OWN) / 4),
        }
    }

    /// The limit of lingering connections, for admitted ones.
    pub(in crate::server) fn lingers(&self) -> &Arc<Lingers> {
        &self.lingers
    }

    /// The limit of lingering connections, for rejected ones.
    pub(in crate::server) fn turned_away(&self) -> &Arc<Lingers> {
        &self.turned_away
    }

    pub(in crate::server) fn counters(&self) -> &Arc<ConnectionCounters> {
        &self.places.counters
    }

    /// Admits a connection from `address`.
    pub(in crate::server) fn admit(&self, address: IpAddr) -> Result<Permit, LimitReached> {
        let counters = &self.places.counters;
        if !counters.open_one(self.max) {
            return Err(LimitReached::Total);
        }
        let place = match self.limit(address) {
            Some(max) => self.places.enter(network(address), max),
            None => Some(self.anywhere.clone()),
        };
        if let Some(place) = place {
            counters.count_accepted();
            return Ok(Permit(place));
        }
        counters.close_one();
        counters.count_refused_address();
        Err(LimitReached::Address)
    }

    /// The limit of connections from `address`; `None` is no limit.
    fn limit(&self, address: IpAddr) -> Option<usize> {
        let is_free = !self.counts_loopback && address.to_canonical().is_loopback();
        self.max_per_address.filter(|_| !is_free && !self.proxies.trusts(address)).map(|max| max as usize)
    }

    /// Counts a connection of a proxy as one of `client`.
    pub(in crate::server) fn speak_for(
        &self,
        client: IpAddr,
        permit: &mut Permit,
    ) -> Result<(), LimitReached> {
        let counted = match self.limit(client) {
            Some(max) => {
                let counted = self.places.enter(network(client), max);
                if counted.is_none() {
                    self.places.counters.count_refused_address();
                    return Err(LimitReached::Address);
                }
                counted
            }
            None => None,
        };
        // A proxy is not counted by address, so its own place needs no update.
        let client = AnnouncedClient { address: client, counted };
        permit.0 = Counted::new(CountedAddress::anywhere(self.places.clone(), Some(Box::new(client))));
        Ok(())
    }

    /// When a connection that begins at `now` ends: up to a tenth before its maximum age, so that connections that
    /// began together do not end together.
    pub(in crate::server) fn ends(&self, now: Moment) -> Ends {
        let Some(age) = self.max_age else { return Ends::NEVER };
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let sooner = self.random.hash_one(self.places.counters.accepted()) % (age / 10 + 1);
        Ends::at(Moment(now.0.saturating_add(age - sooner)))
    }
}

impl AddressCounts {
    /// One more at `network`, unless there are `max`.
    fn enter(self: &Arc<Self>, network: u64, max: usize) -> Option<Counted<CountedAddress>> {
        let mut by_address = lock(&self.by_address);
        let place = by_address.entry(network).or_insert_with(|| {
            let open = AtomicUsize::new(0);
            Counted::new(CountedAddress { places: self.clone(), network: Some(network), open, client: None })
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

impl CountedAddress {
    /// The place of connections that are not counted by address.
    fn anywhere(places: Arc<AddressCounts>, client: Option<Box<AnnouncedClient>>) -> Self {
        Self { places, network: None, open: AtomicUsize::new(0), client }
    }
}

impl Permit {
    /// The client that a proxy announced for this connection.
    pub(in crate::server) fn client(&self) -> Option<IpAddr> {
        self.0.client.as_ref().map(|client| client.address)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let counted = self.0.client.as_ref().and_then(|client| client.counted.as_deref());
        let CountedAddress { places, network, open, .. } = counted.unwrap_or(&*self.0);
        places.counters.close_one();
        let Some(network) = network else { return };
        let mut by_address = lock(&places.by_address);
        // Relaxed: under the lock.
        let left = open.load(Ordering::Relaxed) - 1;
        open.store(left, Ordering::Relaxed);
        if left == 0 {
            by_address.remove(network);
            if by_address.is_empty() {
                // Memory that many addresses needed is released when they are gone.
                *by_address = HashMap::new();
            }
        }
    }
}

/// What counts as one address: an IPv4 address, or the /64 network of an IPv6 address, which one
/// client usually has to itself. IPv4 addresses map to numbers that no IPv6 network has.
fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => 0xffff << 32 | u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

/// The default limit of connections: the descriptors that the process may
/// have, less a quarter (16 to 1024) for other uses.
pub(super) fn default_max() -> usize {
    descriptors().map_or(usize::MAX, |limit| limit.saturating_sub(spare()).max(1))
}

/// The least number of descriptors that the process itself needs.
const OWN: usize = 16;

/// Descriptors that are left for other uses.
fn spare() -> usize {
    descriptors().map_or(1024, |limit| (limit / 4).clamp(OWN, 1024))
}

/// The process's limit of descriptors; `None` is no limit.
fn descriptors() -> Option<usize> {
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
        Gate::new(&config, Proxies::default(), max)
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
        assert_eq!(gate.admit(near).err(), Some(LimitReached::Address));
        let other = gate.admit(address("192.0.2.2")).unwrap();
        assert_eq!(gate.admit(address("192.0.2.3")).err(), Some(LimitReached::Total));
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
        assert_eq!(gate.admit(address("2001:db8:0:1:ffff::2")).err(), Some(LimitReached::Address));
        let _two = gate.admit(address("2001:db8:0:2::1")).unwrap();
        let _three = gate.admit(address("192.0.2.1")).unwrap();
        assert_eq!(
            gate.admit(address("::ffff:192.0.2.1")).err(),
            Some(LimitReached::Address),
            "the same address"
        );
        for loopback in ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"] {
            let both = [(); 2].map(|()| gate.admit(address(loopback)).unwrap());
            drop(both);
        }
    }

    #[test]
    fn client_behind_a_proxy_is_counted_in_its_place() {
        let config = Connections { max_per_address: Some(1), ..Connections::default() };
        let trusted = vec![Proxies::network("10.0.0.0/8").unwrap()];
        let proxies = Proxies { trusted, ..Proxies::default() };
        let gate = Gate::new(&config, proxies, 100);
        let (proxy, client) = (address("10.0.0.1"), address("2001:db8::1"));
        let mut first = gate.admit(proxy).unwrap();
        gate.speak_for(client, &mut first).unwrap();
        assert_eq!(first.client(), Some(client));
        let mut second = gate.admit(proxy).unwrap();
        assert_eq!(gate.speak_for(address("2001:db8::2"), &mut second).err(), Some(LimitReached::Address));
        assert_eq!(second.client(), None);
        gate.speak_for(address("192.0.2.1"), &mut second).unwrap();
        drop(first);
        let mut third = gate.admit(proxy).unwrap();
        gate.speak_for(client, &mut third).unwrap();
        drop((second, third));
        assert!(lock(&gate.places.by_address).is_empty(), "nothing is kept for those who left");
        assert_eq!((gate.counters().open(), gate.counters().refused_address()), (0, 1));
    }

    #[test]
    fn ages_differ_by_a_tenth_at_most() {
        let config = Connections { max_age: Some(Duration::from_secs(1000)), ..Connections::default() };
        let gate = Gate::new(&config, Proxies::default(), 1000);
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
    }
}
