//! The macro that makes an enum, its answers and its documentation of the table of refusals.

use std::borrow::Cow;
use std::fmt;

/// Declares `Refusal` from the rows of the table. What it names is imported where the table stands.
macro_rules! refusals {
    ($(
        #[doc = $cause:literal] $(#[doc = $more:literal])*
        $name:ident $({ $($(#[doc = $field_doc:literal])+ $field:ident: $type:ty,)+ })?:
            $kind:literal, $status:ident, $code:ident $(, $header:expr)? => $message:literal;
    )+) => {
        /// Why a request is refused: the peer broke a rule, a limit was reached, or this server failed.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Refusal {
            $(
                #[doc = $cause]
                $(#[doc = $more])*
                #[doc = ""]
                #[doc = concat!(
                    "Kind `", $kind, "`, status [`", stringify!($status), "`](StatusCode::", stringify!($status),
                    "), message: ", $message, "."
                )]
                $name $({ $($(#[doc = $field_doc])+ $field: $type,)+ })?,
            )+
        }

        impl Refusal {
            /// The kinds of all refusals with their statuses, in the order of the declaration, so that a counter of
            /// each can stand at 0 before the first.
            pub const KINDS: &'static [(&'static str, u16)] =
                &[$(($kind, StatusCode::$status.as_u16())),+];

            /// Returns a short label for metrics and logs, one per variant, in `snake_case`.
            pub const fn kind(&self) -> &'static str {
                match self {
                    $(Self::$name { .. } => $kind,)+
                }
            }

            /// Returns the HTTP status of the answer.
            pub const fn status(&self) -> StatusCode {
                match self {
                    $(Self::$name { .. } => StatusCode::$status,)+
                }
            }

            /// What the error in the body says; [`Code::number`] has the number.
            pub(super) const fn error(&self) -> Code {
                match self {
                    $(Self::$name { .. } => Code::$code,)+
                }
            }

            /// The header that the answer carries besides those that every answer has.
            #[expect(unused_variables, reason = "few headers need the fields")]
            pub(super) const fn header(&self) -> Option<Header> {
                match self {
                    $(Self::$name $({ $($field),+ })? => refusals!(@header $($header)?),)+
                }
            }

            /// Returns what is wrong and what to do about it; lower case, safe to log.
            pub fn message(&self) -> std::borrow::Cow<'static, str> {
                match self {
                    $(Self::$name $({ $($field),+ })? => super::declare::text(format_args!($message)),)+
                }
            }
        }

        /// A row of the table, with an example of the refusal.
        #[cfg(test)]
        pub(super) struct Row {
            pub(super) refusal: Refusal,
            /// What is wrong, as the documentation says it.
            pub(super) cause: &'static str,
            /// The message, with the names of its fields in braces.
            pub(super) message: &'static str,
        }

        /// The whole table, in the order of the declaration.
        #[cfg(test)]
        pub(super) fn rows() -> Vec<Row> {
            use super::tests::Example;
            vec![$(Row {
                refusal: Refusal::$name $({ $($field: <$type>::example()),+ })?,
                cause: $cause.trim_ascii(),
                message: $message,
            }),+]
        }
    };
    (@header) => { None };
    (@header $header:expr) => { Some($header) };
}

/// The text of a message: as it stands in the table where it has no field.
pub(super) fn text(message: fmt::Arguments<'_>) -> Cow<'static, str> {
    message.as_str().map_or_else(|| message.to_string().into(), Cow::Borrowed)
}
