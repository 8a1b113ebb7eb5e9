//! The model helper; see README.md.
