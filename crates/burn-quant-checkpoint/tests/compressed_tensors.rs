//! compressed-tensors, against what the package itself wrote and decompressed (`tests/data/compressed-tensors`).
//!
//! * `reference` reading and writing its folders
//! * `elsewhere` layers that others quantized
//! * `contradictions` configurations and tensors that do not fit each other

#[path = "compressed_tensors/contradictions.rs"]
mod contradictions;
#[path = "compressed_tensors/elsewhere.rs"]
mod elsewhere;
#[path = "compressed_tensors/reference.rs"]
mod reference;
#[path = "compressed_tensors/support.rs"]
mod support;
