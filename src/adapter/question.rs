//! Questions of a service to its client that have no answer yet.
//!
//! Each loop of a service counts its questions from 0, and so it does their progress tokens. The client knows them by
//! IDs of the session, which are never used twice, and what it says of them is put into the loop's words again.

use std::collections::HashMap;
use std::time::Duration;

use rmcp::model::{NumberOrString, ProgressToken};
use serde::Serialize;
use serde_json::value::to_raw_value;
use tokio::time::Instant;

use crate::protocol::{self, RequestId};
use crate::request::{PublishError, RequestStream};
use crate::session::Session;
use crate::sync::Arc;

/// A question of the loop's to the client.
#[derive(Debug)]
pub(super) struct Question {
    /// What the loop calls it.
    pub(super) id: NumberOrString,
    /// Under which token the loop wants to hear of progress.
    pub(super) token: Option<ProgressToken>,
    /// The request that it was asked for; `None`: it was asked on the standalone stream.
    pub(super) on: Option<Arc<RequestStream>>,
    /// When it was asked, or the client last said that it works on it.
    pub(super) since: Instant,
}

/// The questions of one loop, by the IDs that the client knows.
#[derive(Debug, Default)]
pub(super) struct Questions {
    open: HashMap<i64, Question>,
    /// The last of these IDs; no later question has a lower one.
    last: i64,
}

impl Questions {
    pub(super) fn insert(&mut self, id: i64, question: Question) {
        self.last = id;
        self.open.insert(id, question);
    }

    pub(super) fn remove(&mut self, id: i64) -> Option<Question> {
        self.open.remove(&id)
    }

    /// Takes the question that an answer is for. Some clients make text of a number.
    pub(super) fn take(&mut self, id: &RequestId) -> Option<(i64, Question)> {
        let id = match id {
            RequestId::Number(number) => *number,
            RequestId::String(text) => text.parse().ok()?,
        };
        self.open.remove_entry(&id)
    }

    /// Takes the question that the loop calls so.
    pub(super) fn take_by_loop_id(&mut self, id: &NumberOrString) -> Option<(i64, Question)> {
        let id = *self.open.iter().find(|(_, question)| question.id == *id)?.0;
        self.open.remove_entry(&id)
    }

    /// Takes the questions that were asked for a request.
    pub(super) fn take_of(&mut self, request: &Arc<RequestStream>) -> Vec<(i64, Question)> {
        let is_of = |question: &Question| question.on.as_ref().is_some_and(|on| Arc::ptr_eq(on, request));
        let ids: Vec<i64> =
            self.open.iter().filter(|(_, question)| is_of(question)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.open.remove_entry(&id)).collect()
    }

    /// Takes all of them.
    pub(super) fn take_all(&mut self) -> HashMap<i64, Question> {
        std::mem::take(&mut self.open)
    }

    /// The token that the loop has for what the client calls `token`, which says that the client works on it.
    pub(super) fn progress(&mut self, token: &NumberOrString) -> Progress {
        let NumberOrString::Number(number) = token else { return Progress::Own };
        match self.open.get_mut(number) {
            Some(question) => {
                question.since = Instant::now();
                question.token.clone().map_or(Progress::Late, Progress::Of)
            }
            None if (0..=self.last).contains(number) => Progress::Late,
            None => Progress::Own,
        }
    }

    /// Takes a question that is open for `timeout`; or else says when the next one will be.
    pub(super) fn take_overdue(
        &mut self,
        timeout: Duration,
        now: Instant,
    ) -> Result<(i64, Question), Option<Instant>> {
        let Some((id, since)) =
            self.open.iter().map(|(id, question)| (*id, question.since)).min_by_key(|(_, since)| *since)
        else {
            return Err(None);
        };
        let due = since + timeout;
        if due > now {
            return Err(Some(due));
        }
        self.open.remove_entry(&id).ok_or(None)
    }
}

/// What progress that the client reports belongs to.
#[derive(Debug, PartialEq)]
pub(super) enum Progress {
    /// The question of this token of the loop's.
    Of(ProgressToken),
    /// A question that is over.
    Late,
    /// Whatever the handler gave such a token to.
    Own,
}

/// Tells the client that nobody waits for its answer any more.
//= https://modelcontextprotocol.io/specification/2025-11-25/basic/utilities/cancellation#cancellation-flow
//# When a party wants to cancel an in-progress request, it sends a `notifications/cancelled` notification
pub(super) fn retract(session: &Session, id: i64, question: &Question, reason: &str) {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Cancelled<'a> {
        request_id: i64,
        reason: &'a str,
    }
    let Ok(params) = to_raw_value(&Cancelled { request_id: id, reason }) else { return };
    let write =
        |out: &mut Vec<u8>| protocol::write_notification(out, "notifications/cancelled", Some(&params));
    let on_request = question.on.as_ref().map(|request| session.publish_on(request, write));
    if matches!(on_request, None | Some(Err(PublishError::Closed))) {
        // A session that ended needs no news.
        let _ = session.publish(write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(id: i64, since: Instant) -> Question {
        let number = NumberOrString::Number(id);
        Question { id: number.clone(), token: Some(ProgressToken(number)), on: None, since }
    }

    #[test]
    fn question_is_known_by_two_ids() {
        let mut questions = Questions::default();
        let now = Instant::now();
        questions.insert(7, question(0, now));
        questions.insert(8, question(1, now));
        questions.insert(9, question(2, now));
        assert_eq!(questions.take_by_loop_id(&NumberOrString::Number(1)).unwrap().0, 8);
        assert!(questions.take_by_loop_id(&NumberOrString::Number(1)).is_none());
        assert_eq!(questions.take(&RequestId::Number(7)).unwrap().1.id, NumberOrString::Number(0));
        assert!(questions.take(&RequestId::Number(7)).is_none(), "a late answer");
        assert_eq!(questions.take(&RequestId::String("9".into())).unwrap().0, 9);
    }

    #[test]
    fn progress_reaches_the_loop_under_its_token_and_only_while_it_waits() {
        let mut questions = Questions::default();
        questions.insert(7, question(0, Instant::now()));
        let number = NumberOrString::Number;
        assert_eq!(questions.progress(&number(7)), Progress::Of(ProgressToken(number(0))));
        questions.remove(7);
        assert_eq!(questions.progress(&number(7)), Progress::Late);
        // Not that of the loop's first question.
        assert_eq!(questions.progress(&number(0)), Progress::Late);
        assert_eq!(questions.progress(&number(8)), Progress::Own);
        assert_eq!(questions.progress(&NumberOrString::String("7".into())), Progress::Own);
    }

    #[test]
    fn oldest_question_is_overdue_first() {
        let (mut questions, timeout) = (Questions::default(), Duration::from_secs(10));
        let now = Instant::now();
        assert!(matches!(questions.take_overdue(timeout, now), Err(None)));
        questions.insert(1, question(0, now));
        questions.insert(2, question(1, now + Duration::from_secs(1)));
        assert!(matches!(questions.take_overdue(timeout, now), Err(Some(due)) if due == now + timeout));
        assert_eq!(questions.take_overdue(timeout, now + timeout).unwrap().0, 1);
        let next = now + timeout + Duration::from_secs(1);
        assert!(matches!(questions.take_overdue(timeout, now + timeout), Err(Some(due)) if due == next));
    }
}
