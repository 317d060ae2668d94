//! Ranges that siblings share, as servers multiply them at once.

use burn::tensor::Tensor;
use burn_quant::quantizer::Buffer;
use burn_quant::{QuantError, Quantizers};

use crate::Decoder;

/// Gives layers that share an input one range: the largest of theirs, for inputs and for whole weights.
///
/// Servers multiply queries, keys and values at once, gates with features, and all experts of a layer, so exports
/// make them share these ranges in any case, and change a model whose ranges were apart. Where ranges are shared before
/// a model is evaluated, the files hold what was evaluated. Ranges of channels and of blocks are not shared. FP8 layers
/// keep their own, as servers expect, except for experts.
///
/// # Errors
///
/// None but those of a decoder whose quantizers are being changed elsewhere.
///
/// # Source
///
/// ModelOpt 0.47, `preprocess_linear_fusion`.
pub fn share_ranges(decoder: Decoder) -> Result<Decoder, QuantError> {
    const SIBLINGS: [&[&str]; 2] =
        [&["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], &["mlp.gate_proj", "mlp.up_proj"]];
    let mut quantizers = Quantizers::of(&decoder);
    for layer in 0..decoder.config().layers {
        let experts = decoder.config().experts.map_or(0, |experts| experts.count);
        let mut groups: Vec<Vec<String>> =
            SIBLINGS.map(|group| group.iter().map(|name| format!("model.layers.{layer}.{name}")).collect()).to_vec();
        groups.extend((0..experts).map(|expert| {
            let named = |part: &str| format!("model.layers.{layer}.mlp.experts.{expert}.{part}");
            vec![named("gate_proj"), named("up_proj")]
        }));
        for group in groups {
            for (kind, buffer) in [("input", Buffer::Amax), ("weight", Buffer::Amax), ("weight", Buffer::GlobalAmax)] {
                let names: Vec<String> = group.iter().map(|name| format!("{name}.{kind}_quantizer")).collect();
                let is_expert = group[0].contains(".experts.");
                share(&mut quantizers, &names, buffer, if is_expert { Fp8::Shares } else { Fp8::KeepsItsOwn });
            }
        }
        // the experts of a layer run as one: their inputs have one range
        for parts in [&["gate_proj", "up_proj"][..], &["down_proj"]] {
            let named = |(expert, part): (usize, &str)| {
                format!("model.layers.{layer}.mlp.experts.{expert}.{part}.input_quantizer")
            };
            let names: Vec<String> =
                (0..experts).flat_map(|expert| parts.iter().map(move |part| (expert, *part))).map(named).collect();
            share(&mut quantizers, &names, Buffer::Amax, Fp8::Shares);
        }
    }
    quantizers.install(decoder)
}

/// What becomes of FP8 layers.
#[derive(Clone, Copy, PartialEq)]
enum Fp8 {
    KeepsItsOwn,
    Shares,
}

/// Sets a range that is one number to the largest of several quantizers, if all have it and do the same.
fn share(quantizers: &mut Quantizers, names: &[String], buffer: Buffer, fp8: Fp8) {
    use burn_quant::config::{Format, ScaleFormat};
    let found: Vec<_> = names.iter().filter_map(|name| quantizers.find(name)).collect();
    let Some(first) = found.first().filter(|_| found.len() == names.len()) else { return };
    let is_fp8 = first.config().format == Format::E4M3 && first.config().scale == ScaleFormat::F32;
    let same = found.iter().all(|other| other.config() == first.config() && other.is_enabled());
    let ranges: Option<Vec<Tensor<1>>> =
        found.iter().map(|quantizer| quantizer.buffer(buffer).filter(|range| range.dims() == [1])).collect();
    let keeps = is_fp8 && fp8 == Fp8::KeepsItsOwn;
    let Some(ranges) = ranges.filter(|_| same && !keeps) else { return };
    let most = Tensor::cat(ranges, 0).max();
    for name in names {
        if let Some(quantizer) = quantizers.find_mut(name) {
            quantizer.set_buffer(buffer, most.clone());
        }
    }
}
