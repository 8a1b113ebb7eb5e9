//! Internals that the benchmarks, fuzz targets, models and tests of this repository use.
//!
//! Not part of the API: anything here changes in any version, without notice.

#![allow(missing_docs, reason = "each item is documented where it is defined")]

pub mod ring {
    pub use crate::ring::{Batch, Closed, Cursor, Entry, FIRST, Limits, Position, Ref, Ring, Step, collect};
}

pub mod wake {
    pub use crate::wake::{Bell, Waiter, Waiters};

    pub mod duty {
        pub use crate::wake::duty::{Duty, Work};
    }

    pub mod hold {
        pub use crate::wake::hold::{Ended, Hold, Holds};
    }
}

pub mod sse {
    pub use crate::sse::{
        EventHead, EventId, Events, EventsBuf, Frame, Log, MalformedEventId, Place, Series, StreamName,
        retained_bytes,
    };
}

pub mod stream {
    pub use crate::stream::{
        Clock, Delivery, GENERATIONS, Generation, LagPolicy, Moment, Stream, Subscriber, Terms,
    };
}

pub mod sync {
    pub use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering, epoch, lock};
}

pub mod protocol {
    pub use crate::protocol::batch::MAX_BATCH;
    pub use crate::protocol::message::{
        Message, Outcome, RequestMessage, negotiated_version, progress_token,
    };
    pub use crate::protocol::origin::{check_host, check_origin};
    pub use crate::protocol::proxy::{MalformedProxyHeader, ProxyHeader};
    pub use crate::protocol::refusal::{EnvelopeFault, Refusal};
    pub use crate::protocol::write::{
        write_error, write_notification, write_request, write_result, write_single_line,
    };

    pub mod headers {
        pub use crate::protocol::headers::{
            LAST_EVENT_ID, MCP_PROTOCOL_VERSION, MCP_SESSION_ID, check_accept_get, check_accept_post,
            check_content_type, last_event_id, protocol_version, session_id,
        };
    }
}

pub mod request {
    pub use crate::request::{BatchStream, Environment, RequestStream};
}

pub mod session {
    pub use crate::session::admission::Creator;
    pub use crate::session::connection::Connection;
    pub use crate::session::life::End;
    #[cfg(ringmain_loom)]
    pub use crate::session::life::{Life, Seen};
    pub use crate::session::piece::{Piece, PieceBuf};
    pub use crate::session::principal::{Holder, Principals};
    pub use crate::session::standalone::{
        Detached, Heard, Lines, Listener, LockLines, NeverGiven, Positions, Resume, Standalone,
    };
    pub use crate::session::sweep::Swept;
}

pub mod handler {
    pub use crate::handler::message::Incoming;
}
