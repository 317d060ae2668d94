//! What is done to layers that share an input before they are packed.
//!
//! ```text
//! s̄ = mean of the scales of inputs        W ← W · s / s̄     one scale for all
//! amax ← max over them                     of inputs, and of weights where it is one number
//! γ ← γ · s̄                                where the format's name says AWQ, and the scale is gone
//! ```
//!
//! All in f32, rounded to the type of the model after each step. Three equal numbers do not average to themselves, in
//! the last bit: the order of the sums is ModelOpt's.
//!
//! Source: ModelOpt 0.47, `modelopt.torch.export.quant_utils.preprocess_linear_fusion`, `fuse_prequant_layernorm`,
//! `fuse_prequant_to_linear`.

use std::collections::BTreeMap;

use super::{LinearState, QuantAlgo};
use crate::dtype::round_to;
use crate::{CheckpointError, NotExportable};

/// Linear layers that multiply the same input.
#[derive(Clone, Debug, PartialEq)]
pub struct Siblings {
    /// Their names, in the order in which they run.
    pub layers: Vec<String>,
    /// The norm that makes their input, if a norm does.
    pub norm: Option<String>,
    /// The linear layer whose outputs, channel by channel, are their input up to a factor: for `down_proj` the
    /// `up_proj`, for `o_proj` the `v_proj` if heads are not shared.
    pub producer: Option<String>,
}

/// Where scales of inputs move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folding {
    /// As ModelOpt does it: into norms in formats whose name says AWQ, into the layer before for NVFP4 with AWQ.
    AsModelOpt,
    /// Wherever something comes before the layers that can take them, in any format: for systems whose layers have no
    /// scales of inputs.
    Everywhere,
}

/// Prepares layers to be packed: makes scales of siblings equal, and moves scales of inputs into what comes before.
///
/// `norms` are the weights of norms by name, without `.weight`; those that change are changed in place.
///
/// # Errors
///
/// [`CheckpointError::NotExportable`] if siblings have different formats, as servers multiply them at once.
pub fn prepare(
    layers: &mut BTreeMap<String, LinearState>,
    norms: &mut BTreeMap<String, Vec<f32>>,
    siblings: &[Siblings],
    folding: Folding,
) -> Result<(), CheckpointError> {
    siblings.iter().for_each(|group| into_producer(layers, group, folding));
    for group in siblings {
        let names: Vec<&String> = group.layers.iter().filter(|name| layers.contains_key(*name)).collect();
        complete_scales(layers, &names);
        let Some(first) = names.first().map(|name| layers[*name].algo) else { continue };
        let absent = group.layers.iter().find(|name| !layers.contains_key(*name));
        let other = names.iter().find(|name| layers[**name].algo != first);
        let differs = |name: &str, found: String, sibling: &str, other: String| CheckpointError::NotExportable {
            name: name.into(),
            format: "layers that are multiplied at once",
            reason: NotExportable::Siblings { found, sibling: sibling.into(), other },
        };
        if let Some(absent) = absent {
            return Err(differs(names[0], first.to_string(), absent, "not quantized".into()));
        }
        if let Some(other) = other {
            return Err(differs(names[0], first.to_string(), other, layers[*other].algo.to_string()));
        }
        if names.len() > 1 && first != QuantAlgo::Fp8 {
            average_scales(layers, &names);
            share_ranges(layers, &names);
        }
        if (folding == Folding::Everywhere || first.folds_into_norms())
            && let Some(gamma) = group.norm.as_ref().and_then(|norm| norms.get_mut(norm))
        {
            into_norm(layers, &names, gamma);
        }
    }
    Ok(())
}

/// The scale of inputs becomes one of the rows of the layer before.
fn into_producer(layers: &mut BTreeMap<String, LinearState>, group: &Siblings, folding: Folding) {
    let ([name], Some(producer)) = (&group.layers[..], &group.producer) else { return };
    let folds = |algo| folding == Folding::Everywhere || algo == QuantAlgo::Nvfp4Awq;
    let Some(consumer) = layers.get(name).filter(|layer| folds(layer.algo)) else { return };
    let Some(scale) = consumer.pre_quant_scale.clone() else { return };
    let Some(before) = layers.get_mut(producer).filter(|layer| layer.outputs == scale.len()) else { return };
    before.scale_rows(&scale);
    layers.get_mut(name).expect("it was found").pre_quant_scale = None;
}

/// Gives siblings without a scale of inputs one of ones, where others have one: an algorithm may have left a layer as
/// it was.
fn complete_scales(layers: &mut BTreeMap<String, LinearState>, names: &[&String]) {
    if names.iter().all(|name| layers[*name].pre_quant_scale.is_none()) {
        return;
    }
    for name in names {
        let layer = layers.get_mut(*name).expect("it was found");
        layer.pre_quant_scale.get_or_insert_with(|| vec![1.0; layer.inputs]);
        if layer.algo == QuantAlgo::Nvfp4 {
            layer.algo = QuantAlgo::Nvfp4Awq;
        }
    }
}

/// Gives siblings the mean of their scales of inputs, and weights that undo it.
fn average_scales(layers: &mut BTreeMap<String, LinearState>, names: &[&String]) {
    let scales: Option<Vec<&Vec<f32>>> = names.iter().map(|name| layers[*name].pre_quant_scale.as_ref()).collect();
    let Some(scales) = scales else { return };
    let n = scales.len() as f32;
    let mut mean: Vec<f32> =
        (0..scales[0].len()).map(|i| scales[1..].iter().fold(scales[0][i], |sum, scale| sum + scale[i]) / n).collect();
    round_to(layers[names[0]].dtype, &mut mean);
    for name in names {
        let layer = layers.get_mut(*name).expect("it was found");
        let old = layer.pre_quant_scale.replace(mean.clone()).expect("all have one");
        if old == mean {
            continue;
        }
        for row in layer.weight.chunks_exact_mut(layer.inputs.max(1)) {
            row.iter_mut().zip(&old).zip(&mean).for_each(|((w, old), new)| *w = *w * old / new);
        }
        round_to(layer.dtype, &mut layer.weight);
        layer.recalibrate();
    }
}

/// Gives siblings the largest of their ranges of inputs, and of those of weights that are one number.
fn share_ranges(layers: &mut BTreeMap<String, LinearState>, names: &[&String]) {
    let most = |of: &dyn Fn(&LinearState) -> Option<f32>| -> Option<f32> {
        names.iter().filter_map(|name| of(&layers[*name])).reduce(f32::max)
    };
    let scalar = |layer: &LinearState| match layer.weight_amax[..] {
        [amax] if layer.global_amax.is_none() => Some(amax),
        _ => None,
    };
    let [input, weight, global, second] = [
        most(&|layer| layer.input_amax),
        most(&scalar),
        most(&|layer| layer.global_amax),
        most(&|layer| layer.second_amax),
    ];
    let is_scalar = names.iter().all(|name| scalar(&layers[*name]).is_some());
    for name in names {
        let layer = layers.get_mut(*name).expect("it was found");
        layer.input_amax = layer.input_amax.and(input);
        layer.global_amax = layer.global_amax.and(global);
        layer.second_amax = layer.second_amax.and(second);
        if is_scalar {
            layer.weight_amax = weight.into_iter().collect();
        }
    }
}

/// Multiplies a norm with the scale that all have, which is gone then.
fn into_norm(layers: &mut BTreeMap<String, LinearState>, names: &[&String], gamma: &mut [f32]) {
    let Some(scale) = layers[names[0]].pre_quant_scale.clone() else { return };
    if scale.len() != gamma.len() || names.iter().any(|name| layers[*name].pre_quant_scale.as_ref() != Some(&scale)) {
        return;
    }
    gamma.iter_mut().zip(&scale).for_each(|(g, scale)| *g *= scale);
    round_to(layers[names[0]].dtype, gamma);
    names.iter().for_each(|name| layers.get_mut(*name).expect("it was found").pre_quant_scale = None);
}

/// Prepares the experts of one layer to be packed, `[gate, up, down]` each: gate and up of an expert get the larger of
/// their ranges of weights, and the gates and ups of all, like the downs of all, the largest of their ranges of inputs.
///
/// An expert that no token of the calibration reached has the range of inputs of the others.
pub fn prepare_experts(layers: &mut BTreeMap<String, LinearState>, experts: &[[String; 3]]) {
    let first = experts.first().and_then(|[gate, ..]| layers.get(gate)).map(|layer| layer.algo);
    for [gate, up, _] in experts {
        if first != Some(QuantAlgo::Fp8) || layers.get(gate).is_some_and(|layer| layer.weight_amax.len() == 1) {
            let both: Vec<&String> = [gate, up].into_iter().filter(|name| layers.contains_key(*name)).collect();
            if both.len() == 2 && layers[gate].weight_amax.len() == 1 {
                share_ranges(layers, &both);
            }
        }
    }
    let inputs: [Vec<&String>; 2] = [
        experts.iter().flat_map(|[gate, up, _]| [gate, up]).collect(),
        experts.iter().map(|[.., down]| down).collect(),
    ];
    for names in inputs {
        let most = names.iter().filter_map(|name| layers.get(*name)?.input_amax).reduce(f32::max);
        for name in names {
            if let Some(layer) = layers.get_mut(name).filter(|layer| layer.algo.input_max().is_some()) {
                layer.input_amax = most;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dtype;

    /// A layer of one output and two inputs.
    fn layer(algo: QuantAlgo, weight: [f32; 2], scale: Option<Vec<f32>>) -> LinearState {
        LinearState {
            algo,
            dtype: Dtype::F32,
            outputs: 1,
            inputs: 2,
            weight: weight.to_vec(),
            bias: None,
            block: 16,
            weight_amax: vec![4.0],
            global_amax: Some(4.0),
            second_amax: None,
            input_amax: Some(1.0),
            pre_quant_scale: scale,
            low_rank: None,
        }
    }

    #[test]
    fn a_sibling_that_was_left_unscaled_gets_the_scale_of_the_others() {
        let names = ["q", "k"].map(String::from);
        let scaled = layer(QuantAlgo::Nvfp4Awq, [3.0, 4.0], Some(vec![3.0, 1.0]));
        let unscaled = layer(QuantAlgo::Nvfp4, [1.0, 2.0], None);
        let mut layers = BTreeMap::from([(names[0].clone(), scaled), (names[1].clone(), unscaled)]);
        let group = Siblings { layers: names.to_vec(), norm: None, producer: None };
        prepare(&mut layers, &mut BTreeMap::new(), &[group], Folding::AsModelOpt).unwrap();
        // the mean of [3, 1] and [1, 1] is [2, 1]: what q was multiplied with is 3/2 of it, what k was, 1/2
        assert_eq!(layers["q"].weight, [4.5, 4.0]);
        assert_eq!(layers["k"].weight, [0.5, 2.0]);
        for name in &names {
            assert_eq!(
                (layers[name].algo, &layers[name].pre_quant_scale),
                (QuantAlgo::Nvfp4Awq, &Some(vec![2.0, 1.0]))
            );
        }
    }

    #[test]
    fn siblings_without_scales_stay_without() {
        let mut layers = BTreeMap::from([("q".to_string(), layer(QuantAlgo::Nvfp4, [1.0, 2.0], None))]);
        let expected = layers.clone();
        let group = Siblings { layers: vec!["q".into()], norm: None, producer: None };
        prepare(&mut layers, &mut BTreeMap::new(), &[group], Folding::AsModelOpt).unwrap();
        assert_eq!(layers, expected);
    }
}
