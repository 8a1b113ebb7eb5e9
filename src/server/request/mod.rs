//! Answers one HTTP request, independent of the connection that carries it.
//!
//! It is generic over the body of the request and knows no socket. It answers from the
//! [`Endpoint`](super::endpoint::Endpoint), with bytes or a stream of events.
//!
//! # Order of the files
//!
//! A request passes through these files from top to bottom. Each calls only those below it:
//!
//! | file | what it does |
//! |---|---|
//! | [`route`] | dispatches by path and method, counts and logs the answer |
//! | [`admit`] | checks the size of the head, the host, the origin, and the rate of the address |
//! | [`authenticate`] | asks the authenticator for the principal |
//! | [`cors`] | answers OPTIONS, and writes the CORS headers |
//! | [`get`], [`delete`], [`post`] | one method each |
//! | [`read`] | reads the body of a POST |
//! | [`initialize`], [`batch`] | the two kinds of POST other than one message in a session |
//! | [`caller`] | finds the session of the request |
//! | [`deliver`] | chooses between JSON and a stream |
//! | [`run`] | gives messages to the handler |
//! | [`answer`] | builds answers, refusals among them |
//! | [`body`] | the bodies of answers: bytes, or a stream with its keep-alive comments |
//!
//! Below them are [`record`], a line of the access log; [`keep_alive`], the timer of comments; [`ends`], the age of a
//! connection; and [`pending`] and [`warned`], which count over all requests.

mod admit;
pub(super) mod answer;
mod authenticate;
mod batch;
pub(super) mod body;
mod caller;
mod cors;
mod delete;
mod deliver;
pub(super) mod ends;
mod get;
mod initialize;
pub(super) mod keep_alive;
pub(super) mod pending;
mod post;
mod read;
pub(super) mod record;
pub(super) mod route;
mod run;
pub(super) mod warned;
