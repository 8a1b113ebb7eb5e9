//! Connecting a client to the streams of its session.

use super::connection::Connection;
use super::settings::Settings;
use super::standalone::{NeverGiven, Positions, Resume};
use super::state::Session;
use crate::protocol::{ProtocolVersion, Refusal};
use crate::request::RequestStream;
use crate::ring::Position;
use crate::sse::{EventId, Place};
use crate::sync::{Arc, lock};

impl Session {
    /// Connects the client to a stream: the one that `last_event_id` names, behind that event; or else the
    /// standalone stream, in a lineage of its own, behind what was delivered.
    ///
    /// # Errors
    ///
    /// The event ID is of another session, of a stream that is gone, or was never given out.
    #[doc(hidden)]
    pub fn connect(self: &Arc<Self>, last_event_id: Option<EventId>) -> Result<Connection, Refusal> {
        let Some(id) = last_event_id else { return self.listen(None) };
        if id.tag != self.tag {
            return Err(Refusal::ForeignEventId);
        }
        let connection = match id.place {
            Place::Standalone { lineage, own, broadcast, .. } => {
                self.listen(Some(Resume { lineage, after: Positions { own, broadcast } }))?
            }
            Place::Request { stream, position } => self.resume_request(stream, position)?,
        };
        self.shared.counters.count_resumed();
        Ok(connection)
    }

    fn listen(self: &Arc<Self>, resume: Option<Resume>) -> Result<Connection, Refusal> {
        // What was published before the session began is none of its events.
        if resume.is_some_and(|resume| resume.after.broadcast + 1 < self.first_broadcast.get()) {
            return Err(Refusal::FutureEventId);
        }
        let version = self.version().unwrap_or(ProtocolVersion::ASSUMED);
        let Settings { lag, max_listeners, .. } = *self.settings();
        let attached = self.standalone.attach(&**self, resume, lag, max_listeners);
        let (listener, is_first) = attached.map_err(|NeverGiven| Refusal::FutureEventId)?;
        if is_first {
            self.shared.count_listening(1);
        }
        let connection = Connection::standalone(self.clone(), listener, version);
        // Not before there is a connection, whose end detaches it: a waker may panic.
        self.standalone.wake();
        Ok(connection)
    }

    fn resume_request(self: &Arc<Self>, stream: u32, position: Position) -> Result<Connection, Refusal> {
        let mut open = lock(&self.open);
        if stream > open.streams_opened {
            return Err(Refusal::FutureEventId);
        }
        let request = open.find(stream).cloned().ok_or(Refusal::UnknownStream)?;
        if position >= request.own_stream().tail() {
            return Err(Refusal::FutureEventId);
        }
        if let Some(extras) = &mut open.extras {
            // Its response is not let go while the client is here. The end of the connection lists it again.
            extras.responses.unlist(stream);
        }
        // Before the connection takes the stream over, which wakes the one that had it.
        drop(open);
        Ok(Connection::request(self.clone(), request, Some(position)))
    }

    /// Connects the client to the stream of the request it just sent.
    #[must_use]
    #[doc(hidden)]
    pub fn connect_request(self: &Arc<Self>, request: Arc<RequestStream>) -> Connection {
        Connection::request(self.clone(), request, None)
    }
}
