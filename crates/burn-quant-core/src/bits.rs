//! Bits of a layer with all that its quantizers keep.

use burn_quant_ops::numerics::ScaleFormat;

use crate::quantizer::{Buffer, TensorQuantizer};

/// Bits of a number that is neither a code nor a scale of blocks.
const NUMBER: f64 = 32.0;

/// Bits of the quantized weight of a layer with all that its quantizers keep.
pub fn of_layer(shape: &[usize], weight: &TensorQuantizer, input: Option<&TensorQuantizer>, float_bits: u8) -> f64 {
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
    let ranges = |buffer| quantizer.buffer(buffer).map_or(0.0, |amax| amax.dims()[0] as f64);
    others(quantizer, 0) + NUMBER * (ranges(Buffer::Amax) + ranges(Buffer::AmaxPost))
}

/// Bits of the scales of a weight: of separate ranges, the one after rounding is kept beside the codes.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::QuantizerConfig;
    use crate::layout::{Role, WeightLayout};
    use burn_quant_ops::numerics::Format;

    fn weight(config: QuantizerConfig) -> TensorQuantizer {
        TensorQuantizer::new(config, Role::Weight(WeightLayout::new(1, 0)))
    }

    #[test]
    fn exact_bits_are_codes_and_scales() {
        let bits = |config| of_layer(&[64, 8], &weight(config), None, 16);
        assert_eq!(bits(QuantizerConfig::int(8).per_channel()), 512.0 * 8.0 + 8.0 * 32.0);
        assert_eq!(bits(QuantizerConfig::int(4).per_block(32)), 512.0 * 4.0 + 16.0 * 32.0);
        assert_eq!(bits(QuantizerConfig::nvfp4()), 512.0 * 4.0 + 32.0 * 8.0 + 32.0);
        assert_eq!(bits(QuantizerConfig::mx(Format::E2M1)), 512.0 * 4.0 + 16.0 * 8.0);
        // W4A8: codes of four bits, scales of blocks, one of the tensor
        let chain = QuantizerConfig::int(4).per_block(64).then(QuantizerConfig::e4m3());
        assert_eq!(bits(chain), 512.0 * 4.0 + 8.0 * 32.0 + 32.0);
    }
}
