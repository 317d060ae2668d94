//! Whatever the text is, a configuration of ModelOpt is a config of ours that survives a round trip, or an error.
#![no_main]

use burn_quant::QuantConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(config) = QuantConfig::from_modelopt_json(text) {
        assert_eq!(QuantConfig::from_json(&config.to_json()), Ok(config));
    }
});
