//! Who may have a session, and whose ends when there are too many.
//!
//! # Algorithm
//!
//! - *Rates* are GCRA (the crate `governor`), by the registry's own clock. Callers share a table of fixed size: the
//!   hash of a caller, with a key that is drawn at the start, names its cell. So very many addresses cost no
//!   memory, and nothing has to be tidied up. Two callers in one cell share one rate.
//! - *Counts* are taken before the session is made, so that no race exceeds a limit.
//! - *Victims*: a sweep, which looks at every session anyhow, notes those that would go first, near the limit. When
//!   none of them is left, some thousands of sessions are looked at. So a session costs nothing for this, and
//!   what a creation costs does not depend on how many there are.

use core::hash::BuildHasher;
use core::net::IpAddr;
use core::num::NonZeroU32;
use core::time::Duration;
use std::hash::RandomState;

use governor::clock::Clock as RateClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{NotUntil, Quota, RateLimiter};

use super::principal::{Holder, Principal};
use super::settings::{Rate, Settings};
use crate::protocol::Refusal;
use crate::stream::{Clock, Moment};
use crate::sync::Arc;

/// Who asks for a session.
#[derive(Clone, Debug, Default)]
pub struct Creator {
    /// Whom the session is to belong to.
    pub holder: Holder,
    /// Where the request comes from, if that is known.
    pub address: Option<IpAddr>,
}

impl Creator {
    /// What its rate is counted by.
    fn key(&self) -> Option<Key> {
        // By the name: the number is another one when the principal has held no session for a while.
        if let Some(principal) = self.holder.principal() {
            return Some(Key::Principal(principal.clone()));
        }
        Some(self.address?.into())
    }
}

impl From<IpAddr> for Key {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            // A host is given a network of 64 bits, and may use any address of it.
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// How fast requests may come, of each principal and from each address.
#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the core has no requests"))]
pub(crate) struct RequestRates {
    of_principals: Option<Limiter<Key, Cells>>,
    from_addresses: Option<Limiter<Key, Cells>>,
}

#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the core has no requests"))]
impl RequestRates {
    /// Makes rates that go by `clock`. Each that is set costs 512 KiB.
    pub(crate) fn new(of_principals: Option<Rate>, from_addresses: Option<Rate>, clock: &Clock) -> Self {
        let limiter = |rate| Limiter::new(quota(rate), Cells::new(), Ticks(clock.clone()));
        Self { of_principals: of_principals.map(limiter), from_addresses: from_addresses.map(limiter) }
    }

    /// Counts one request of a principal; nobody in particular has no rate.
    pub(crate) fn check_principal(&self, holder: &Holder) -> Result<(), Refusal> {
        let (Some(limiter), Some(principal)) = (&self.of_principals, holder.principal()) else {
            return Ok(());
        };
        check(limiter, &Key::Principal(principal.clone()), |seconds| Refusal::PrincipalRequestRate {
            seconds,
        })
    }

    /// Counts one request from an address, or from its network of 64 bits.
    pub(crate) fn check_address(&self, address: IpAddr) -> Result<(), Refusal> {
        let Some(limiter) = &self.from_addresses else { return Ok(()) };
        check(limiter, &address.into(), |seconds| Refusal::AddressRequestRate { seconds })
    }
}

fn check(limiter: &Limiter<Key, Cells>, key: &Key, refusal: impl Fn(u32) -> Refusal) -> Result<(), Refusal> {
    limiter.check_key(key).map_err(|until| refusal(seconds_until(&until, limiter.clock().now())))
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Principal(Principal),
    V4(u32),
    V6(u64),
}

/// The settings in force, and the rates that go with them.
pub(super) struct Rules {
    pub(super) settings: Settings,
    rates: Arc<Rates>,
}

impl Rules {
    pub(super) fn new(settings: Settings, clock: &Clock) -> Self {
        let rates = Arc::new(Rates::new(&settings, clock));
        Self { settings, rates }
    }

    /// These rules with other settings. Rates that stay the same go on as they are.
    pub(super) fn with(&self, settings: Settings, clock: &Clock) -> Self {
        let rates = |settings: &Settings| (settings.create_rate, settings.create_rate_per_caller);
        if rates(&settings) == rates(&self.settings) {
            return Self { settings, rates: self.rates.clone() };
        }
        Self::new(settings, clock)
    }

    /// Counts one creation against the rates.
    pub(super) fn check_rates(&self, creator: &Creator) -> Result<(), Refusal> {
        // First the caller's: one that is too fast uses nothing up that others need.
        if let (Some(each), Some(key)) = (&self.rates.each, creator.key()) {
            check(each, &key, |seconds| Refusal::CallerSessionRate { seconds })?;
        }
        if let Some(total) = &self.rates.total {
            total.check().map_err(|until| Refusal::SessionRate {
                seconds: seconds_until(&until, total.clock().now()),
            })?;
        }
        Ok(())
    }
}

fn seconds_until(until: &NotUntil<Duration>, now: Duration) -> u32 {
    let wait_ms = until.wait_time_from(now).as_millis();
    u32::try_from(wait_ms.div_ceil(1000)).unwrap_or(u32::MAX).max(1)
}

type Limiter<K, S> = RateLimiter<K, S, Ticks, NoOpMiddleware<Duration>>;

#[derive(Default)]
struct Rates {
    total: Option<Limiter<NotKeyed, InMemoryState>>,
    each: Option<Limiter<Key, Cells>>,
}

impl Rates {
    fn new(settings: &Settings, clock: &Clock) -> Self {
        let total = settings
            .create_rate
            .map(|rate| Limiter::new(quota(rate), InMemoryState::default(), Ticks(clock.clone())));
        let each = settings
            .create_rate_per_caller
            .map(|rate| Limiter::new(quota(rate), Cells::new(), Ticks(clock.clone())));
        Self { total, each }
    }
}

fn quota(rate: Rate) -> Quota {
    let quota = Quota::per_minute(rate.per_minute);
    // The time in which the whole burst comes back is counted in nanoseconds. A century of it is enough.
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    let most = CENTURY.as_nanos() / quota.replenish_interval().as_nanos().max(1);
    let most = u32::try_from(most).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX);
    quota.allow_burst(rate.burst.min(most))
}

/// The registry's clock as the rates want it.
struct Ticks(Clock);

impl RateClock for Ticks {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.now().0)
    }
}

/// How many callers' rates are told apart.
const CELLS: usize = 1 << 16;

/// The rates of all callers, in a table of fixed size.
struct Cells {
    cells: Box<[InMemoryState]>,
    /// Its key is random, so that nobody can choose whose cell to share.
    hasher: RandomState,
}

impl Cells {
    fn new() -> Self {
        Self { cells: (0..CELLS).map(|_| InMemoryState::default()).collect(), hasher: RandomState::new() }
    }
}

impl StateStore for Cells {
    type Key = Key;

    fn measure_and_replace<T, F, E>(&self, key: &Key, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let cell = self.hasher.hash_one(key) as usize % CELLS;
        self.cells[cell].measure_and_replace(&NotKeyed::NonKey, decide)
    }
}

/// A session that may have to go, and since when it stands where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Victim {
    /// When it was created, or last heard of.
    pub(super) since: Moment,
    pub(super) id: u128,
}

/// Sessions looked at when a newcomer needs space and nobody is noted.
pub(super) const SAMPLE: usize = 4096;
/// Of those looked at, one in so many is noted.
const NOTED_SHARE: usize = 16;
/// But never more than this.
const MOST_NOTED: usize = 1 << 16;

/// The first few of very many, by age.
pub(super) struct Selection {
    few: usize,
    noted: Vec<Victim>,
}

impl Selection {
    /// Selects from about `count`.
    pub(super) fn of(count: usize) -> Self {
        Self { few: (count / NOTED_SHARE).clamp(NOTED_SHARE, MOST_NOTED), noted: Vec::new() }
    }

    pub(super) fn look_at(&mut self, victim: Victim) {
        self.noted.push(victim);
        if self.noted.len() >= 2 * self.few {
            self.noted.select_nth_unstable(self.few);
            self.noted.truncate(self.few);
        }
    }

    /// Those who go first, the very first at the end.
    pub(super) fn into_victims(mut self) -> Vec<Victim> {
        self.noted.sort_unstable();
        self.noted.truncate(self.few);
        self.noted.reverse();
        self.noted
    }
}

#[cfg(all(test, not(ringmain_loom)))]
mod tests {
    use core::net::Ipv6Addr;

    use super::super::principal::PrincipalId;
    use super::*;

    fn creator(address: &str) -> Creator {
        Creator { holder: Holder::anybody(), address: Some(address.parse().unwrap()) }
    }

    #[test]
    fn a_network_of_64_bits_is_one_caller_and_so_is_an_address_in_two_spellings() {
        let key = |address| creator(address).key();
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:0:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        let known = Creator { holder: Holder::from(PrincipalId::new(7)), ..creator("192.0.2.1") };
        assert_eq!(
            known.key(),
            Creator { holder: Holder::from(PrincipalId::new(7)), ..creator("192.0.2.2") }.key()
        );
        assert_eq!(Creator::default().key(), None);
    }

    #[test]
    fn each_caller_has_a_rate_and_all_of_them_together() {
        let clock = Clock::default();
        let settings = Settings {
            create_rate: Rate::new(600, 20),
            create_rate_per_caller: Rate::new(60, 2),
            ..Settings::default()
        };
        let rules = Rules::new(settings, &clock);
        let (one, other) = (creator("192.0.2.1"), creator("2001:db8::1"));
        let refused = Err(Refusal::CallerSessionRate { seconds: 1 });
        assert_eq!([0; 3].map(|_| rules.check_rates(&one)), [Ok(()), Ok(()), refused.clone()]);
        assert_eq!(rules.check_rates(&other), Ok(()));
        clock.advance(Moment(999));
        assert_eq!(rules.check_rates(&one), refused);
        clock.advance(Moment(1000));
        assert_eq!([0; 2].map(|_| rules.check_rates(&one)), [Ok(()), refused]);
        // Of the twenty that all together may create at once, some are used up and ten a second come back.
        let strangers = |from: u128| (from..).map(|network| Ipv6Addr::from(network << 64).into());
        let outcome = |address: IpAddr| {
            rules.check_rates(&Creator { holder: Holder::anybody(), address: Some(address) })
        };
        let count = strangers(1).take(1000).filter(|address| outcome(*address).is_ok()).count();
        assert_eq!(count, 20 - 1);
        clock.advance(Moment(2000));
        assert_eq!(strangers(5000).take(1000).filter(|address| outcome(*address).is_ok()).count(), 10);
        let nobody = Creator::default();
        assert_eq!(rules.check_rates(&nobody), Err(Refusal::SessionRate { seconds: 1 }));
    }

    #[test]
    fn very_many_callers_cost_no_memory_and_rates_survive_other_changes() {
        let clock = Clock::default();
        let settings = Settings { create_rate_per_caller: Rate::new(1, 1), ..Settings::default() };
        let rules = Rules::new(settings.clone(), &clock);
        let known = |number: u64| Creator { holder: Holder::from(PrincipalId::new(number)), address: None };
        (1..=200_000).for_each(|principal| drop(rules.check_rates(&known(principal))));
        assert_eq!(rules.check_rates(&known(1)), Err(Refusal::CallerSessionRate { seconds: 60 }));
        let longer = rules.with(Settings { idle_ms: 1, ..settings.clone() }, &clock);
        assert!(longer.check_rates(&known(1)).is_err());
        let free = rules.with(Settings { create_rate_per_caller: None, ..settings }, &clock);
        assert!(free.check_rates(&known(1)).is_ok());
    }

    #[test]
    fn requests_have_a_rate_of_their_own_for_each_principal_and_each_address() {
        let clock = Clock::default();
        let rates = RequestRates::new(Rate::new(60, 2), Rate::new(60, 3), &clock);
        let (one, other) = (Holder::from(PrincipalId::new(1)), Holder::from(PrincipalId::new(2)));
        let too_fast = Err(Refusal::PrincipalRequestRate { seconds: 1 });
        assert_eq!([0; 3].map(|_| rates.check_principal(&one)), [Ok(()), Ok(()), too_fast]);
        assert_eq!(rates.check_principal(&other), Ok(()));
        assert!((0..9).all(|_| rates.check_principal(&Holder::anybody()).is_ok()));
        let address = |text: &str| rates.check_address(text.parse().unwrap());
        let same = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4"].map(address);
        assert_eq!(same, [Ok(()), Ok(()), Ok(()), Err(Refusal::AddressRequestRate { seconds: 1 })]);
        assert_eq!(address("2001:db8:0:1::1"), Ok(()));
        clock.advance(Moment(1000));
        assert_eq!(address("2001:db8::9"), Ok(()));
        let free = RequestRates::new(None, None, &clock);
        assert!((0..99).all(|_| free.check_address([192, 0, 2, 1].into()).is_ok()));
    }

    #[test]
    fn impossible_bursts_are_no_trouble() {
        let clock = Clock::default();
        let settings = Settings { create_rate: Rate::new(1, u32::MAX), ..Settings::default() };
        let rules = Rules::new(settings, &clock);
        (0..1000).for_each(|_| assert!(rules.check_rates(&Creator::default()).is_ok()));
        assert!(Rate::new(0, 1).is_none() && Rate::new(1, 0).is_none());
    }

    #[test]
    fn the_first_of_many_are_selected_in_order() {
        let mut selection = Selection::of(10_000);
        for number in 0..10_000_u64 {
            let since = Moment(number * 7919 % 10_000);
            selection.look_at(Victim { since, id: number.into() });
        }
        let mut victims = selection.into_victims();
        victims.reverse();
        assert!(victims.iter().map(|victim| victim.since.0).eq(0..625));
    }
}
