//! Counting the events of a stream, and looking for gaps and doubles.

use std::time::Instant;

use hdrhistogram::Histogram;
use memchr::memchr;

use crate::wire;

/// What arrived over many streams.
#[derive(Debug)]
pub struct Tally {
    /// Events with data.
    pub events: u64,
    /// Events that a later position shows to be missing.
    pub missing: u64,
    /// Events at a position that was there already.
    pub doubled: u64,
    /// Times a socket gave something.
    pub reads: u64,
    /// Nanoseconds from publication to reading, if they are wanted.
    pub latencies: Option<Histogram<u64>>,
    /// The moment that messages count their time from.
    pub epoch: Instant,
}

impl Default for Tally {
    fn default() -> Self {
        Self { events: 0, missing: 0, doubled: 0, reads: 0, latencies: None, epoch: Instant::now() }
    }
}

/// One stream of events.
#[derive(Debug, Default)]
pub struct Reader {
    /// A line whose end has not come yet.
    carry: Vec<u8>,
    /// The ID of the latest event, as the server wrote it.
    pub last_id: String,
    /// The position in it, and whether there was one.
    position: Option<u64>,
    /// What the event that is being read has so far.
    current: Current,
}

#[derive(Debug, Default)]
struct Current {
    position: Option<u64>,
    is_priming: bool,
    has_data: bool,
}

impl Reader {
    /// Takes a part of the stream.
    pub fn feed(&mut self, mut bytes: &[u8], tally: &mut Tally) {
        while let Some(end) = memchr(b'\n', bytes) {
            if self.carry.is_empty() {
                self.line(&bytes[..end], tally);
            } else {
                let mut line = std::mem::take(&mut self.carry);
                line.extend_from_slice(&bytes[..end]);
                self.line(&line, tally);
            }
            bytes = &bytes[end + 1..];
        }
        self.carry.extend_from_slice(bytes);
    }

    /// Forgets what was cut off; the next connection goes on behind the latest event.
    pub fn reconnect(&mut self) {
        self.carry = Vec::new();
        self.current = Current::default();
    }

    fn line(&mut self, line: &[u8], tally: &mut Tally) {
        if line.is_empty() {
            let current = std::mem::take(&mut self.current);
            self.end_of_event(&current, tally);
        } else if let Some(data) = line.strip_prefix(b"data: {") {
            self.current.has_data = true;
            if let (Some(latencies), Some(published)) =
                (&mut tally.latencies, wire::published(&line[line.len() - data.len() - 1..]))
            {
                let now = tally.epoch.elapsed().as_nanos() as u64;
                latencies.saturating_record(now.saturating_sub(published));
            }
        } else if let Some(id) = line.strip_prefix(b"id: ") {
            self.id(id);
        }
    }

    fn id(&mut self, id: &[u8]) {
        self.last_id.clear();
        self.last_id.push_str(str::from_utf8(id).unwrap_or_default());
        // tag-stream-position, and the generation behind it if the event only primes.
        self.current.is_priming = self.last_id.split('-').nth(3).is_some();
        self.current.position = wire::position(&self.last_id);
    }

    fn end_of_event(&mut self, current: &Current, tally: &mut Tally) {
        if !current.has_data {
            if current.is_priming && self.position.is_none() {
                self.position = current.position;
            }
            return;
        }
        tally.events += 1;
        let Some(position) = current.position else { return };
        match self.position {
            Some(last) if position <= last => tally.doubled += 1,
            last => {
                tally.missing += last.map_or(0, |last| position - last - 1);
                self.position = Some(position);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(positions: &[u64], cut: usize) -> Tally {
        let text: Vec<u8> =
            positions.iter().flat_map(|&position| wire::event(position, &wire::message(0))).collect();
        let (mut reader, mut tally) = (Reader::default(), Tally::default());
        for part in text.chunks(cut) {
            reader.feed(part, &mut tally);
        }
        tally
    }

    #[test]
    fn gaps_and_doubles_are_seen_however_the_stream_is_cut() {
        for cut in [1, 7, 100, 5000] {
            let tally = read(&[3, 4, 5, 5, 8], cut);
            assert_eq!((tally.events, tally.missing, tally.doubled), (5, 2, 1), "{cut}");
        }
    }

    #[test]
    fn a_stream_of_two_logs_is_one_sequence() {
        let (mut reader, mut tally) = (Reader::default(), Tally::default());
        for id in ["00000001-0.1-000000000001.0", "00000001-0.1-1:000000000001"] {
            reader.feed(format!("id: {id}\ndata: {{}}\n\n").as_bytes(), &mut tally);
        }
        assert_eq!((tally.events, tally.missing, tally.doubled), (2, 0, 0));
        reader.feed(b"id: 00000001-0.1-000000000003.1\ndata: {}\n\n", &mut tally);
        assert_eq!((tally.missing, tally.doubled), (1, 0));
    }

    #[test]
    fn priming_counts_as_no_event_but_says_where_the_stream_is() {
        let (mut reader, mut tally) = (Reader::default(), Tally::default());
        reader.feed(b"id: 00000000-0-0000000000000002-1\nretry: 1\ndata: \n\n: keep-alive\n\n", &mut tally);
        assert_eq!(tally.events, 0);
        reader.feed(&wire::event(4, "{}"), &mut tally);
        assert_eq!((tally.events, tally.missing), (1, 1));
    }
}
