#!/usr/bin/env python3
"""Weakens one ordering or step at a time in a copy of the tree, and checks that a model then fails.

Usage, from the root of the repository: loom-tests/weaken.py [WORD]...
Only weakenings whose name contains one of the words are tried; all of them without any.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
UNPINNED = "#[allow(unsafe_code)]\n        let guard = unsafe { crossbeam_epoch::unprotected() };"
SLOT, CHUNK, CURSOR = "ring/slot.rs", "ring/chunk.rs", "ring/cursor.rs"
WRITER, RING, WAKE = "ring/writer.rs", "ring/mod.rs", "wake/mod.rs"
DUTY, HOLD = "wake/duty.rs", "wake/hold.rs"
LIFE = "session/life.rs"
ATTACH, LISTENER = "session/standalone/attach.rs", "session/standalone/listener.rs"
TOPIC, SUBSCRIPTION = "topic/mod.rs", "topic/subscription.rs"
LEASE, STREAM, SUBSCRIBER = "stream/lease.rs", "stream/mod.rs", "stream/subscriber.rs"


def relaxed(file, name, start, ordering="Relaxed"):
    """The first `Ordering::…` behind `start` becomes `ordering`."""
    return (name, [(file, re.escape(start) + r"(.*?)Ordering::\w+", lambda m: m[0][: m[0].rindex("::") + 2] + ordering)])


def replaced(file, name, old, new):
    return (name, [(file, re.escape(old), lambda _: new)])


CALLED_FIRST = [(WAKE, r"(node\.queued\.swap\(false.*?;)\s*\*woken \+= 1;\s*(match &node\.target \{.*?\n            \})", lambda m: m[2] + "\n" + m[1])]

# (weakening, the model that is to fail)
WEAKENINGS = [
    # A session's sign of life.
    (replaced(LIFE, "life: noted over the end", "match self.0.compare_exchange_weak(seen.0, noted, Ordering::Relaxed, Ordering::Relaxed) {",
              "match Ok::<u64, u64>(self.0.swap(noted, Ordering::Relaxed)) {"),
     "life::a_sign_of_life_is_refused_or_keeps_the_session"),
    (replaced(LIFE, "life: ended whatever came between",
              "let ends = self.0.compare_exchange(seen.0, ended, Ordering::AcqRel, Ordering::Relaxed);",
              "let _ = ended;\n        let ends = Ok::<u64, u64>(self.0.fetch_or(ENDED, Ordering::AcqRel));"),
     "life::a_sign_of_life_is_refused_or_keeps_the_session"),
    (replaced(LIFE, "life: ended by two", "!seen.is_ended() && ends.is_ok()", "{ let _ = ends; !seen.is_ended() }"),
     "life::of_those_who_end_a_session_one_does"),
    (relaxed(LIFE, "life: end marked without Release", "!Seen(self.0.fetch_or(ENDED, "),
     "life::who_sees_the_end_sees_what_was_done_before_it"),
    (relaxed(LIFE, "life: end seen without Acquire", "// Acquire: whoever sees the end sees what was done before it. Pairs with the AcqRel in `end`.\n        Seen(self.0.load("),
     "life::who_sees_the_end_sees_what_was_done_before_it"),
    (relaxed(LIFE, "life: a sweep's end marked without Release", "let ends = self.0.compare_exchange(seen.0, ended, "),
     "life::who_sees_a_sweep_s_end_sees_what_was_done_before_it"),
    # The ring.
    (relaxed(SLOT, "slot: filled without Release", "match self.word.compare_exchange(", "Acquire"),
     "ring::racing_publishers_get_positions_without_gaps_and_readers_see_what_they_wrote"),
    (relaxed(SLOT, "slot: filled without Acquire", "match self.word.compare_exchange(", "Release"),
     "ring::racing_publishers_get_positions_without_gaps_and_readers_see_what_they_wrote"),
    (relaxed(SLOT, "slot: read without Acquire", "Self::state_of(self.word.load("),
     "ring::racing_publishers_get_positions_without_gaps_and_readers_see_what_they_wrote"),
    (relaxed(SLOT, "slot: lost race without Acquire", "match self.word.compare_exchange(core::ptr::null_mut(), word, Ordering::AcqRel, "),
     "ring::a_fresh_entry_is_not_evicted_for_the_age_of_its_chunk"),
    (replaced(SLOT, "slot: stored after a look", "match self.word.compare_exchange(core::ptr::null_mut(), word, Ordering::AcqRel, Ordering::Acquire) {",
              "let found = self.word.load(Ordering::Acquire);\n        if found.is_null() { self.word.store(word, Ordering::Release) }\n        match if found.is_null() { Ok(found) } else { Err(found) } {"),
     "ring::racing_publishers_cross_a_chunk_without_a_gap"),
    (relaxed(CHUNK, "hint: set without Release", "self.hint.store("), "ring::a_fresh_entry_is_not_evicted_for_the_age_of_its_chunk"),
    (relaxed(CHUNK, "hint: read without Acquire", "self.hint.load("), "ring::a_fresh_entry_is_not_evicted_for_the_age_of_its_chunk"),
    (replaced(CHUNK, "first chunk: stored after a look", "match self.0.compare_exchange(ptr::null_mut(), chunk.as_ptr(), Ordering::AcqRel, Ordering::Acquire) {",
              "let found = self.0.load(Ordering::Acquire);\n        if found.is_null() { self.0.store(chunk.as_ptr(), Ordering::Release) }\n        match if found.is_null() { Ok(found) } else { Err(found) } {"),
     "ring::the_first_chunk_is_installed_once_by_racing_publishers"),
    (relaxed(CHUNK, "link: installed without Release", "match self.0.compare_exchange(ptr::null_mut(), ", "Acquire"),
     "ring::the_first_chunk_is_installed_once_by_racing_publishers"),
    (relaxed(CHUNK, "link: installed without Acquire", "match self.0.compare_exchange(ptr::null_mut(), ", "Release"),
     "ring::the_first_chunk_is_installed_once_by_racing_publishers"),
    (relaxed(CHUNK, "link: lost race without Acquire", "match self.0.compare_exchange(ptr::null_mut(), chunk.as_ptr(), Ordering::AcqRel, "),
     "ring::the_first_chunk_is_installed_once_by_racing_publishers"),
    (relaxed(CHUNK, "link: read without Acquire", "self.0.load("), "ring::a_cursor_made_while_publishing_reads_every_entry_once"),
    (relaxed(CHUNK, "link: moved on without Release", "self.0.compare_exchange(expected, target, ", "Acquire"),
     "ring::a_reader_finds_what_eviction_by_age_left"),
    (relaxed(CHUNK, "link: moved on without Acquire", "self.0.compare_exchange(expected, target, ", "Release"),
     "ring::a_reader_gets_each_entry_or_is_told_how_many_it_missed"),
    (replaced(CHUNK, "successor: evicted not checked", "if self.is_evicted() {", "if false {"),
     "ring::a_reader_on_an_evicted_chunk_does_not_follow_it_into_freed_memory"),
    (relaxed(CHUNK, "evicted: set without Release", "self.evicted.store(true, "),
     "ring::a_reader_on_an_evicted_chunk_does_not_follow_it_into_freed_memory"),
    (relaxed(CHUNK, "evicted: read without Acquire", "self.evicted.load("),
     "ring::a_reader_on_an_evicted_chunk_does_not_follow_it_into_freed_memory"),
    (("evicted: set after the ring moved on", [
        (WRITER, r"oldest\.mark_evicted\(\);\n", lambda _: "\n"),
        (WRITER, r"Link::retire\(oldest\);", lambda m: "oldest.mark_evicted();\n" + m[0])]),
     "ring::a_reader_between_two_evictors_does_not_meet_the_second_chunk_freed"),
    (replaced(CHUNK, "retire: freed at once", "unsafe { chunk.guard.defer_unchecked(move || drop(retired)) };", "drop(retired);"),
     "ring::a_reader_that_looks_up_the_oldest_chunk_does_not_meet_it_freed"),
    (("hop: not pinned", [(CURSOR, r"let guard = epoch::pin\(\);(?=\s+match chunk)", lambda _: UNPINNED)]),
     "ring::a_reader_on_an_evicted_chunk_does_not_follow_it_into_freed_memory"),
    (("look-up: not pinned", [(CURSOR, r"let guard = epoch::pin\(\);(?=\s+// The tail is read)", lambda _: UNPINNED)]),
     "ring::a_reader_that_looks_up_the_oldest_chunk_does_not_meet_it_freed"),
    (("look-up of the tail: not pinned", [(CURSOR, r"let guard = epoch::pin\(\);(?=\s+// The tail is read)", lambda _: UNPINNED)]),
     "ring::a_reader_that_looks_up_the_tail_does_not_meet_it_freed"),
    (("take: not pinned", [(CURSOR, r"let guard = pinned\.get_or_insert_with\(epoch::pin\);", lambda _: UNPINNED)]),
     "ring::a_batch_of_whole_chunks_is_taken_while_they_are_evicted"),
    (replaced(CURSOR, "take: a gap is told before what was collected", "edge if entries > 0 =>", "edge @ Step::Empty if entries > 0 =>"),
     "ring::a_batch_of_whole_chunks_is_taken_while_they_are_evicted"),
    (("publish: not pinned", [(WRITER, r"let guard = epoch::pin\(\);(?=\s+let weight)", lambda _: UNPINNED)]),
     "ring::a_publisher_does_not_meet_its_chunk_freed"),
    (("count: a cursor takes none", [(CHUNK, r"self\.retain\(\);(?=\s+Strong \{ chunk: self\.chunk)", lambda _: "")]),
     "ring::a_reader_on_an_evicted_chunk_does_not_follow_it_into_freed_memory"),
    (("count: a batch takes none", [(CHUNK, r"self\.retain\(\);(?=\s+Self \{ chunk: self\.chunk)", lambda _: "")]),
     "ring::a_batch_keeps_its_entries_while_their_chunk_is_evicted"),
    (relaxed(CHUNK, "count: given up without Release", "counts.fetch_sub(1, ", "Acquire"),
     "ring::the_last_owner_of_a_chunk_drops_what_others_read"),
    (relaxed(CHUNK, "count: given up without Acquire", "counts.fetch_sub(1, ", "Release"),
     "ring::the_last_owner_of_a_chunk_drops_what_others_read"),
    (("evict: given up by the loser too", [(WRITER, r"if self\.oldest\.move_on\(Some\(oldest\), next\) \{", lambda _: "self.oldest.move_on(Some(oldest), next);\n            {")]),
     "ring::racing_evictors_give_a_chunk_up_once"),
    (("stamp: stored, so that it goes back", [(CHUNK, r"while stamp < now.*?\n        \}\n", lambda _: "stamp = now;\n        self.stamp.store(stamp, Ordering::Relaxed);\n")]),
     "ring::a_publisher_with_an_earlier_clock_does_not_age_an_entry_beside_its_own"),
    (("stamp: stored after a look", [(CHUNK, r"match self\.stamp\.compare_exchange_weak\(.*?\n            \}\n", lambda _: "self.stamp.store(now, Ordering::Relaxed);\n            stamp = now;\n")]),
     "ring::racing_publishers_leave_the_later_of_their_moments"),
    (("stamp: touched after the slot is filled", [
        (WRITER, r"chunk\.touch\(now\);\n", lambda _: "\n"),
        (WRITER, r"chunk\.filled\(index\);", lambda m: "chunk.touch(now);\n" + m[0])]),
     "ring::a_fresh_entry_is_not_evicted_for_the_age_of_its_chunk"),
    (("age: not looked at again behind the seal", [(WRITER, r"(link_behind\(tail, end, 0, now, limits\)\.1;[^}]*?)self\.evict_while\(\|oldest, _\| is_old\(oldest\)\)", lambda m: m[1] + "self.evict_while(|_, _| true)")]),
     "ring::a_fresh_entry_is_not_evicted_for_the_age_of_its_chunk"),
    (("evict: the chunk that the tail names", [(WRITER, r"if oldest\.is\(tail\) \{\s*break;\s*\}", lambda _: "let _ = tail;")]),
     "ring::what_was_evicted_does_not_weigh_although_the_tail_lags_behind"),
    (("tail: the hint is read twice", [
        (RING, r"let hint = chunk\.hint\(\)\.min.*?;\n", lambda _: ""),
        (RING, r"chunk\.slots\(\)\[hint\.\.\]\.iter\(\)", lambda _: "chunk.slots().iter().skip(chunk.hint())"),
        (RING, r"\(hint \+ filled\)", lambda _: "(chunk.hint().min(chunk.slots().len()) + filled)")]),
     "ring::the_tail_never_names_more_than_can_be_read"),
    (replaced(WRITER, "base: from the slots, not from the end", "full.base + end as u64", "full.base + full.slots().len() as u64"),
     "ring::a_chunk_cut_short_by_weight_leaves_no_gap"),
    (replaced(WRITER, "last: in two steps", "self.append(entry, true, now, limits)",
              "let position = self.append(entry, false, now, limits)?;\n        self.close(now, limits);\n        Ok(position)"),
     "ring::nothing_follows_the_last_entry"),
    (("last: the hint is moved behind it", [(WRITER, r"if last \{\s*return Ok\(position\);\s*\}", lambda _: "")]),
     "ring::nothing_follows_the_last_entry"),
    (("close: by a flag", [
        (RING, r"    tail: Link<T>,\n", lambda m: m[0] + "    closed: crate::sync::AtomicBool,\n"),
        (RING, r"tail: Link::null\(\) \}", lambda _: "tail: Link::null(), closed: crate::sync::AtomicBool::new(false) }"),
        (WRITER, r"(pub fn close\(&self[^{]*\{)", lambda m: m[0] + "\n        if true { return !self.closed.swap(true, crate::sync::Ordering::AcqRel); }"),
        (WRITER, r"(fn append\(&self[^{]*\{)", lambda m: m[0] + "\n        if self.closed.load(crate::sync::Ordering::Acquire) { return Err(Closed(entry)); }"),
        (CURSOR, r"Place::NothingYet if !chunk\.is_evicted\(\) => return Step::Empty,", lambda m: "Place::NothingYet if ring.closed.load(crate::sync::Ordering::Acquire) => return Step::Ended,\n" + m[0])]),
     "ring::a_reader_that_meets_the_end_has_read_everything"),
    (replaced(CURSOR, "read: lag not counted", "self.position += missed;", "self.position += missed + 1;"),
     "ring::a_reader_gets_each_entry_or_is_told_how_many_it_missed"),
    # Dropping the ring.
    (replaced(CHUNK, "drop: the rest freed at once", "unsafe { guard.defer_unchecked(move || Chunk::release_chain(chunk)) };",
              "unsafe { Chunk::release_chain(chunk) };\n        drop(guard);"),
     "ring::a_cursor_does_not_follow_its_dropped_ring_into_freed_memory"),
    (("drop: who holds a chunk is not looked at", [(CHUNK, r"if fixed\.counts\.load\(Ordering::Acquire\) != 1 \{", lambda _: "if false {")]),
     "ring::a_cursor_does_not_follow_its_dropped_ring_into_freed_memory"),
    (relaxed(CHUNK, "drop: who holds a chunk is read without Acquire", "if fixed.counts.load("),
     "ring::a_cursor_does_not_follow_its_dropped_ring_into_freed_memory"),
    (("drop: a held chunk not marked as evicted", [(CHUNK, r"fixed\.mark_evicted\(\);\s+(?=is_unreachable = false)", lambda _: "")]),
     "ring::a_cursor_does_not_follow_its_dropped_ring_into_freed_memory"),
    (("drop: the rest not marked as evicted", [(CHUNK, r"fixed\.mark_evicted\(\);\s+(?=rest = )", lambda _: "")]),
     "ring::a_cursor_does_not_follow_its_dropped_ring_into_freed_memory"),
    (replaced(CHUNK, "drop: an oldest chunk taken for the first", "unsafe { oldest.as_ref() }.is_first;", "true;"),
     "ring::a_cursor_between_an_evictor_and_the_drop_of_its_ring_does_not_meet_the_next_chunk_freed"),
    # Trimming.
    (replaced(WRITER, "trim: goes on behind the tail that it saw", "let is_before = oldest.base <= tail.base && !oldest.is(tail);", "let is_before = true;"),
     "ring::a_trim_leaves_what_is_behind_the_tail_that_it_saw"),
    (("trim: what came in meanwhile goes too", [(WRITER, r"&& seal_at\(tail, entries\)", lambda _: "&& let Some(entries) = seal(tail)")]),
     "ring::what_is_published_after_a_trim_looked_stays"),
    (("trim: weighed as the ring before and after", [
        (WRITER, r"// What is published from here on is left for the next time\.", lambda m: "let before = self.spare_weight();\n        " + m[0]),
        (WRITER, r"&& seal_at\(tail, entries\)", lambda _: "&& let Some(entries) = seal(tail)"),
        (WRITER, r"evicted\.weight\n", lambda _: "let _ = evicted.weight;\n        before.saturating_sub(self.spare_weight())\n")]),
     "ring::a_trim_tells_exactly_what_it_let_go"),
    # Beyond the tail.
    (replaced(CURSOR, "beyond the tail: only the own slot is looked at", "(0..slots.len()", "(index..slots.len()"),
     "ring::a_cursor_beyond_the_tail_is_served_behind_a_chunk_cut_short_by_weight"),
    (replaced(CURSOR, "beyond the tail: only the slot before is looked at", "(0..slots.len()", "(index.saturating_sub(1)..slots.len()"),
     "ring::a_cursor_beyond_the_tail_ends_with_the_ring"),
    (("beyond the tail: an evicted chunk is waited for", [
        (CURSOR, r"\(0\.\.slots\.len\(\)", lambda _: "(index..slots.len()"),
        (CURSOR, r"Place::NothingYet if !chunk\.is_evicted\(\)", lambda _: "Place::NothingYet")]),
     "ring::a_cursor_beyond_the_tail_is_served_although_the_ring_is_trimmed"),
    # The list of waiters.
    (replaced(WAKE, "wake: a look before the swap", "let top = self.top.swap(", "if self.top.load(Ordering::Acquire).is_null() {\n            return 0;\n        }\n        let top = self.top.swap("),
     "wake::wake_is_not_lost_when_publish_races_register"),
    (relaxed(WAKE, "wake: stack taken without Release", "self.top.swap(ptr::null_mut(), ", "Acquire"), "wake::wake_is_not_lost_when_publish_races_register"),
    (relaxed(WAKE, "wake: stack taken without Acquire", "self.top.swap(ptr::null_mut(), ", "Release"), "wake::racing_waiters_are_both_woken"),
    (relaxed(WAKE, "register: pushed without Acquire", "self.top.compare_exchange_weak(top, raw, ", "Release"), "wake::wake_is_not_lost_when_publish_races_register"),
    (relaxed(WAKE, "register: pushed without Release", "self.top.compare_exchange_weak(top, raw, ", "Acquire"), "wake::racing_waiters_are_both_woken"),
    (relaxed(WAKE, "register: marked without Release", "node.queued.swap(true, ", "Acquire"), "wake::a_waiter_with_a_bell_registers_again_while_two_publishers_ring_it"),
    (relaxed(WAKE, "register: marked without Acquire", "node.queued.swap(true, ", "Release"), "wake::a_waiter_with_a_bell_registers_again_while_two_publishers_ring_it"),
    (relaxed(WAKE, "wake: mark reset without Release", "node.queued.swap(false, ", "Acquire"), "wake::a_waiter_with_a_bell_registers_again_while_two_publishers_ring_it"),
    (relaxed(WAKE, "wake: mark reset without Acquire", "node.queued.swap(false, ", "Release"), "wake::a_waiter_with_a_bell_registers_again_while_two_publishers_ring_it"),
    (("wake: waker called before the mark is reset", CALLED_FIRST), "wake::a_waiter_registers_again_while_a_publisher_wakes_it"),
    (("wake: bell rung before the mark is reset", CALLED_FIRST), "wake::a_waiter_with_a_bell_registers_again_while_a_publisher_rings_it"),
    (("wake: link read after the mark is reset", [(WAKE, r"\*top = node\.next\.load\(Ordering::Relaxed\);", lambda _: ""),
        (WAKE, r"node\.queued\.swap\(false.*?;", lambda m: m[0] + "\n            *top = node.next.load(Ordering::Relaxed);")]),
     "wake::a_waiter_that_registers_again_does_not_hide_those_below_it"),
    (("register: waker left after the mark", [(WAKE, r"if node\.queued\.swap\(true, Ordering::AcqRel\) \{", lambda _: "if queued {"),
        (WAKE, r"if matches!\(waiter\.node\.target", lambda m: "let queued = waiter.node.queued.swap(true, Ordering::AcqRel);\n        " + m[0])]),
     "wake::the_waker_left_last_is_the_one_that_is_called"),
    (("waiters: dropped without letting go", [(WAKE, r"(impl Drop for Waiters.*?)self\.wake_in_drop\(\);", lambda m: m[1])]),
     "wake::a_waiting_room_dropped_lets_go_of_those_queued"),
    # A task that is held back.
    (replaced(HOLD, "hold: an end since the note is no reason", "if began == since.0 {", "let _ = since;\n        if began == self.ended.load(Ordering::Acquire) {"),
     "hold::parts_that_belong_together_are_taken_together"),
    (replaced(HOLD, "hold: no second look", "if self.ended.load(Ordering::Relaxed) != since.0 {", "if false {"),
     "hold::a_held_task_is_woken_when_each_hold_has_ended"),
    (replaced(HOLD, "hold: the waker is left after the second look", "self.held.register(context.waker());\n        if self.ended.load(Ordering::Relaxed) != since.0 {\n            context.waker().wake_by_ref();\n        }",
              "if self.ended.load(Ordering::Relaxed) != since.0 {\n            context.waker().wake_by_ref();\n        }\n        self.held.register(context.waker());"),
     "hold::a_held_task_is_woken_when_each_hold_has_ended"),
    (("duty: called without a fence", [(DUTY, r"// SeqCst: pairs with the fence in `after_laying_down`\.\s*fence\(Ordering::SeqCst\);", lambda _: "")]),
     "duty::work_left_while_the_duty_is_laid_down_is_done"),
    (("duty: laid down without a fence", [(DUTY, r"// SeqCst: pairs with the fence in `call`\.\s*fence\(Ordering::SeqCst\);", lambda _: "")]),
     "duty::work_left_while_the_duty_is_laid_down_is_done"),
    (replaced(DUTY, "duty: no second look", "let next = self.next_with_work(member)?;", "let next = None?;"),
     "duty::work_left_while_the_duty_is_laid_down_is_done"),
    (replaced(DUTY, "duty: taken, and no second look", "let next = self.next_with_work(member)?;", "let next = None?;"),
     "duty::work_left_while_a_caller_does_its_own_is_done"),
    (replaced(DUTY, "duty: taken and kept", "Some(next) if self.replace(word, held(next, here)) => next,", "Some(_) => return,"),
     "duty::who_takes_the_duty_for_a_sleeper_passes_it_on"),
    (replaced(DUTY, "duty: taken and given without a word", "    pub fn give(&self, member: usize, here: u64) {\n        self.wake_on_duty(member, here);", "    pub fn give(&self, member: usize, here: u64) {"),
     "duty::who_gives_a_duty_that_it_took_has_the_member_woken"),
    (replaced(DUTY, "duty: kept", "Some(next) if self.replace(word, held(next, here)) => next,", "Some(_) => return,"),
     "duty::the_duty_is_passed_on_to_whoever_has_work"),
    (replaced(DUTY, "duty: passed on without a word", "            self.wake_on_duty(next, here);\n", ""),
     "duty::the_duty_is_passed_on_to_whoever_has_work"),
    (replaced(DUTY, "duty: left without passing on", "        self.rest(member, here);\n    }\n\n    /// Wakes", "    }\n\n    /// Wakes"),
     "duty::who_is_gone_keeps_nobody_from_work"),
    (replaced(DUTY, "duty: given without a look who is gone", "        if self.is_gone_after_all(member) {\n            self.rest(member, here);\n        }\n", ""),
     "duty::who_is_gone_keeps_nobody_from_work"),
    (("duty: left without a fence", [(DUTY, r"// SeqCst: pairs with the fence in `is_gone_after_all`\.\s*fence\(Ordering::SeqCst\);", lambda _: "")]),
     "duty::who_is_gone_keeps_nobody_from_work"),
    (("duty: given without a fence", [(DUTY, r"// SeqCst: pairs with the fence in `leave`\.\s*fence\(Ordering::SeqCst\);", lambda _: "")]),
     "duty::who_is_gone_keeps_nobody_from_work"),
    # The stream.
    (replaced(SUBSCRIBER, "poll: no second look", "self.try_next(stream).map_or(Poll::Pending, Poll::Ready)", "Poll::Pending"),
     "stream::a_frame_published_while_registering_is_delivered_once"),
    (("publish: woken before the frame is there", [(STREAM, r"(let position = self\.ring\.publish\(.*?;)\s*(self\.waiters\.wake\(\);)", lambda m: m[2] + "\n" + m[1])]),
     "stream::a_frame_published_while_registering_is_delivered_once"),
    (("lease: claim does not check the generation", [(LEASE, r"\(terms\.generation\(\) == generation\)\.then\(", lambda _: "(terms.generation() == generation || true).then(")]),
     "stream::a_frame_goes_to_one_connection_when_another_takes_over"),
    (replaced(SUBSCRIBER, "frames: handed out without the claim", "Step::Item(frames) if self.claim(stream, self.cursor.position() - 1) =>",
              "Step::Item(frames) if self.claim(stream, self.cursor.position() - 1) || true =>"),
     "stream::a_frame_goes_to_one_connection_when_another_takes_over"),
    (replaced(SUBSCRIBER, "lag: told without the claim", "if !self.claim(stream, oldest - 1) {", "self.claim(stream, oldest - 1);\n                if false {"),
     "stream::a_gap_is_told_to_one_connection_when_another_takes_over"),
    (("lease: release does not check the generation", [(LEASE, r"\(terms\.generation\(\) == generation && terms\.is_attached\(\)\)", lambda _: "(terms.is_attached() || generation == 0)")]),
     "stream::an_old_connection_that_detaches_does_not_detach_the_new_one"),
    (relaxed(LEASE, "lease: changed without Release", "compare_exchange_weak(terms.0, changed.0, ", "Acquire"), "stream::a_connection_that_is_hung_up_gets_what_was_published_first"),
    (relaxed(LEASE, "lease: changed without Acquire", "compare_exchange_weak(terms.0, changed.0, ", "Release"), "stream::a_frame_goes_to_one_connection_when_another_takes_over"),
    (relaxed(LEASE, "lease: read without Acquire", "Terms(self.0.load("), "stream::a_connection_that_is_hung_up_gets_what_was_published_first"),
    (("hang-up: looked for after the frames", [(SUBSCRIBER, r"Step::Empty if terms\.is_hung_up\(\)", lambda _: "Step::Empty if stream.lease.terms().is_hung_up()")]),
     "stream::a_connection_that_is_hung_up_gets_what_was_published_first"),
    (("hang-up: wakes nobody", [(STREAM, r"(let asked = .*?;)\s*self\.waiters\.wake\(\);", lambda m: m[1])]),
     "stream::a_connection_that_is_hung_up_gets_what_was_published_first"),
    (("attach: wakes nobody", [(STREAM, r"(let terms = self\.lease\.attach\([^;]*;)\s*self\.waiters\.wake\(\);", lambda m: m[1])]),
     "stream::a_sleeping_connection_ends_when_another_takes_over"),
    (("attach: keeps the hang-up", [
        (LEASE, r"let marks = (.*?);", lambda m: f"let marks = ({m[1]}) | self.0 & HANG_UP;"),
        (LEASE, r"!\(ATTACHED \| AWAITED \| HANG_UP\)", lambda _: "!(ATTACHED | AWAITED)")]),
     "stream::a_hang_up_does_not_outlive_its_connection"),
    (("last: wakes nobody", [(STREAM, r"(let position = self\.ring\.publish_last\([^;]*;)\s*self\.waiters\.wake\(\);", lambda m: m[1])]),
     "stream::a_sleeping_subscriber_gets_each_frame_of_a_burst_once"),
    (("close: wakes nobody", [(STREAM, r"(let closed = .*?;)\s*self\.waiters\.wake\(\);", lambda m: m[1])]),
     "stream::a_sleeping_subscriber_ends_when_the_stream_is_closed"),
    (("start: no second look", [(SUBSCRIBER, r"if stream\.is_untouched\(\) \{ Poll::Pending \} else \{ Poll::Ready\(\(\)\) \}", lambda _: "Poll::Pending")]),
     "stream::a_connection_that_waits_for_the_start_sees_the_first_frame_or_the_end"),
    (replaced(STREAM, "space: waited for whoever is connected", "!terms.is_awaited() ||", "!terms.is_attached() ||"),
     "stream::a_publisher_does_not_wait_for_a_reader_of_another_policy"),
    (replaced(STREAM, "space: waited for nobody", "policy == LagPolicy::Wait);", "false && policy == LagPolicy::Wait);"),
     "stream::a_publisher_that_waits_for_room_is_woken_by_the_reader"),
    (("attach: keeps AWAITED", [(LEASE, r"let marks = (.*?);", lambda m: f"let marks = ({m[1]}) | self.0 & AWAITED;")]),
     "stream::a_publisher_that_waits_goes_on_when_a_reader_of_another_policy_takes_over"),
    (replaced(LEASE, "release: keeps AWAITED", "!(ATTACHED | AWAITED | HANG_UP)", "!(ATTACHED | HANG_UP)"),
     "stream::a_publisher_does_not_wait_for_a_reader_that_detached"),
    (replaced(SUBSCRIBER, "space: a lag wakes nobody", "if !self.claim(stream, oldest - 1) {", "if !stream.lease.claim(self.generation, oldest - 1) {"),
     "stream::a_publisher_does_not_wait_for_what_was_evicted"),
    (("space: no second look", [(STREAM, r"if self\.has_room\(capacity\) \{ Poll::Ready\(\(\)\) \} else \{ Poll::Pending \}", lambda _: "Poll::Pending")]),
     "stream::a_publisher_that_waits_for_room_is_woken_by_the_reader"),
    (("space: a claim wakes nobody", [(SUBSCRIBER, r"(// Publishers may be waiting for this space\.\s*)stream\.waiters\.wake\(\);", lambda m: m[1])]),
     "stream::a_publisher_that_waits_for_room_is_woken_by_the_reader"),
    (("space: a detach wakes nobody", [(SUBSCRIBER, r"(wait no longer for a reader that is gone\.[^}]*?)stream\.waiters\.wake\(\);", lambda m: m[1])]),
     "stream::a_publisher_does_not_wait_for_a_reader_that_detached"),
    # The topic.
    (replaced(SUBSCRIPTION, "topic: no second look", "self.try_next().map_or(Poll::Pending, Poll::Ready)", "Poll::Pending"),
     "topic::a_subscriber_is_woken_when_publish_races_wait"),
    (("topic: woken before the event is there", [(TOPIC, r"(let position = self\.ring\.publish\([^;]*;)\s*(self\.waiters\.wake\(\);)", lambda m: m[2] + "\n" + m[1])]),
     "topic::a_subscriber_is_woken_when_publish_races_wait"),
    # The standalone stream.
    (replaced(LEASE, "standalone: adopt reads, then writes", "self.update(|terms| Some(terms.adopted_by(generation))).unwrap_or_else(|terms| terms)",
              "let terms = self.terms().adopted_by(generation);\n        self.0.store(terms.0, Ordering::Release);\n        terms"),
     "standalone::a_broadcast_that_races_attach_goes_to_one_connection"),
    (replaced(ATTACH, "standalone: the topic stays with the old holder", "self.broadcasts.adopt(generation).delivered()", "self.broadcasts.terms().delivered()"),
     "standalone::a_broadcast_that_races_attach_goes_to_one_connection"),
    (replaced(LISTENER, "standalone: broadcasts delivered without the claim", "self.claim(standalone, Log::Broadcast, cursor.position() - 1)?;",
              "drop(self.claim(standalone, Log::Broadcast, cursor.position() - 1));"),
     "standalone::a_broadcast_that_races_attach_goes_to_one_connection"),
    (replaced(ATTACH, "standalone: detach wakes nobody", "Detached { was_last: false, wakes: true }", "Detached { was_last: false, wakes: false }"),
     "standalone::one_that_stands_by_is_woken_when_the_holder_ends"),
    (replaced(LISTENER, "standalone: the topic is not watched", "watch.register(context.waker());", "let _ = watch;"),
     "standalone::one_that_stands_by_is_woken_when_the_holder_ends"),
    (replaced(LISTENER, "standalone: no second look", "self.try_next(standalone, topic, lines).map_or(Poll::Pending, Poll::Ready)", "Poll::Pending"),
     "standalone::one_that_stands_by_is_woken_when_the_holder_ends"),
    (replaced(LISTENER, "standalone: goes on at its old cursor", "self.cursor = Cursor::at(terms.delivered() + 1);", ""),
     "standalone::what_the_holder_leaves_goes_to_the_one_that_stands_by_once"),
]


# Weakenings that no model catches, and why. One that is caught after all is an error too: move it up.
NOT_CAUGHT = {
    "slot: lost race without Acquire": "who loses looks at the mark only; an evictor reads the slots again before the age",
    "link: moved on without Acquire": "what it would order, the fence of the epoch's pin orders too",
    "evicted: set without Release": "what it would order, the fence of the epoch's pin orders too",
    "evicted: read without Acquire": "what it would order, the fence of the epoch's pin orders too",
    "drop: who holds a chunk is read without Acquire": "giving the count of the chunk before up orders the same",
    "evicted: set after the ring moved on": "the evictor stays pinned until the mark is set, so the successor is not freed before",
    "register: marked without Release": "the waker's own word orders the same (in loom it is a lock)",
    "register: marked without Acquire": "the waker's own word orders the same (in loom it is a lock)",
    "wake: mark reset without Release": "the waker's own word orders the same (in loom it is a lock)",
    "wake: mark reset without Acquire": "the waker's own word orders the same (in loom it is a lock)",
    "register: waker left after the mark": "the waker's own word orders the same (in loom it is a lock)",
    "lease: changed without Acquire": "a change uses the word alone",
}


def main():
    words = sys.argv[1:]
    chosen = [w for w in WEAKENINGS if not words or any(word in w[0][0] for word in words)]
    with tempfile.TemporaryDirectory(prefix="weaken-") as scratch:
        tree = pathlib.Path(scratch) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns("target", ".git"))
        environment = os.environ | {
            "RUSTFLAGS": "--cfg ringmain_loom --cfg crossbeam_loom",
            "CARGO_TARGET_DIR": os.environ.get("CARGO_TARGET_DIR", str(pathlib.Path(scratch) / "target")),
            "CARGO_PROFILE_RELEASE_LTO": "off",
            "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16",
            "RUST_BACKTRACE": "0",
        }
        caught = {name: try_one(tree, environment, name, edits, model) for (name, edits), model in chosen}
    unexpected = [name for name, was in caught.items() if was == (name in NOT_CAUGHT)]
    print(f"{sum(caught.values())} of {len(caught)} caught; not as expected: {', '.join(unexpected) or 'none'}")
    sys.exit(1 if unexpected else 0)


def try_one(tree, environment, name, edits, model):
    """Whether the model fails with the edits made. Puts the files back."""
    before = {}
    for file, pattern, new in edits:
        path = tree / "src" / file
        text = path.read_text()
        before.setdefault(path, text)
        text, count = re.subn(pattern, new, text, count=1, flags=re.DOTALL)
        if count != 1:
            sys.exit(f"{name}: nothing in {file} matches {pattern}")
        path.write_text(text)
    cargo = ["cargo", "test", "--release", "--quiet", "-p", "loom-tests", "--test"]
    test, model = model.split("::")
    build = subprocess.run([*cargo, test, "--no-run"], cwd=tree, env=environment, capture_output=True, text=True)
    if build.returncode != 0:
        sys.exit(f"{name}: does not compile\n{build.stderr}")
    run = [*cargo, test, "--", "--exact", model, "--nocapture", "--include-ignored"]
    result = subprocess.run(run, cwd=tree, env=environment, capture_output=True, text=True)
    for path, text in before.items():
        path.write_text(text)
    output = result.stdout + result.stderr
    if "running 1 test" not in output:
        sys.exit(f"{name}: there is no model {model}")
    message = re.search(r"panicked at [^\n]*\n([^\n]*)", output)
    message = message[1].strip()[:100] if message else f"exit status {result.returncode}"
    print(f"| {name} | `{model}` | {message if result.returncode else 'not caught: ' + NOT_CAUGHT.get(name, '?')} |", flush=True)
    return result.returncode != 0


if __name__ == "__main__":
    main()
