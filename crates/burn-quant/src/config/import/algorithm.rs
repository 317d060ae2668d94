//! The algorithm of a configuration.

use serde_json::{Map, Value};

use super::ImportProblem;
use super::attributes::Reader;
use super::problem::{Problem, count, keys, number, problem, wrong};
use crate::config::{Algorithm, ColumnOrder, Identity, Inputs, RangeSearch, Sharing, Unscaled};

/// An algorithm by name, or by a dictionary with its options.
pub(super) fn algorithm(at: &str, value: &Value) -> Result<Algorithm, Problem> {
    let empty = Map::new();
    let (name, options) = match value {
        Value::Null => return Ok(Algorithm::None),
        Value::Array(steps) => {
            let step = |(i, step): (usize, &Value)| {
                if step.is_array() || step.is_null() {
                    return wrong(&format!("{at}[{i}]"), "the name of an algorithm, or its options", step);
                }
                algorithm(&format!("{at}[{i}]"), step)
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
    let known = |known: &[&str]| keys(at, options, &[&["method"], known].concat());
    let search = |default: bool| -> Result<RangeSearch, Problem> {
        let start = float("start_multiplier", 0.25)?;
        let (stop, step) = (float("stop_multiplier", 4.0)?, float("step_size", 0.1)?);
        let multipliers = RangeSearch::Multipliers { start, stop, step, unscaled: Unscaled::Tried };
        Ok(if reader.flag("fp8_scale_sweep", default)? { RangeSearch::E4m3Scales } else { multipliers })
    };
    const SEARCH: [&str; 4] = ["step_size", "start_multiplier", "stop_multiplier", "fp8_scale_sweep"];
    match name {
        "max" => known(&[]).map(|()| Algorithm::Max),
        "mse" => {
            known(&SEARCH)?;
            Ok(Algorithm::Mse(search(false)?))
        }
        "local_hessian" => {
            known(&[&SEARCH[..], &["block_size"]].concat())?;
            let (search, block_size) = (search(true)?, size("block_size", 16)?);
            Ok(Algorithm::LocalHessian { search, block_size, inputs: Inputs::Quantized })
        }
        "nvfp4_act_headroom" => {
            known(&["anchor_percentile", "upper_percentile", "rho"])?;
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
            known(&["alpha_step"])?;
            Ok(Algorithm::AwqLite {
                alpha_step: float("alpha_step", 0.1)?,
                sharing: Sharing::Separate,
                identity: Identity::Tried,
            })
        }
        "awq_clip" => {
            // how many rows and tokens are taken at a time changes the memory, not the result
            known(&["min_clip_ratio", "shrink_step", "max_co_batch_size", "max_tokens_per_batch"])?;
            Ok(Algorithm::AwqClip {
                min_clip_ratio: float("min_clip_ratio", 0.5)?,
                shrink_step: float("shrink_step", 0.05)?,
            })
        }
        "awq_full" => {
            known(&["alpha_step", "min_clip_ratio", "shrink_step", "max_co_batch_size", "max_tokens_per_batch"])?;
            Ok(Algorithm::AwqFull {
                alpha_step: float("alpha_step", 0.1)?,
                min_clip_ratio: float("min_clip_ratio", 0.5)?,
                shrink_step: float("shrink_step", 0.05)?,
                sharing: Sharing::Separate,
                identity: Identity::Tried,
            })
        }
        "svdquant" => {
            known(&["lowrank", "skip_layers", "alpha_step"])?;
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
            known(&["perc_damp", "block_size"])?;
            let (damping, block_size) = (float("perc_damp", 0.01)?, size("block_size", 128)?);
            Ok(Algorithm::Gptq { damping, block_size, order: ColumnOrder::Natural, inputs: Inputs::Quantized })
        }
        _ => wrong(at, "an algorithm of ModelOpt", value),
    }
}
