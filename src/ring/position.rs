//! Positions and slot arithmetic: pure, and checked near the end of the number range.

/// Number of an entry in its ring: the first is 1, the next one more, none is used twice.
///
/// 0 is before the first entry: a cursor that has read nothing has *read up to* 0.
pub type Position = u64;

/// The position of the first entry of every ring.
pub const FIRST: Position = 1;

/// Index of `position` in a chunk that begins at `base`; a very large one, which no chunk has, if it lies before
/// the chunk or further behind it than `usize` can tell.
#[inline]
pub(super) fn index_in(base: Position, position: Position) -> usize {
    usize::try_from(position.wrapping_sub(base)).unwrap_or(usize::MAX)
}

/// How many slots the chunk after one of `previous` slots has: 4, then 16, but never more than the ring may
/// retain at all, so that a small ring is bounded as tightly as it asks.
pub(super) fn next_chunk_slots(previous: usize, capacity: usize) -> usize {
    let step = match previous {
        0 => FEW_SLOTS,
        _ => MANY_SLOTS,
    };
    step.min(capacity.max(1))
}

/// Slots of a ring's first chunk: most request streams carry no more than this.
const FEW_SLOTS: usize = 4;
/// Slots of every later chunk: reclamation and hops are paid once per so many entries.
const MANY_SLOTS: usize = 16;

/// Whether `stamp` is at least `age` old at `now`, all in milliseconds. A stamp later than `now`, which a publisher
/// with a later clock left, is not old.
pub(super) fn is_older(stamp: u64, now: u64, age: u32) -> bool {
    now.checked_sub(stamp).is_some_and(|passed| passed >= u64::from(age))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn chunks_grow_in_two_steps() {
        assert_eq!(next_chunk_slots(0, 1024), 4);
        assert_eq!(next_chunk_slots(4, 1024), 16);
        assert_eq!(next_chunk_slots(16, 1024), 16);
        assert_eq!(next_chunk_slots(0, 2), 2);
        assert_eq!(next_chunk_slots(2, 2), 2);
        assert_eq!(next_chunk_slots(0, 0), 1);
    }

    proptest! {
        #[test]
        fn index_is_the_distance_from_the_base(base in prop_oneof![0..100u64, u64::MAX - 100..=u64::MAX], distance in 0..50u64) {
            if let Some(position) = base.checked_add(distance) {
                prop_assert_eq!(index_in(base, position), distance as usize);
            }
            if let Some(before @ 0..) = base.checked_sub(distance + 1) {
                prop_assert!(index_in(base, before) > usize::MAX / 2);
            }
        }

        #[test]
        fn age_is_what_has_passed(stamp in 0..=u64::MAX / 2, passed in any::<u32>(), age in any::<u32>(), quiet in 0..=u64::MAX / 2) {
            prop_assert_eq!(is_older(stamp, stamp + u64::from(passed), age), passed >= age);
            prop_assert!(is_older(stamp, stamp + quiet, age) || quiet < u64::from(age));
            prop_assert!(passed == 0 || !is_older(stamp + u64::from(passed), stamp, age));
        }
    }
}
