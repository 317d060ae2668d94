//! Frequency factors of Llama 3, which files hold as the tensor `rope_freqs.weight`.
//!
//! ```text
//! λ_i = 2π θ^(2i/D)      C = original_max_position_embeddings
//! factor_i = 1                                  λ_i < C / high
//!            factor                             λ_i > C / low
//!            1 / ((1 − s) / factor + s)         between, s = (C / λ_i − low) / (high − low)
//! ```
//!
//! Source: `LlamaModel.generate_extra_tensors` of llama.cpp's `convert_hf_to_gguf.py`. Frequencies are f32 there, the
//! rest is f64.

use serde_json::{Value, json};

use crate::CheckpointError;

/// The tensor that holds the factors.
pub(super) const TENSOR: &str = "rope_freqs.weight";

/// The scaling of rotations of a `config.json`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scaling {
    /// None.
    None,
    /// Positions are divided by a factor.
    Linear { factor: f32 },
    /// YaRN: frequencies between the original and the divided one.
    Yarn { factor: f32, original: usize },
    /// Llama 3: factors for each frequency.
    Llama3(Llama3),
}

/// Parameters of Llama 3's scaling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Llama3 {
    pub(super) factor: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) original: f64,
}

impl Scaling {
    /// Reads `rope_scaling`, or `rope_parameters` as `transformers` 5 writes them.
    pub(super) fn of_config(config: &Value) -> Result<Self, CheckpointError> {
        let rope =
            if config["rope_scaling"].is_object() { &config["rope_scaling"] } else { &config["rope_parameters"] };
        let number = |key: &str, default: f64| rope[key].as_f64().unwrap_or(default);
        let kind = rope["rope_type"].as_str().or_else(|| rope["type"].as_str());
        let original = number("original_max_position_embeddings", 8192.0);
        Ok(match kind {
            None | Some("default") => Scaling::None,
            Some("linear") => Scaling::Linear { factor: number("factor", 1.0) as f32 },
            Some("yarn") => Scaling::Yarn { factor: number("factor", 1.0) as f32, original: original as usize },
            Some("llama3") => Scaling::Llama3(Llama3 {
                factor: number("factor", 8.0),
                low: number("low_freq_factor", 1.0),
                high: number("high_freq_factor", 4.0),
                original,
            }),
            Some(other) => {
                return Err(CheckpointError::Unknown {
                    what: "rope_type".into(),
                    found: other.into(),
                    known: "default, linear, yarn and llama3",
                });
            }
        })
    }
}

impl Llama3 {
    /// Returns the factors of the `head / 2` frequencies.
    pub(super) fn factors(&self, theta: f64, head: usize) -> Vec<f32> {
        (0..head / 2)
            .map(|i| {
                let exponent = (2 * i) as f32 / head as f32;
                let frequency = 1.0 / (theta as f32).powf(exponent);
                let wavelength = 2.0 * std::f64::consts::PI / f64::from(frequency);
                if wavelength < self.original / self.high {
                    1.0
                } else if wavelength > self.original / self.low {
                    self.factor as f32
                } else {
                    let smooth = (self.original / wavelength - self.low) / (self.high - self.low);
                    (1.0 / ((1.0 - smooth) / self.factor + smooth)) as f32
                }
            })
            .collect()
    }

    /// Returns `rope_scaling` for factors of a file.
    ///
    /// Factors do not tell their parameters apart, so those of the released models are tried: `low` 1, `high` 4 and an
    /// original context of 8192, with the largest factor.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Unknown`] for other factors.
    pub(super) fn config_of(factors: &[f32], theta: f64) -> Result<Value, CheckpointError> {
        let factor = factors.iter().fold(1.0f32, |a, b| a.max(*b));
        let released = Self { factor: f64::from(factor), low: 1.0, high: 4.0, original: 8192.0 };
        let expected = released.factors(theta, factors.len() * 2);
        let agrees = |a: f32, b: f32| (a - b).abs() <= 1e-4 * b.abs();
        if !expected.iter().zip(factors).all(|(a, b)| agrees(*a, *b)) {
            return Err(CheckpointError::Unknown {
                what: TENSOR.into(),
                found: format!("factors up to {factor}"),
                known: "those of Llama 3: low_freq_factor 1, high_freq_factor 4, original context 8192",
            });
        }
        Ok(json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }))
    }
}
