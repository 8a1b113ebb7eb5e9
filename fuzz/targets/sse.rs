//! Events from a session to the wire, read by somebody else's parser: the same events, in order, each once.
//!
//! The input is a list of steps: publish a text, publish it for all, read some, break off and resume, let the ring
//! run over.
#![no_main]

use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use futures_util::{FutureExt, StreamExt, stream};
use libfuzzer_sys::fuzz_target;
use ringmain::internals::protocol::write_single_line;
use ringmain::internals::session::Connection;
use ringmain::internals::sse::{EventId, Log, Place};
use ringmain::internals::stream::Clock;
use ringmain::protocol::ProtocolVersion;
use ringmain::session::{Sessions, Settings};
use sse_stream::SseStream;

const CAPACITY: usize = 16;

/// What stands on the wire for what a client of this connection is given next, both ways in which it is written.
fn take(connection: &mut Connection, most: usize, wire: &mut Vec<u8>) {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..most {
        let Poll::Ready(Some(piece)) = connection.poll_next(&mut context) else { return };
        let (mut copied, length) = (Vec::new(), piece.wire_len());
        piece.append_to(&mut copied);
        let mut buffer = piece.into_buf();
        assert_eq!((copied.len(), buffer.remaining()), (length, length));
        let mut advanced = Vec::new();
        while buffer.has_remaining() {
            // In uneven steps, as a socket takes it.
            let chunk = buffer.chunk();
            let count = chunk.len().min(1 + advanced.len() % 7 * 5);
            advanced.extend_from_slice(&chunk[..count]);
            buffer.advance(count);
        }
        assert_eq!(copied, advanced);
        wire.extend(copied);
    }
}

/// One event as a client sees it.
struct Seen {
    id: Option<String>,
    data: Option<String>,
}

/// Reads the wire with a parser that is not ours, in pieces of this many bytes.
fn read(wire: &[u8], piece: usize) -> Vec<Seen> {
    let pieces =
        wire.chunks(piece.max(1)).map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece)));
    let pieces: Vec<_> = pieces.collect();
    let events = SseStream::from_bytes_stream(stream::iter(pieces)).collect::<Vec<_>>();
    let events = events.now_or_never().expect("everything is there");
    events
        .into_iter()
        .map(|event| event.expect("an event"))
        .map(|event| Seen { id: event.id, data: event.data })
        .collect()
}

fuzz_target!(|data: &[u8]| {
    let mut settings = Settings::default();
    settings.standalone.capacity = CAPACITY;
    settings.broadcast.capacity = CAPACITY;
    let sessions = Sessions::new(settings, Clock::default());
    let session = sessions.create(None);
    session.agree(ProtocolVersion::LATEST);
    let mut connection = session.connect(None).expect("a connection");
    // The session's own events, and those for all.
    let mut published: [Vec<Vec<u8>>; 2] = Default::default();
    // The positions before which the client has everything, or was told that it is gone.
    let (mut reached, mut missed) = ([0; 2], 0);
    let mut wire = Vec::new();

    let mut settle = |wire: &mut Vec<u8>, published: &[Vec<Vec<u8>>; 2], piece: usize| -> Option<EventId> {
        let mut last = None;
        for Seen { id, data } in read(wire, piece) {
            let Some(id) = id else { continue };
            let parsed = id.parse::<EventId>().expect("an id of ours");
            let Place::Standalone { own, broadcast, kind, .. } = parsed.place else { panic!("{id}") };
            last = Some(parsed);
            let at = [own as usize, broadcast as usize];
            if parsed.generation.is_some() {
                assert_eq!(at, reached, "priming says where the client stands");
                continue;
            }
            let log = if kind == Log::Own { 0 } else { 1 };
            let (position, data) = (at[log], data.unwrap_or_default());
            assert_eq!(
                at[1 - log],
                reached[1 - log],
                "an event of one log says how far the client is in the other"
            );
            if data.contains("\"event\":\"lagged\"") && published[log][position - 1] != data.as_bytes() {
                let skipped: usize = data.rsplit(':').next().unwrap().trim_end_matches('}').parse().unwrap();
                assert_eq!(position, reached[log] + skipped, "a gap is told for what it is");
                missed += skipped;
            } else {
                assert_eq!(position, reached[log] + 1, "in order, each once");
                assert_eq!(data.as_bytes(), published[log][position - 1], "as it was published");
            }
            reached[log] = position;
        }
        wire.clear();
        last
    };

    let mut last = None;
    for step in data.split(|byte| *byte == 0xff).take(200) {
        let Some((first, rest)) = step.split_first() else { continue };
        match first % 8 {
            0..=2 => {
                let Ok(text) = str::from_utf8(rest) else { continue };
                let write = |out: &mut Vec<u8>| write_single_line(out, text);
                let log = if first % 8 == 0 {
                    assert!(sessions.publish(write).is_ok(), "it is small");
                    1
                } else {
                    session.publish(write).unwrap();
                    0
                };
                published[log].push(text.replace(['\n', '\r'], " ").into_bytes());
            }
            3 => {
                for _ in 0..usize::from(rest.first().copied().unwrap_or(20)) % 40 {
                    session.publish(|out| out.extend_from_slice(b"{}")).unwrap();
                    published[0].push(b"{}".to_vec());
                }
            }
            4 | 5 => take(&mut connection, 1 + rest.len(), &mut wire),
            // It reads what came, goes, and comes back behind the last that it saw.
            _ => {
                last = settle(&mut wire, &published, 1 + rest.len()).or(last);
                drop(connection);
                connection = session.connect(last).expect("it may come back");
            }
        }
    }
    take(&mut connection, usize::MAX, &mut wire);
    settle(&mut wire, &published, 1 + data.len() % 11);
    assert_eq!(reached, [0, 1].map(|log: usize| published[log].len()), "everything came, or was told of");
    assert!(
        missed == 0 || published.iter().any(|log| log.len() > CAPACITY),
        "nothing is missed before the ring is full"
    );
});
