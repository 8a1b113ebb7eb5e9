//! Carries requests and answers over sockets: accepts connections, speaks HTTP/1.1 and HTTP/2 on them, and ends them.
//!
//! It knows bytes, frames of HTTP/2 and heads of HTTP/1.1, and nothing of what messages mean: that is
//! [`request`](super::request), which answers what was read here.
//!
//! # The way of a connection
//!
//! [`listen`] opens the listening socket, [`accept`] takes connections from it as far as the [`gate`] lets them in, and
//! [`serve`] finds out what they speak: TLS ([`tls`]), the PROXY protocol ([`proxies`]), [`http1`] or [`http2`]. A
//! stream that goes on leaves [`http1`] for the [`writer`](super::writer), and its connection comes back by
//! [`hand_over`]. [`linger`] closes connections, and [`drain`] all of them. [`server`] joins them, and a [`handle`] reaches it while it runs.

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
