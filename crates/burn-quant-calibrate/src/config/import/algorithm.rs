//! The algorithm of a configuration.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::ImportProblem;
use super::attributes::Reader;
use super::problem::{Problem, boolean, count, keys, number, problem, wrong};
use crate::config::{ActOrder, Algorithm, CalibrationInputs, Identity, IncludeMax, RangeSearch, SiblingScales};
use burn_quant_core::config::LearnedRanges;

/// Whether training learns the ranges of weights, as ModelOpt's `lsq` does beside finding where they begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Learning {
    Off,
    RangesOfWeights(LearnedRanges),
}

/// An algorithm, and whether it is one after which ranges are learned.
pub(super) fn algorithm(at: &str, value: &Value) -> Result<(Algorithm, Learning), Problem> {
    let Value::Object(options) = value else {
        return match value.as_str() {
            Some("lsq") => lsq(at, &Map::new()),
            _ => calibration(at, value).map(|algorithm| (algorithm, Learning::Off)),
        };
    };
    match options.get("method").and_then(Value::as_str) {
        Some("lsq") => lsq(at, options),
        _ => calibration(at, value).map(|algorithm| (algorithm, Learning::Off)),
    }
}

/// ModelOpt's learned ranges: values are divided by the scale of one, rounded, and multiplied by the scale of another,
/// which by default is the one that is learned.
fn lsq(at: &str, options: &Map<String, Value>) -> Result<(Algorithm, Learning), Problem> {
    const OPTIONS: [&str; 5] = ["method", "scale_algorithm", "learnable_amax", "tied_amax", "quantize_pre_scale"];
    keys(at, options, &[&OPTIONS[..], &COMMON].concat())?;
    let reader = Reader { at, attributes: options };
    common(&reader)?;
    let start = match reader.get("scale_algorithm") {
        None => Algorithm::Mse(RangeSearch::default()),
        Some((at, value)) => calibration(&at, value)?,
    };
    let learnable = options.get("learnable_amax").cloned().unwrap_or_else(|| Value::Array(vec!["post".into()]));
    let refused = |expected| wrong(&format!("{at}.learnable_amax"), expected, &learnable);
    let learned: Option<BTreeSet<&str>> = match &learnable {
        Value::Array(names) => names.iter().map(Value::as_str).collect(),
        Value::String(name) => Some(BTreeSet::from([name.as_str()])),
        _ => None,
    };
    let Some(learned) = learned.filter(|names| names.iter().all(|name| ["pre", "post"].contains(name))) else {
        return refused("a list of `pre` and `post`");
    };
    let (pre, post) = (learned.contains("pre"), learned.contains("post"));
    let ranges = match (pre, post, reader.flag("tied_amax", false)?) {
        (false, false, _) => None,
        (true, true, true) => Some(LearnedRanges::tied()),
        (_, _, true) => return refused("[] or [\"pre\", \"post\"], as `tied_amax` is set"),
        (true, true, false) => Some(LearnedRanges::pre_and_post()),
        (true, false, false) => Some(LearnedRanges::pre()),
        (false, true, false) => Some(LearnedRanges::post()),
    };
    let ranges = match reader.flag("quantize_pre_scale", true)? {
        true => ranges,
        false => ranges.map(LearnedRanges::with_unrounded_pre_scale),
    };
    Ok((start, ranges.map_or(Learning::Off, Learning::RangesOfWeights)))
}

/// Options that every algorithm has.
const COMMON: [&str; 2] = ["moe_calib_experts_ratio", "layerwise"];

/// What is written out with every algorithm and changes nothing here, as long as it is not set.
fn common(reader: &Reader<'_>) -> Result<(), Problem> {
    if let Some((_, ratio)) = reader.get("moe_calib_experts_ratio") {
        return reader.unsupported(
            "moe_calib_experts_ratio",
            ratio,
            "experts that no token reaches take the range of their siblings; route the calibration data wider in your \
             model",
        );
    }
    let Some((at, layerwise)) = reader.get("layerwise") else { return Ok(()) };
    let enabled = match layerwise {
        Value::Object(options) => {
            const OPTIONS: [&str; 5] = [
                "enable",
                "get_qdq_activations_from_prev_layer",
                "checkpoint_dir",
                "save_every",
                "calib_mutates_weights",
            ];
            keys(&at, options, &OPTIONS)?;
            Reader { at: &at, attributes: options }.flag("enable", false)?
        }
        other => boolean(&at, other)?,
    };
    match enabled {
        true => reader.unsupported("layerwise", layerwise, "all layers are calibrated on the data of one model"),
        false => Ok(()),
    }
}

/// Options of the machinery that finds ranges by `max`: how they are brought together, not what they are.
fn machinery(reader: &Reader<'_>) -> Result<(), Problem> {
    reader.flag("distributed_sync", true)?; // shards merge their statistics
    reader.flag("skip_forward_without_activation_calib", false)?;
    if let Some((_, states)) = reader.get("shared_states") {
        return reader.unsupported("shared_states", states, "siblings share the range of the tensor by their names");
    }
    match reader.flag("sync_expert_weight_amax", false)? {
        true => {
            reader.unsupported("sync_expert_weight_amax", &Value::Bool(true), "each expert's weight has its own range")
        }
        false => Ok(()),
    }
}

/// An algorithm by name, or by a dictionary with its options.
fn calibration(at: &str, value: &Value) -> Result<Algorithm, Problem> {
    let empty = Map::new();
    let (name, options) = match value {
        Value::Null => return Ok(Algorithm::None),
        Value::Array(steps) => {
            let step = |(i, step): (usize, &Value)| {
                if step.is_array() || step.is_null() {
                    return wrong(&format!("{at}[{i}]"), "the name of an algorithm, or its options", step);
                }
                calibration(&format!("{at}[{i}]"), step)
            };
            return steps.iter().enumerate().map(step).collect::<Result<_, _>>().map(Algorithm::Sequence);
        }
        Value::String(name) => (name.as_str(), &empty),
        Value::Object(options) => match options.get("method") {
            Some(Value::String(name)) => (name.as_str(), options),
            Some(Value::Null) => return Ok(Algorithm::None),
            _ => return problem(at, ImportProblem::Missing { key: "method" }),
        },
        other => return wrong(at, "the name of an algorithm, or its options", other),
    };
    let reader = Reader { at, attributes: options };
    let float = |key: &str, default: f32| reader.get(key).map_or(Ok(default), |(at, value)| number(&at, value));
    let size = |key: &str, default: usize| reader.get(key).map_or(Ok(default), |(at, value)| count(&at, value));
    let known = |known: &[&str]| {
        keys(at, options, &[&["method"], known, &COMMON].concat())?;
        common(&reader)?;
        machinery(&reader)?;
        reader.flag("debug", false)?; // keeps intermediate results
        Ok(())
    };
    let search = |default: bool| -> Result<RangeSearch, Problem> {
        let start = float("start_multiplier", 0.25)?;
        let (stop, step) = (float("stop_multiplier", 4.0)?, float("step_size", 0.1)?);
        let multipliers = RangeSearch::Multipliers { start, stop, step, include_max: IncludeMax::Always };
        Ok(if reader.flag("fp8_scale_sweep", default)? { RangeSearch::E4m3Scales } else { multipliers })
    };
    const SEARCH: [&str; 6] =
        ["step_size", "start_multiplier", "stop_multiplier", "fp8_scale_sweep", "distributed_sync", "shared_states"];
    const MAX: [&str; 4] =
        ["distributed_sync", "sync_expert_weight_amax", "shared_states", "skip_forward_without_activation_calib"];
    match name {
        "max" => known(&MAX).map(|()| Algorithm::Max),
        "mse" => {
            known(&SEARCH)?;
            Ok(Algorithm::Mse(search(false)?))
        }
        "local_hessian" => {
            known(&[&SEARCH[..], &["block_size", "debug"]].concat())?;
            let (search, block_size) = (search(true)?, size("block_size", 16)?);
            Ok(Algorithm::LocalHessian { search, block_size, inputs: CalibrationInputs::Quantized })
        }
        "nvfp4_act_headroom" => {
            known(&["anchor_percentile", "upper_percentile", "rho", "weight_scale_algorithm"])?;
            if let Some((at, weights)) = reader.get("weight_scale_algorithm")
                && calibration(&at, weights)? != Algorithm::Max
            {
                let instead = "list it as an algorithm of its own, before this one";
                return reader.unsupported("weight_scale_algorithm", weights, instead);
            }
            Ok(Algorithm::ActivationHeadroom {
                anchor_percentile: float("anchor_percentile", 1.0)?,
                upper_percentile: float("upper_percentile", 99.99)?,
                rho: float("rho", 16384.0)?,
            })
        }
        "smoothquant" => {
            known(&["alpha"])?;
            Ok(Algorithm::smoothquant(float("alpha", 1.0)?))
        }
        "awq_lite" => {
            known(&["alpha_step", "debug"])?;
            Ok(Algorithm::AwqLite {
                alpha_step: float("alpha_step", 0.1)?,
                sharing: SiblingScales::PerLayer,
                identity: Identity::Tried,
            })
        }
        "awq_clip" => {
            // how many rows and tokens are taken at a time changes the memory, not the result
            known(&["min_clip_ratio", "shrink_step", "max_co_batch_size", "max_tokens_per_batch", "debug"])?;
            Ok(Algorithm::AwqClip {
                min_clip_ratio: float("min_clip_ratio", 0.5)?,
                shrink_step: float("shrink_step", 0.05)?,
            })
        }
        "awq_full" => {
            let clip = ["min_clip_ratio", "shrink_step", "max_co_batch_size", "max_tokens_per_batch"];
            known(&[&clip[..], &["alpha_step", "debug"]].concat())?;
            Ok(Algorithm::AwqFull {
                alpha_step: float("alpha_step", 0.1)?,
                min_clip_ratio: float("min_clip_ratio", 0.5)?,
                shrink_step: float("shrink_step", 0.05)?,
                sharing: SiblingScales::PerLayer,
                identity: Identity::Tried,
            })
        }
        "svdquant" => {
            known(&["lowrank", "skip_layers", "alpha_step", "debug"])?;
            let skip_layers = match reader.get("skip_layers") {
                None | Some((_, Value::Null)) => Vec::new(),
                Some((at, Value::Array(globs))) => {
                    let glob = |glob: &Value| match glob {
                        Value::String(glob) => Ok(glob.clone()),
                        other => wrong(&at, "patterns of layer names", other),
                    };
                    globs.iter().map(glob).collect::<Result<_, _>>()?
                }
                Some((at, other)) => return wrong(&at, "a list of patterns of layer names", other),
            };
            Ok(Algorithm::SvdQuant { rank: size("lowrank", 32)?, alpha_step: float("alpha_step", 0.1)?, skip_layers })
        }
        "gptq" => {
            known(&["perc_damp", "block_size", "fused"])?;
            reader.flag("fused", false)?; // a kernel with the same result
            let (damping, block_size) = (float("perc_damp", 0.01)?, size("block_size", 128)?);
            Ok(Algorithm::Gptq { damping, block_size, act_order: ActOrder::Off, inputs: CalibrationInputs::Quantized })
        }
        _ => wrong(at, "an algorithm of ModelOpt", value),
    }
}
