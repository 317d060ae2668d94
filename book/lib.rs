//! The chapters of the book whose code is compiled and run.

/// Quick start.
#[doc = include_str!("src/quick-start.md")]
pub mod quick_start {}

/// How it works.
#[doc = include_str!("src/how-it-works.md")]
pub mod how_it_works {}

/// Number formats.
#[doc = include_str!("src/number-formats.md")]
pub mod number_formats {}

/// Choosing a recipe.
#[doc = include_str!("src/choosing-a-recipe.md")]
pub mod choosing_a_recipe {}
