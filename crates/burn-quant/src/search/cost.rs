//! Bits of a layer in a format.

use burn_quant_ops::numerics::{BlockScale, ScaleFormat};

use super::Cost;
use crate::{Buffer, Format, QuantizerConfig, TensorQuantizer};

/// Bits of a number that is neither a code nor a scale of blocks.
const NUMBER: f64 = 32.0;

/// Bits of the quantized weight of a layer with all that its quantizers keep.
pub(crate) fn exact(shape: &[usize], weight: &TensorQuantizer, input: Option<&TensorQuantizer>, float_bits: u8) -> f64 {
    let elements = shape.iter().product::<usize>() as f64;
    let stages = || weight.stages("").map(|(_, stage)| stage.clone()).collect::<Vec<_>>();
    // a chain keeps the codes of its narrowest format: the others follow from them
    let codes = stages().iter().map(|stage| f64::from(stage.config().format.bits())).fold(f64::INFINITY, f64::min);
    let scales: f64 = stages().iter().map(|stage| scales(shape, stage)).sum();
    let others: f64 = stages().iter().map(|quantizer| others(quantizer, float_bits)).sum();
    elements * codes + scales + others + input.map_or(0.0, of_input)
}

/// Bits of the ranges, biases and scales of channels that the quantizer of an activation keeps.
pub(crate) fn of_input(quantizer: &TensorQuantizer) -> f64 {
    let ranges = quantizer.buffer(Buffer::Amax).map_or(0.0, |amax| amax.dims()[0] as f64);
    others(quantizer, 0) + NUMBER * ranges
}

/// Bits of the scales of a weight.
fn scales(shape: &[usize], stage: &TensorQuantizer) -> f64 {
    let groups = stage.groups(shape).len() as f64;
    match stage.config().scale {
        ScaleFormat::F32 => NUMBER * groups,
        ScaleFormat::E8M0 => 8.0 * groups,
        ScaleFormat::E4M3(_) => 8.0 * groups + NUMBER,
    }
}

/// Bits of biases, and of what acts on channels.
fn others(quantizer: &TensorQuantizer, float_bits: u8) -> f64 {
    let len = |buffer| quantizer.buffer(buffer).map_or(0.0, |values| values.dims()[0] as f64);
    NUMBER * (len(Buffer::Bias) + len(Buffer::PreQuantScale))
        + f64::from(float_bits) * (len(Buffer::LowRankDown) + len(Buffer::LowRankUp))
}

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
            Cost::Reference => 16.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Role, WeightLayout};

    fn weight(config: QuantizerConfig) -> TensorQuantizer {
        TensorQuantizer::new(config, Role::Weight(WeightLayout { channel_axis: 1, block_axis: 0 }))
    }

    #[test]
    fn exact_bits_are_codes_and_scales() {
        let bits = |config| exact(&[64, 8], &weight(config), None, 16);
        assert_eq!(bits(QuantizerConfig::int(8).per_channel()), 512.0 * 8.0 + 8.0 * 32.0);
        assert_eq!(bits(QuantizerConfig::int(4).per_block(32)), 512.0 * 4.0 + 16.0 * 32.0);
        assert_eq!(bits(QuantizerConfig::nvfp4()), 512.0 * 4.0 + 32.0 * 8.0 + 32.0);
        assert_eq!(bits(QuantizerConfig::mx(Format::E2M1)), 512.0 * 4.0 + 16.0 * 8.0);
        // W4A8: codes of four bits, scales of blocks, one of the tensor
        let chain = QuantizerConfig::int(4).per_block(64).then(QuantizerConfig::e4m3());
        assert_eq!(bits(chain), 512.0 * 4.0 + 8.0 * 32.0 + 32.0);
    }

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
