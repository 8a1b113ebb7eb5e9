//! Connections side by side, and their numbers.

use super::lines::{Given, Line};
use super::*;
use crate::ring::{Limits, Position};
use crate::sse::{Frame, Log};
use crate::stream::{Clock, GENERATIONS, Generation, LagPolicy, Moment};
use crate::sync::{Arc, Mutex, lock};
use crate::topic::Topic;

const LIMITS: Limits = Limits { capacity: 1024, max_weight: 1 << 20, max_age_ms: 1000 };

/// What one session's standalone stream is made of.
struct Setting {
    standalone: Standalone,
    topic: Arc<Topic>,
    lines: Mutex<Lines>,
}

impl LockLines for Setting {
    fn with_lines<R>(&self, act: impl FnOnce(&mut Lines) -> R) -> R {
        act(&mut lock(&self.lines))
    }
}

impl Setting {
    fn new() -> Self {
        let topic = Topic::new(LIMITS, Clock::default());
        let standalone = Standalone::new(topic.tail());
        Self { standalone, topic, lines: Mutex::new(Lines::default()) }
    }

    fn attach(&self) -> Listener {
        self.standalone.attach(self, None, LagPolicy::Signal, 4).expect("it resumes nothing").0
    }

    fn publish(&self) {
        self.standalone.publish(Frame::shared(|out| out.push(b'x')), Moment(0), &LIMITS).unwrap();
    }

    /// The positions of the session's own events that it is given until there is nothing more.
    fn drain(&self, listener: &mut Listener) -> Vec<Position> {
        let mut positions = Vec::new();
        while let Some(heard) = listener.try_next(&self.standalone, &self.topic, self) {
            match heard {
                Heard::Events { frames, log: Log::Own, .. } => positions.extend(frames.positions()),
                other => panic!("{other:?}"),
            }
        }
        positions
    }

    /// As many connections come and go as lead to this generation.
    fn wind(&self, generation: Generation) {
        let lease = self.standalone.stream.lease();
        while lease.terms().generation() != generation {
            lease.attach(None, false);
        }
        self.standalone.broadcasts.adopt(generation);
    }
}

#[test]
fn sizes_are_as_documented() {
    let sizes = [size_of::<Standalone>(), size_of::<Lines>(), size_of::<Line>(), size_of::<Given>()];
    assert_eq!(sizes, [40, 56, 20, 24]);
    assert_eq!(size_of::<Listener>(), 56);
}

#[test]
fn a_newcomer_is_not_taken_for_one_that_stands_by() {
    let setting = Setting::new();
    let mut old = setting.attach();
    let _other = setting.attach();
    setting.wind(GENERATIONS - 1);
    let mut new = setting.attach();
    setting.publish();
    assert!(setting.drain(&mut old).is_empty());
    assert_eq!(setting.drain(&mut new), [1]);
}

#[test]
fn who_takes_over_is_told_so_whatever_its_number_was() {
    let setting = Setting::new();
    let (mut one, mut other) = (setting.attach(), setting.attach());
    setting.publish();
    setting.wind(GENERATIONS - 1);
    // It is the one that all those were.
    other.generation = GENERATIONS - 1;
    lock(&setting.lines).connections[1].generation = GENERATIONS - 1;
    assert_eq!(setting.drain(&mut other), [1]);
    assert_eq!(setting.standalone.detach(&setting, &other), Detached { was_last: false, wakes: true });
    setting.publish();
    assert_eq!(setting.drain(&mut one), [2], "and not what the other was given");
}
