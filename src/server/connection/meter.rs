//! Limits the HTTP/2 control frames of a client: those that carry neither a request nor its body.
//!
//! A frame of nine bytes that makes the server work (PING, SETTINGS, RST_STREAM right after a
//! request, WINDOW_UPDATE, an empty DATA, an endless CONTINUATION) costs its sender next to nothing. So
//! each is charged: to what the client was sent, because an honest client sends a window update or two for each DATA
//! frame; or else to an allowance that grows with time. A client that exceeds both is disconnected.
//!
//! h2 has limits of its own for pending streams that are reset, for streams that it had to reset itself,
//! for small DATA frames, and for CONTINUATION. This meter limits the rest, and the sum.

use crate::server::metrics::connections::CloseReason;
use crate::stream::{Clock, Moment};

/// The preface before the first frame.
const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
/// Bytes sent to the client that explain one of its control frames.
const SENT_BYTES: u64 = 64;
/// The allowance grows for at most this many seconds.
const SECONDS: u64 = 10;

const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// Follows the frames of one connection by their heads.
#[derive(Debug)]
pub(super) struct Meter {
    /// Bytes until the next frame's head.
    skip: usize,
    head: [u8; HEAD_BYTES],
    filled: usize,
    /// Frames a second.
    rate: u64,
    /// The allowance, in thousandths of a frame.
    allowance: u64,
    /// Bytes sent that were not charged yet.
    sent: u64,
    last: Moment,
    clock: Clock,
}

impl Meter {
    /// Allows `rate` frames a second by `clock`.
    pub(super) fn new(rate: u32, clock: Clock) -> Self {
        let rate = u64::from(rate);
        Self {
            skip: PREFACE_BYTES,
            head: [0; HEAD_BYTES],
            filled: 0,
            rate,
            allowance: rate * 1000 * SECONDS,
            sent: 0,
            last: clock.now(),
            clock,
        }
    }

    /// Notes that `count` bytes were sent to the client.
    pub(super) fn sent(&mut self, count: usize) {
        self.sent = self.sent.saturating_add(count as u64);
    }

    /// Reads what the client sent.
    ///
    /// # Errors
    ///
    /// The client exceeds its allowance.
    pub(super) fn received(&mut self, mut bytes: &[u8]) -> Result<(), CloseReason> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let count = (HEAD_BYTES - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
            if self.filled == HEAD_BYTES {
                self.filled = 0;
                let [a, b, c, kind, ..] = self.head;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                if !(kind == HEADERS || kind == DATA && self.skip > 0) {
                    self.pay()?;
                }
            }
        }
        Ok(())
    }

    fn pay(&mut self) -> Result<(), CloseReason> {
        if self.sent >= SENT_BYTES {
            self.sent -= SENT_BYTES;
            return Ok(());
        }
        if self.allowance < 1000 {
            let now = self.clock.now();
            self.allowance += now.since(self.last).min(SECONDS * 1000) * self.rate;
            self.last = now;
        }
        self.allowance = self.allowance.checked_sub(1000).ok_or(CloseReason::Flood)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], &vec![0xff; payload]].concat()
    }

    fn meter(rate: u32) -> (Meter, Clock) {
        let clock = Clock::default();
        let mut meter = Meter::new(rate, clock.clone());
        meter.received(&[b'P'; PREFACE_BYTES]).unwrap();
        (meter, clock)
    }

    #[test]
    fn a_flood_is_noticed_wherever_it_is_cut() {
        for piece in [1, 7, 9, 17, 1000] {
            let (mut meter, _) = meter(10);
            let flood = frame(6, 8).repeat(101);
            let (last, before) = (flood.len() - 17, &flood[..flood.len() - 17]);
            assert!(before.chunks(piece).all(|bytes| meter.received(bytes).is_ok()), "100 may come at once");
            assert_eq!(meter.received(&flood[last..]), Err(CloseReason::Flood));
        }
    }

    #[test]
    fn requests_and_their_bodies_are_free_and_the_rest_is_paid_for() {
        let (mut meter, clock) = meter(1);
        for _ in 0..1000 {
            meter.received(&frame(HEADERS, 30)).unwrap();
            meter.received(&frame(DATA, 100)).unwrap();
        }
        meter.sent(100 * 64);
        assert!((0..110).all(|_| meter.received(&frame(8, 4)).is_ok()), "100 by what was sent, 10 by time");
        assert!(meter.received(&frame(DATA, 0)).is_err());
        clock.advance(Moment(3000));
        assert!((0..3).all(|_| meter.received(&frame(3, 4)).is_ok()));
        assert!(meter.received(&frame(3, 4)).is_err());
    }
}
