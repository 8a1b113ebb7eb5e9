//! Background tasks of one endpoint: the clock, the memory limit, the sweep, and the keep-alive comments.

use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::endpoint::Endpoint;
use crate::handler::Handler;
use crate::sync::Arc;

/// Interval between updates of the clock.
const TICK: Duration = Duration::from_millis(50);

/// Starts the tasks. They end when the set is dropped.
pub(super) fn start<H: Handler>(endpoint: &Arc<Endpoint<H>>) -> JoinSet<()> {
    let mut upkeep = JoinSet::new();
    let over_budget = Arc::<Notify>::default();
    upkeep.spawn(keep_time(endpoint.clone(), over_budget.clone()));
    upkeep.spawn(keep_budget(endpoint.clone(), over_budget));
    upkeep.spawn(keep_swept(endpoint.clone()));
    let beats = endpoint.clone();
    upkeep.spawn(async move { beats.keep_alive.run(beats.config.keep_alive).await });
    upkeep
}

/// Advances the clock, and signals when more is retained than allowed. Never waits for the other tasks.
async fn keep_time<H: Handler>(endpoint: Arc<Endpoint<H>>, over_budget: Arc<Notify>) {
    let mut clock = tokio::time::interval(TICK.min(endpoint.config.sweep));
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        clock.tick().await;
        endpoint.tell_time();
        if endpoint.sessions.is_over_budget() {
            over_budget.notify_one();
        }
    }
}

/// Evicts events when more is retained than allowed.
async fn keep_budget<H: Handler>(endpoint: Arc<Endpoint<H>>, over_budget: Arc<Notify>) {
    loop {
        over_budget.notified().await;
        let (began, relieving) = (Instant::now(), endpoint.clone());
        let relieved = tokio::task::spawn_blocking(move || relieving.sessions.relieve()).await;
        let took = began.elapsed();
        tracing::debug!(
            bytes = relieved.unwrap_or_default(),
            "evicted events to stay within max_retained_bytes"
        );
        if endpoint.sessions.is_over_budget() {
            // It did not help, and may not soon: use at most a tenth of one core.
            tokio::time::sleep(10 * took.min(endpoint.config.sweep)).await;
        }
    }
}

/// Ends expired sessions and responses.
async fn keep_swept<H: Handler>(endpoint: Arc<Endpoint<H>>) {
    let mut sweep = tokio::time::interval(endpoint.config.sweep);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        sweep.tick().await;
        loop {
            let sweeping = endpoint.clone();
            // On a blocking thread: with a million sessions it takes tens of milliseconds.
            match tokio::task::spawn_blocking(move || sweeping.sessions.sweep()).await {
                Ok(swept) if swept.more => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::error!(%error, "the sweep of expired sessions failed");
                    break;
                }
            }
        }
    }
}
