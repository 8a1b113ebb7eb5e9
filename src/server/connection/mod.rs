//! Carries requests and answers over sockets: accepts connections, speaks HTTP/1.1 and HTTP/2 on them, and ends them.
//!
//! It knows bytes, HTTP/2 frames and HTTP/1.1 heads, and not what messages mean: that is for
//! [`request`](super::request), which answers the requests.
//!
//! # Files
//!
//! [`listen`] opens the listening socket, [`accept`] accepts connections within the limits of the [`gate`], and
//! [`serve`] detects their protocol: TLS ([`tls`]), the PROXY protocol ([`proxies`]), [`http1`] or [`http2`]. A
//! stream that stays open leaves [`http1`] for the [`writer`](super::writer), and its connection returns by
//! [`hand_over`]. [`linger`] closes connections, and [`drain`] all of them. [`server`] joins these, and a [`handle`]
//! reaches the server while it runs.

mod accept;
mod accepted;
#[cfg(feature = "tls")]
pub(super) mod certificate;
pub(super) mod descriptor;
pub(super) mod drain;
pub(super) mod gate;
mod hand_over;
pub(super) mod handle;
mod http1;
mod http2;
pub(super) mod linger;
pub(super) mod listen;
mod meter;
mod outbox;
pub(super) mod patience;
pub(super) mod pause;
pub(super) mod plain;
pub(super) mod prefixed;
mod proxies;
mod serve;
pub(super) mod server;
pub(super) mod stage;
mod state;
#[cfg(feature = "tls")]
mod tls;
