//! Faults that were found once, by number: each test says the right behaviour, and failed before it was mended.
//!
//! The bodies stand in one file per area; this is the index. `cargo test --test specification faults::f05` runs one.

/// A test for each entry, which runs the body that is named.
macro_rules! index {
    ($($name:ident = $body:path;)*) => {
        $(
            #[test]
            fn $name() {
                $body();
            }
        )*
    };
}

pub(crate) use index;

index! {}
