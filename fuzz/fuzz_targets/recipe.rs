//! Whatever the text is, a recipe of quantization or of a search is a config that survives a round trip, or an error.
#![no_main]

use burn_quant::QuantConfig;
use burn_quant::search::AutoQuantizeConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(config) = QuantConfig::from_json(text) {
        assert_eq!(QuantConfig::from_json(&config.to_json()), Ok(config));
    }
    if let Ok(config) = QuantConfig::from_toml(text) {
        assert_eq!(QuantConfig::from_toml(&config.to_toml()), Ok(config));
    }
    if let Ok(config) = AutoQuantizeConfig::from_json(text) {
        assert_eq!(AutoQuantizeConfig::from_json(&config.to_json()), Ok(config));
    }
    if let Ok(config) = AutoQuantizeConfig::from_toml(text) {
        assert_eq!(AutoQuantizeConfig::from_toml(&config.to_toml()), Ok(config));
    }
});
