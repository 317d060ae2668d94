//! Whatever the bytes are, reading a search gives a state or an error; what was read can be solved and applied, or says
//! why not.
#![no_main]

use burn::nn::LinearConfig;
use burn::tensor::{Bytes, Device, Tensor};
use burn_quant::nn::QuantLinear;
use burn_quant::search::SearchState;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = burn_quant_store::search_from_bytes(Bytes::from_bytes_vec(data.to_vec()));
    // as JSON it comes without a digest
    let Ok(mut state) = serde_json::from_slice::<SearchState>(data) else { return };
    let Ok(selection) = state.solve(8.0) else { return };
    let _ = (state.table(), state.config_of(&selection), state.curve(4));
    let device = Device::flex();
    let layer = || {
        let mut layer: QuantLinear = LinearConfig::new(4, 3).with_bias(false).init(&device).into();
        layer.weight = burn::module::Param::from_tensor(Tensor::ones([4, 3], &device));
        layer
    };
    // of these weights, whatever the file says
    state.model = SearchState::fingerprint(&layer(), &state.groups);
    if let Ok(layer) = state.apply(layer(), &selection) {
        let _ = layer.forward(Tensor::<2>::ones([2, 4], &device));
    }
});
