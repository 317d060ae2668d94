//! The specification.
fn main() {}
