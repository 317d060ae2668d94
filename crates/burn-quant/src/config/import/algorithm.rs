//! The algorithm of a configuration.

use serde_json::{Map, Value};

use super::ImportProblem;
use super::attributes::Reader;
use super::problem::{Problem, count, keys, number, problem, wrong};
use crate::config::{Algorithm, RangeSearch};

/// An algorithm by name, or by a dictionary with its options.
pub(super) fn algorithm(at: &str, value: &Value) -> Result<Algorithm, Problem> {
    let empty = Map::new();
    let (name, options) = match value {
        Value::Null => return Ok(Algorithm::None),
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
        let multipliers = RangeSearch::Multipliers { start, stop, step };
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
            Ok(Algorithm::LocalHessian { search: search(true)?, block_size: size("block_size", 16)? })
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
            Ok(Algorithm::SmoothQuant { alpha: float("alpha", 1.0)? })
        }
        "awq_lite" => {
            known(&["alpha_step"])?;
            Ok(Algorithm::AwqLite { alpha_step: float("alpha_step", 0.1)? })
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
            })
        }
        "svdquant" => {
            known(&["lowrank"])?;
            Ok(Algorithm::SvdQuant { rank: size("lowrank", 32)? })
        }
        "gptq" => {
            known(&["perc_damp", "block_size"])?;
            Ok(Algorithm::Gptq { damping: float("perc_damp", 0.01)?, block_size: size("block_size", 128)? })
        }
        _ => wrong(at, "an algorithm of ModelOpt", value),
    }
}
