//! All sessions of this process: created, found, ended.

use core::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::admission::{Creator, SAMPLE, Selection};
use super::counters::Counters;
use super::index::Index;
use super::life::End;
use super::principal::{Holder, PrincipalId, Principals};
use super::roster::Roster;
use super::settings::{AtLimit, Settings};
use super::shared::Shared;
use super::state::Session;
use crate::protocol::{Refusal, SessionId, random_tag};
use crate::request::Traffic;
use crate::stream::Clock;
use crate::sync::{Arc, OnceLock, Ordering, lock};

/// The sessions of one endpoint.
///
/// Cheap to clone; clones are the same registry.
///
/// # Examples
///
/// ```
/// # use ringmain::session::{Sessions, Settings};
/// # use ringmain::topic::Clock;
/// # let sessions = Sessions::new(Settings::default(), Clock::default());
/// # let session = sessions.create(None);
/// // A server gives its own: `let sessions = server.sessions();`
/// let id = session.id();
/// assert_eq!(sessions.len(), 1);
/// let found = sessions.find_any(id).expect("it is there");
/// found.publish(|out| out.extend_from_slice(br#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#))?;
///
/// sessions.terminate(&found);
/// assert!(found.is_closed() && sessions.find_any(id).is_none());
/// # Ok::<(), ringmain::session::PublishError>(())
/// ```
#[derive(Clone)]
pub struct Sessions {
    pub(super) registry: Arc<Registry>,
    pub(super) shared: Arc<Shared>,
}

/// Where the sessions of one registry are.
pub(super) struct Registry {
    index: Index,
    /// Keeps the sessions.
    pub(super) roster: Roster,
    /// What is called with each session that ended.
    on_end: OnceLock<Box<Hook>>,
}

type Hook = dyn Fn(&Session) + Send + Sync;

impl Sessions {
    /// Makes an empty registry that goes by `clock`.
    #[must_use]
    #[doc(hidden)]
    pub fn new(settings: Settings, clock: Clock) -> Self {
        let registry = Registry { index: Index::new(), roster: Roster::new(), on_end: OnceLock::new() };
        Self { registry: Arc::new(registry), shared: Arc::new(Shared::new(settings, clock)) }
    }

    /// Calls `hook` with each session that ends from now on, whatever ends it: once, after its streams are closed and
    /// before what is [attached](Session::attach) to it is dropped. It runs on the thread that ends the session, under
    /// no lock of the registry. If it panics, the session has ended all the same. The first call wins; returns false if
    /// there was one before.
    ///
    /// The registry keeps the hook: a hook that holds a `Sessions` keeps all of them for ever, and one that holds an
    /// `Arc<Session>` keeps that session. Give it weak references.
    ///
    /// The edge sets it to run [`Handler::closed`](crate::handler::Handler::closed). Who wants to use it runs no
    /// [`Server`](crate::server::Server).
    pub(crate) fn on_end(&self, hook: impl Fn(&Session) + Send + Sync + 'static) -> bool {
        self.registry.on_end.set(Box::new(hook)).is_ok()
    }

    /// Takes over those of `settings` that are marked *live*; the others have no effect. What is there already is
    /// not ended at once to fit a lower limit on the number of sessions, and it is not added to either: where sessions
    /// are evicted for others, two end for each newcomer until the limit holds. A rate that changes starts anew.
    pub fn reconfigure(&self, settings: Settings) {
        let mut rules = lock(&self.shared.rules);
        self.shared.times.change(&settings);
        let changed = rules.with(settings, &self.shared.clock);
        *rules = Arc::new(changed);
    }

    /// Creates a session that belongs to `holder` ([`Holder::anybody`], or `None`: to whoever knows its ID), whatever
    /// the limits say. For the application's own use; what a client asks for goes through [`admit`](Self::admit).
    #[must_use]
    #[doc(hidden)]
    pub fn create(&self, holder: impl Into<Holder>) -> Arc<Session> {
        let holder = holder.into();
        self.shared.take_place(usize::MAX);
        self.shared.count_in(holder.id(), usize::MAX);
        self.insert(&holder)
    }

    /// Creates a session for a client, if the limits allow it. Another may end to make space for it.
    ///
    /// # Errors
    ///
    /// [`Refusal::CallerSessionRate`] or [`Refusal::SessionRate`] if sessions are created too fast,
    /// [`Refusal::TooManyOwnSessions`] if the principal has as many as it may have, [`Refusal::TooManySessions`]
    /// if there are as many as there may be and none ends for the new one.
    #[doc(hidden)]
    pub fn admit(&self, creator: Creator) -> Result<Arc<Session>, Refusal> {
        self.find_place(&creator).inspect_err(|refusal| self.shared.counters.count_refused(refusal))?;
        Ok(self.insert(&creator.holder))
    }

    fn find_place(&self, creator: &Creator) -> Result<(), Refusal> {
        let rules = self.shared.rules();
        rules.check_rates(creator)?;
        let Settings { max_sessions, at_limit, max_sessions_per_principal, .. } = rules.settings;
        let limit = max_sessions_per_principal.unwrap_or(usize::MAX);
        if !self.shared.count_in(creator.holder.id(), limit) {
            return Err(Refusal::TooManyOwnSessions { limit });
        }
        if self.shared.take_place(max_sessions) {
            return Ok(());
        }
        // The place of the one that ends is the newcomer's at once: no other thread can take it.
        if !self.evict_one(at_limit) {
            self.shared.count_out(creator.holder.id());
            return Err(Refusal::TooManySessions);
        }
        // More than there may be, since the limit was lowered: one more goes for each newcomer.
        if self.len() > max_sessions && self.evict_one(at_limit) {
            self.shared.give_place_back();
        }
        Ok(())
    }

    /// Makes a session in a place that was taken for it.
    ///
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#session-management
    //# The session ID SHOULD be globally unique and cryptographically secure
    fn insert(&self, holder: &Holder) -> Arc<Session> {
        self.shared.counters.count_created();
        loop {
            let id = SessionId::generate();
            let tag = random_tag();
            let session = Arc::new(Session::new(id, tag, holder.clone(), self.shared.clone()));
            // A second session with the same 64 random bits does not happen; if it does, it draws again.
            if self.registry.index.insert(&session) {
                self.registry.roster.insert(&session);
                return session;
            }
        }
    }

    /// Ends the session whose turn it is, and keeps its place taken. False if there is none.
    fn evict_one(&self, at_limit: AtLimit) -> bool {
        if at_limit == AtLimit::Refuse {
            return false;
        }
        let mut looked = false;
        loop {
            // Not held while a session ends.
            let next = lock(&self.shared.victims).pop();
            let Some(victim) = next else {
                if core::mem::replace(&mut looked, true) {
                    return false;
                }
                let mut selection = Selection::of(self.len().min(SAMPLE));
                self.registry.roster.sample(SAMPLE, |session| selection.look_at(session.as_victim(at_limit)));
                *lock(&self.shared.victims) = selection.into_victims();
                continue;
            };
            // Whoever did something since it was noted is not the one.
            if let Some(session) = self.find_any(SessionId::from_u128(victim.id))
                && session.close_victim(victim, at_limit)
            {
                self.let_go(&session, End::Evicted);
                return true;
            }
        }
    }

    /// Finds a session. Takes no lock.
    ///
    //= https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#session-management
    //# The server MAY terminate the session at any time, after which it MUST respond to requests containing that
    //# session ID with HTTP 404 Not Found.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownSession`] if there is none with this ID that belongs to `principal`.
    #[doc(hidden)]
    pub fn find(&self, id: SessionId, principal: Option<PrincipalId>) -> Result<Arc<Session>, Refusal> {
        let found = self.find_any(id);
        found.filter(|session| session.principal_id() == principal).ok_or(Refusal::UnknownSession)
    }

    /// Finds a session, whoever it belongs to: for the operator, who may reach all of them.
    #[must_use]
    pub fn find_any(&self, id: SessionId) -> Option<Arc<Session>> {
        self.registry.index.find(id)
    }

    /// The principals that sessions belong to.
    #[must_use]
    #[doc(hidden)]
    pub fn principals(&self) -> &Principals {
        &self.shared.principals
    }

    /// Ends a session at once, because the server chose so: it cannot be found any more, its connections end, and
    /// [`Handler::closed`](crate::handler::Handler::closed) has run when this returns. False if it had ended.
    pub fn terminate(&self, session: &Session) -> bool {
        self.end(session, End::Closed)
    }

    /// Ends a session at once, for the reason given, as [`terminate`](Self::terminate) does. False if it had ended, or
    /// belongs to another registry.
    #[doc(hidden)]
    pub fn end(&self, session: &Session, why: End) -> bool {
        let ends = Arc::ptr_eq(&session.shared, &self.shared) && session.close();
        if ends {
            self.shared.give_place_back();
            self.let_go(session, why);
        }
        ends
    }

    /// Lets go of a session that ended, and tells whoever wants to know. Called once for each, under no lock.
    pub(super) fn let_go(&self, session: &Session, why: End) {
        self.registry.index.remove(session.id());
        // Kept up to the end of this function.
        let _kept = self.registry.roster.remove(session);
        self.shared.count_out(session.principal_id());
        self.shared.counters.count_ended(why);
        if let Some(hook) = self.registry.on_end.get() {
            unwinding(|| hook(session));
        }
        unwinding(|| drop(session.detach()));
    }

    /// How many sessions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        // Relaxed: as in `take_place`.
        self.shared.count.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// From now on clients that are told to come back are told to wait up to `window_ms` longer, each another time,
    /// so that they do not all come at once.
    pub(crate) fn spread_returns(&self, window_ms: u32) {
        // Relaxed: a number that orders nothing.
        self.shared.spread_ms.store(window_ms, Ordering::Relaxed);
    }

    /// The time that the sessions go by.
    #[must_use]
    #[doc(hidden)]
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// What happened to sessions and connections so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// What flowed through the sessions so far.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        self.shared.environment.traffic()
    }

    /// What the registry was made with; [`reconfigure`](Self::reconfigure) does not show here.
    #[must_use]
    #[doc(hidden)]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Visits every session there is, once. One that begins or ends meanwhile may be among them or not.
    pub fn for_each(&self, visit: impl FnMut(&Arc<Session>)) {
        self.registry.roster.for_each(visit);
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Calls what is not ours. If it panics, nothing of ours is left half done; the panic hook has said what happened.
fn unwinding(call: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(call));
}
