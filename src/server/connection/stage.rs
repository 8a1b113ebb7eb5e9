//! How far a server has come towards its end, as its connections are told.

use tokio::sync::watch;

/// What connections are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Stage {
    Serving,
    /// Take no further request.
    Draining,
    /// End, whatever is in flight.
    CutOff,
}

/// Waits until the server has come to `wanted`, or beyond.
pub(super) async fn reaches(stage: &mut watch::Receiver<Stage>, wanted: Stage) {
    // An error means that nobody tells any more: the server is gone, and with it everything it waited for.
    let _ = stage.wait_for(|stage| *stage as u8 >= wanted as u8).await;
}
