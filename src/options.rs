//! Declares a struct of options from one list: the fields with their defaults, and a chained setter for each.

/// Declares a struct of options from rows of `/// doc`, `name: Type = default;`.
///
/// A row makes a public field, its default, and a setter that takes the struct by value and returns it. Both carry the
/// row's doc, which says what the option is, its unit, its default, its range and its cost. The row `into name: Type`
/// has a setter that takes whatever turns into the type. Options are checked once, where they are used, and not by their
/// setters.
macro_rules! options {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $($(#[$meta:meta])* $field:ident $($into:ident)?: $type:ty = $default:expr;)+
        }
    ) => {
        $(#[$attribute])*
        pub struct $name {
            $($(#[$meta])* pub $field: $type,)+
        }

        impl Default for $name {
            #[allow(unused_doc_comments, reason = "the rows of the list have docs")]
            fn default() -> Self {
                Self { $($(#[$meta])* $field: $default,)+ }
            }
        }

        impl $name {
            $(options! { @setter $(#[$meta])* $field $($into)?: $type })+
        }
    };
    (@setter $(#[$meta:meta])* $field:ident: $type:ty) => {
        $(#[$meta])*
        #[must_use]
        pub fn $field(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        }
    };
    (@setter $(#[$meta:meta])* $field:ident into: $type:ty) => {
        $(#[$meta])*
        #[must_use]
        pub fn $field(mut self, $field: impl Into<$type>) -> Self {
            self.$field = $field.into();
            self
        }
    };
}

pub(crate) use options;
