//! What broke in other toolkits, by the number of the report: the same must not break here.
//!
//! The bodies stand in one file per area; this is the index. `cargo test --test specification regressions::t11` runs one.

use crate::faults::index;

index! {}
