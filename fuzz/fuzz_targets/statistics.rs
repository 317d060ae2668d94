//! Whatever the bytes are, reading statistics gives statistics or an error; what was read can be solved, or says why
//! not.
#![no_main]

use burn::nn::LinearConfig;
use burn::tensor::{Bytes, Device};
use burn_quant::calibrate::{ModelStatistics, calibrate};
use burn_quant::nn::QuantLinear;
use burn_quant::place::{WeightLayouts, place};
use burn_quant::{Algorithm, presets};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = burn_quant_store::statistics_from_bytes(Bytes::from_bytes_vec(data.to_vec()));
    // as JSON they come without a digest
    let Ok(statistics) = serde_json::from_slice::<ModelStatistics>(data) else { return };
    let layer: QuantLinear = LinearConfig::new(4, 3).init(&Device::flex()).into();
    let config = presets::int8_default();
    let (layer, _) = place(layer, &config, &WeightLayouts::new()).expect("the preset suits the layer");
    for algorithm in [Algorithm::Max, Algorithm::entropy(), Algorithm::gptq()] {
        let _ = calibrate(layer.clone(), &statistics, &algorithm);
    }
});
