//! The stage of a server's shutdown, as its connections see it.

use tokio::sync::watch;

/// The stage of a server's shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Stage {
    Serving,
    /// Accept no further request.
    Draining,
    /// End at once.
    CutOff,
}

/// Waits until the stage is `wanted`, or later.
pub(super) async fn reaches(stage: &mut watch::Receiver<Stage>, wanted: Stage) {
    // An error means that the sender is gone, and the server with it.
    let _ = stage.wait_for(|stage| *stage as u8 >= wanted as u8).await;
}
