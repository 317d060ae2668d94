//! Bits per element as ModelOpt counts them, and of what is not quantized.

use burn_quant_ops::numerics::{BlockScale, ScaleFormat};

use super::Cost;
use burn_quant_core::config::QuantizerConfig;
use burn_quant_ops::numerics::Format;

/// ModelOpt's bits per element: the fewest of all enabled quantizers of a layer, `E + M + 1` of floats, 4.5 of NVFP4.
pub(super) fn reference<'a>(configs: impl Iterator<Item = &'a QuantizerConfig>) -> f64 {
    let of = |config: &QuantizerConfig| match (config.format, config.scale) {
        (Format::E2M1, ScaleFormat::E4M3(BlockScale::Dynamic | BlockScale::Static | BlockScale::StaticFourOverSix)) => {
            4.5
        }
        (format, _) => f64::from(format.bits()),
    };
    configs.flat_map(|config| std::iter::once(config).chain(&config.then)).map(of).fold(16.0, f64::min)
}

impl Cost {
    /// Bits of an element that is not quantized.
    pub(super) fn float_bits(self) -> f64 {
        match self {
            Cost::Exact { float_bits } => f64::from(float_bits),
            Cost::ModelOpt => 16.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_counts_the_narrowest_quantizer() {
        let (int4, fp8, nvfp4) =
            (QuantizerConfig::int(4).per_block(128), QuantizerConfig::e4m3(), QuantizerConfig::nvfp4());
        assert_eq!(reference([&int4, &fp8].into_iter()), 4.0);
        assert_eq!(reference([&nvfp4].into_iter()), 4.5);
        assert_eq!(reference([&int4.clone().then(fp8.clone())].into_iter()), 4.0);
        assert_eq!(reference(std::iter::empty()), 16.0);
    }
}
