//! Faults planted in a small quantized network, found by a diagnosis, and mended by what it says.
//!
//! Each [`Fault`] is something that happens: channels of very different sizes, a range from other data, two records
//! mixed up, a training that diverged. The network is the same in all of them.

mod fault;
mod network;
mod trial;

pub use fault::Fault;
pub use network::Network;
pub use trial::{Trial, TrialResult};
