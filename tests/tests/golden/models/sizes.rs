//! Whether the runner takes sizes from the folder that it is given: a model of three heads, one block and other widths
//! runs too.

use burn::tensor::{DType, Device, TensorData};
use serde_json::json;

use super::networks::{Loader, Network, Sums, Transformer};
use super::{Source, run};
use crate::index::{Golden, Outcome, values};

const HEADS: usize = 3;
const BATCH: usize = 2;
const TOKENS: usize = 5;
const WIDTH: usize = 12;
const INNER: usize = 7;
const OUTPUTS: usize = 3;

/// Runs a folder that is made here, whose index does not say how many heads the model has.
pub(crate) fn check(device: &Device) -> Result<(), String> {
    let index = |y: bool| {
        let expected = if y { json!({ "y": "y" }) } else { json!({}) };
        json!({
            "format_version": 1,
            "reference": {},
            "num_cases": 1,
            "cases": [{
                "name": "transformer_float", "group": "model_transformer", "file": "model_transformer.safetensors",
                "config": {}, "expected": expected,
            }],
        })
    };
    let mut tensors = parameters();
    let golden = Golden::of(index(false), &tensors);
    let source = Source { golden: &golden, case: &golden.cases()[0], device, dtype: DType::F32 };
    let model = Transformer::with_heads(&Loader { source: &source, device }, HEADS);
    let y = values(model.forward(Transformer::input(&source, "eval", device), Sums::OfTheLayer));
    tensors.push(("y".into(), TensorData::new(y, [BATCH, OUTPUTS])));

    let golden = Golden::of(index(true), &tensors);
    match run(&golden, &golden.cases()[0], device) {
        Outcome::Passed if golden.heads.get() == Some(&HEADS) => Ok(()),
        Outcome::Passed => Err(format!("{:?} heads, expected {HEADS}", golden.heads.get())),
        Outcome::Failed(why) | Outcome::NotYet(why) => Err(why),
    }
}

fn parameters() -> Vec<(String, TensorData)> {
    let mut tensors = Vec::new();
    let mut seed = 1u32;
    let mut add = |name: String, shape: Vec<usize>| {
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let values: Vec<f32> = (0..shape.iter().product()).map(|_: usize| next()).collect();
        tensors.push((name, TensorData::new(values, shape)));
    };
    let mut linear = |name: &str, outputs: usize, inputs: usize| {
        add(format!("param/{name}.weight"), vec![outputs, inputs]);
        add(format!("param/{name}.bias"), vec![outputs]);
    };
    for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
        linear(&format!("blocks.0.{name}"), WIDTH, WIDTH);
    }
    linear("blocks.0.fc1", INNER, WIDTH);
    linear("blocks.0.fc2", WIDTH, INNER);
    linear("head", OUTPUTS, WIDTH);
    for name in ["blocks.0.norm1", "blocks.0.norm2", "norm"] {
        add(format!("param/{name}.weight"), vec![WIDTH]);
        add(format!("param/{name}.bias"), vec![WIDTH]);
    }
    for name in ["calib/0", "eval"] {
        add(name.into(), vec![BATCH, TOKENS, WIDTH]);
    }
    tensors
}
