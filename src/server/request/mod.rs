//! Answers one HTTP request, whatever carried it.
//!
//! It is generic over the body of the request and knows no socket. It answers with what
//! [`Endpoint`](super::endpoint::Endpoint) has: bytes, or a stream of events.
//!
//! # The way of a request
//!
//! Down through these files, each of which calls only those below it:
//!
//! | file | what it does |
//! |---|---|
//! | [`route`] | finds the path and the method, and accounts for the answer |
//! | [`admit`] | checks the size of the head, the host, the origin, and the rate of the address |
//! | [`authenticate`] | asks who sends it |
//! | [`cors`] | answers OPTIONS, and says what pages of other origins may do |
//! | [`get`], [`delete`], [`post`] | one method each |
//! | [`read`] | reads the body of a POST |
//! | [`initialize`], [`batch`] | the two kinds of POST that are not one message in a session |
//! | [`caller`] | finds the session that it names |
//! | [`deliver`] | chooses between JSON and a stream |
//! | [`run`] | gives messages to the handler |
//! | [`answer`] | makes answers, refusals among them |
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
