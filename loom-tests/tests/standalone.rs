//! The standalone stream: two logs, and connections that come and go while events are published.

#![cfg(ringmain_loom)]

use std::future::poll_fn;
use std::sync::Arc;

use loom::future::block_on;
use loom::sync::Mutex;

use loom_tests::{BOUND, LARGE, Thread, go, model, step};
use ringmain::internals::ring::{Limits, Position};
use ringmain::internals::session::{Heard, Lines, Listener, LockLines, Positions, Resume, Standalone};
use ringmain::internals::sse::{Frame, Log};
use ringmain::internals::stream::{Clock, LagPolicy, Moment};
use ringmain::topic::Topic;

const LIMITS: Limits = Limits { capacity: 4, max_weight: 1 << 20, max_age_ms: 1000 };

/// What one session's standalone stream is made of.
struct Setting {
    standalone: Standalone,
    topic: Arc<Topic>,
    lines: Mutex<Lines>,
}

type Shared = Arc<Setting>;

impl LockLines for Setting {
    fn with_lines<R>(&self, act: impl FnOnce(&mut Lines) -> R) -> R {
        act(&mut self.lines.lock().unwrap())
    }
}

fn setting() -> Shared {
    let topic = Topic::new(LIMITS, Clock::default());
    let standalone = Standalone::new(topic.tail());
    Arc::new(Setting { standalone, topic, lines: Mutex::new(Lines::default()) })
}

impl Setting {
    fn attach(&self, resume: Option<Resume>) -> Listener {
        step();
        let attached = self.standalone.attach(self, resume, LagPolicy::Signal, 4);
        self.standalone.wake();
        attached.expect("it was given").0
    }

    fn detach(&self, listener: Listener) {
        step();
        if self.standalone.detach(self, &listener).wakes {
            self.standalone.wake();
        }
    }

    fn publish(&self) -> Position {
        step();
        self.standalone.publish(Frame::shared(|out| out.push(b'x')), Moment(0), &LIMITS).unwrap()
    }

    fn broadcast(&self) -> Position {
        step();
        self.topic.publish(|out| out.push(b'x')).unwrap()
    }

    /// Takes what there is.
    fn drain(&self, listener: &mut Listener, seen: &mut Vec<(Log, Position)>) {
        while let Some(heard) = listener.try_next(&self.standalone, &self.topic, self) {
            if !note(heard, seen) {
                return;
            }
            step();
        }
    }

    /// Sleeps until there is something, and takes it.
    fn next(&self, listener: &mut Listener, seen: &mut Vec<(Log, Position)>) {
        step();
        let heard = poll_fn(|context| listener.poll_next(&self.standalone, &self.topic, self, context));
        assert!(note(block_on(heard), seen), "it goes on");
    }
}

/// Notes what was heard; false at the end of the connection.
fn note(heard: Heard, seen: &mut Vec<(Log, Position)>) -> bool {
    match heard {
        Heard::Events { frames, log, .. } => seen.extend(frames.positions().map(|position| (log, position))),
        Heard::Missed { .. } => panic!("nothing is evicted"),
        Heard::Superseded => return false,
        other => panic!("{other:?}"),
    }
    true
}

fn spawn<R: 'static>(shared: &Shared, act: impl FnOnce(&Setting) -> R + 'static) -> Thread<R> {
    let shared = shared.clone();
    loom_tests::spawn(move || act(&shared))
}

fn sorted(mut seen: Vec<(Log, Position)>) -> Vec<(Log, Position)> {
    seen.sort_by_key(|(log, position)| (*log == Log::Broadcast, *position));
    seen
}

const OWN: (Log, Position) = (Log::Own, 1);
const ALL: (Log, Position) = (Log::Broadcast, 1);

#[test]
fn a_broadcast_that_races_attach_goes_to_one_connection() {
    let outcomes = model(BOUND, || {
        let shared = setting();
        let mut old = shared.attach(None);
        let publisher = spawn(&shared, |shared| shared.broadcast());
        let newcomer = spawn(&shared, |shared| {
            let (mut new, mut seen) = (shared.attach(None), Vec::new());
            shared.drain(&mut new, &mut seen);
            (new, seen)
        });
        go();
        let mut by_old = Vec::new();
        shared.drain(&mut old, &mut by_old);
        publisher.join();
        let (mut new, mut seen) = newcomer.join();
        let old_had_it = !by_old.is_empty();
        shared.drain(&mut old, &mut by_old);
        shared.drain(&mut new, &mut seen);
        seen.extend(by_old);
        assert_eq!(seen, [ALL]);
        old_had_it
    });
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_resume_that_races_the_old_connection_gets_the_rest_once() {
    model(LARGE, || {
        let shared = setting();
        let mut old = shared.attach(None);
        let publisher = spawn(&shared, |shared| (shared.publish(), shared.broadcast()));
        let reader = spawn(&shared, move |shared| {
            let mut seen = Vec::new();
            shared.drain(&mut old, &mut seen);
            (old, seen)
        });
        go();
        // The client has nothing, whatever was written to the old connection.
        let resume = Resume { lineage: 1, after: Positions::default() };
        let (mut new, mut seen) = (shared.attach(Some(resume)), Vec::new());
        shared.drain(&mut new, &mut seen);
        publisher.join();
        let (mut old, mut by_old) = reader.join();
        shared.drain(&mut new, &mut seen);
        assert_eq!(sorted(seen), [OWN, ALL]);
        let before = by_old.len();
        shared.drain(&mut old, &mut by_old);
        assert_eq!(by_old.len(), before, "the old connection is given nothing more");
    });
}

#[test]
fn one_that_stands_by_is_woken_when_the_holder_ends() {
    model(LARGE, || {
        let shared = setting();
        let mut first = shared.attach(None);
        let second = shared.attach(None);
        let publisher = spawn(&shared, |shared| shared.broadcast());
        let leaver = spawn(&shared, move |shared| shared.detach(second));
        go();
        let mut seen = Vec::new();
        shared.next(&mut first, &mut seen);
        assert_eq!(seen, [ALL]);
        publisher.join();
        leaver.join();
    });
}

#[test]
fn one_that_waits_is_woken_for_either_log() {
    model(BOUND, || {
        let shared = setting();
        let mut only = shared.attach(None);
        let publisher = spawn(&shared, |shared| (shared.publish(), shared.broadcast()));
        go();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            shared.next(&mut only, &mut seen);
        }
        publisher.join();
        assert_eq!(sorted(seen), [OWN, ALL]);
    });
}

#[test]
fn what_the_holder_leaves_goes_to_the_one_that_stands_by_once() {
    let outcomes = model(LARGE, || {
        let shared = setting();
        let mut first = shared.attach(None);
        let mut second = shared.attach(None);
        let publisher = spawn(&shared, |shared| (shared.broadcast(), shared.publish()));
        let holder = spawn(&shared, move |shared| {
            let mut seen = Vec::new();
            shared.drain(&mut second, &mut seen);
            shared.detach(second);
            seen
        });
        go();
        let mut seen = Vec::new();
        shared.drain(&mut first, &mut seen);
        publisher.join();
        let by_second = holder.join();
        shared.drain(&mut first, &mut seen);
        let had = by_second.len();
        seen.extend(by_second);
        assert_eq!(sorted(seen), [OWN, ALL]);
        had
    });
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
}
