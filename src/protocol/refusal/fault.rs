//! What keeps a JSON value from being a message: the reason inside [`NotJsonRpc`](super::Refusal::NotJsonRpc).

use std::fmt;

/// Declares [`EnvelopeFault`] from rows of `/// doc`, `Variant => words`.
macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident => $words:literal;)+) => {
        /// What keeps a JSON value from being a JSON-RPC 2.0 message of MCP.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum EnvelopeFault {
            $($(#[doc = $doc])+ $name,)+
        }

        impl EnvelopeFault {
            /// Every fault, in the order of the declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Returns the fault in words.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)+
                }
            }
        }
    };
}

faults! {
    /// It is a string, number, boolean or null.
    NotAnObject => "it is not an object";
    /// `jsonrpc` is missing or not `"2.0"`.
    NotVersion2 => "jsonrpc is missing or not \"2.0\"";
    /// There is no `method`, no `result` and no `error`.
    NeitherMethodNorOutcome => "it has no method, no result and no error";
    /// There is `method`, and also `result` or `error`.
    BothMethodAndOutcome => "it has a method and also a result or an error";
    /// There are both `result` and `error`.
    BothResultAndError => "it has both a result and an error";
    /// `method` is not a string.
    MethodIsNoString => "method is not a string";
    /// `params` is there and neither an object nor null.
    ParamsIsNoObject => "params is not an object";
    /// There is `result` or `error`, but no `id` to tell which request it answers.
    ResponseWithoutId => "the response has no id";
}

impl fmt::Display for EnvelopeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
