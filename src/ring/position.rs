//! Positions and slot arithmetic: pure, and checked near the end of the number range.

/// Number of an entry in its ring: the first is 1, the next one more, none is used twice.
///
/// 0 is before the first entry: a cursor that has read nothing has *read up to* 0.
pub type Position = u64;

/// The position of the first entry of every ring.
pub const FIRST: Position = 1;

/// Index of `position` in a chunk that begins at `base`, or `None` if it lies before it.
pub(super) fn index_in(base: Position, position: Position) -> Option<usize> {
    position.checked_sub(base).and_then(|distance| usize::try_from(distance).ok())
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

/// Whether `stamp` is at least `age` old at `now`. All are in milliseconds of a wrapping 32-bit clock, so the
/// answer holds for ages below 2^31 ms (24 days).
pub(super) fn is_older(stamp: u32, now: u32, age: u32) -> bool {
    now.wrapping_sub(stamp) as i32 >= i32::try_from(age).unwrap_or(i32::MAX)
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
                prop_assert_eq!(index_in(base, position), Some(distance as usize));
            }
            if distance > 0 {
                prop_assert_eq!(index_in(base, base.saturating_sub(distance)), if base >= distance { None } else { index_in(base, 0) });
            }
        }

        #[test]
        fn age_survives_the_wrap_of_the_clock(stamp in any::<u32>(), passed in 0..1_000_000u32, age in 0..1_000_000u32) {
            prop_assert_eq!(is_older(stamp, stamp.wrapping_add(passed), age), passed >= age);
        }
    }
}
