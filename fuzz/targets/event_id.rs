//! Event IDs: what is accepted is what would be written, and what is written is accepted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmain::internals::sse::{EventId, Log, Place, StreamName};
use ringmain::protocol::SessionId;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = str::from_utf8(data) {
        if let Ok(id) = text.parse::<EventId>() {
            assert_eq!(id.to_string(), text);
        }
    }
    if let Some(id) = SessionId::parse(data) {
        assert_eq!(id.to_string().as_bytes(), data);
        assert_eq!(id.encode(), data);
    }
    // The same bytes as the parts of an ID.
    let mut bytes = [0; 21];
    let count = data.len().min(bytes.len());
    bytes[..count].copy_from_slice(&data[..count]);
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let position = u64::from(word(8)) << 32 | u64::from(word(12));
    let name = StreamName { tag: word(0), stream: word(4).max(1) };
    let event = EventId::event(name, position);
    assert_eq!(event.to_string().parse(), Ok(event));
    let priming = EventId::priming(name, position, word(16));
    assert_eq!(priming.to_string().parse(), Ok(priming));
    assert_ne!(priming.to_string(), event.to_string());
    let kind = if word(16) % 2 == 0 { Log::Own } else { Log::Broadcast };
    let (own, broadcast) = (position >> 16, u64::from(word(12)) << 8);
    let place = Place::Standalone { lineage: word(4), own, broadcast, kind };
    let standalone = EventId { tag: word(0), place, generation: None };
    assert_eq!(standalone.to_string().parse(), Ok(standalone));
    assert_ne!(standalone.to_string(), event.to_string());
});
