//! Taking a request back, and learning of it.

use core::future::poll_fn;
use core::task::{Context, Poll};

use super::answer::and_always;
use super::keeper::Keeper;
use super::stream::RequestStream;
use crate::wake::Waiter;

impl RequestStream {
    /// Ready when the request was taken back.
    pub fn poll_cancelled(&self, waiter: &mut Waiter, context: &mut Context<'_>) -> Poll<()> {
        if !self.is_cancelled() {
            self.watchers().register(waiter, context.waker());
        }
        if self.is_cancelled() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Drops what a watcher that gave up left behind; others look once more and wait on.
    pub fn unwatch(&self) {
        self.watchers().wake();
    }

    /// Waits until the request is taken back.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn cancelled(&self) {
        let mut watch = CancelWatch { request: self, waiter: Waiter::new() };
        poll_fn(|context| self.poll_cancelled(&mut watch.waiter, context)).await;
    }

    /// Marks the request cancelled and wakes who watches for it.
    pub(crate) fn tell_cancelled(&self) {
        self.mark_cancelled();
        self.watchers().wake();
    }

    /// Takes the request back: who works on it is told, and its stream ends without a response.
    pub(crate) fn cancel(&self, keeper: &dyn Keeper) {
        let end = || {
            self.tell_cancelled();
            if self.batch().is_none() {
                let environment = keeper.environment();
                self.own_stream().close(environment.now(), environment.limits());
            }
        };
        and_always(end, || self.finish(keeper));
    }
}

/// A wait for the cancellation of a request, which leaves nothing behind when it is given up.
struct CancelWatch<'a> {
    request: &'a RequestStream,
    waiter: Waiter,
}

impl Drop for CancelWatch<'_> {
    fn drop(&mut self) {
        self.request.unwatch();
    }
}
