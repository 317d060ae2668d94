//! Whatever the bytes are, `restore` gives a model or an error.
#![no_main]

use burn::nn::LinearConfig;
use burn::tensor::{Bytes, Device};
use burn_quant::nn::QuantLinear;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let model: QuantLinear = LinearConfig::new(4, 3).init(&Device::flex()).into();
    let _ = burn_quant_store::from_bytes(model, Bytes::from_bytes_vec(data.to_vec()));
});
