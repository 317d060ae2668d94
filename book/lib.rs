//! The chapters of the book whose code is compiled and run.

/// Quick start.
#[doc = include_str!("src/quick-start.md")]
pub mod quick_start {}

/// How it works.
#[doc = include_str!("src/how-it-works.md")]
pub mod how_it_works {}
