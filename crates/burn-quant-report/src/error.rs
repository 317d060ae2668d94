//! Why a model could not be diagnosed.

use burn_quant_core::error::QuantError;

/// Why a model could not be diagnosed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiagnoseError {
    /// There was no batch, or the output of none had a value.
    #[error("no batch of data with an output: a diagnosis compares two models on data, one batch at least")]
    NoData,
    /// The outputs of the models have different shapes.
    #[error(
        "batch {batch}: the output of the float model has the shape {float:?}, that of the quantized model \
         {quantized:?}; give both models the same data, and nothing random"
    )]
    OutputsDiffer {
        /// Which batch, from 0.
        batch: u64,
        /// The shape of the float output.
        float: Vec<usize>,
        /// The shape of the quantized output.
        quantized: Vec<usize>,
    },
    /// A weight is in one of the models only, or has another shape there.
    #[error(
        "`{path}` is {float} in the float model and {quantized} in the quantized one: give models of one architecture"
    )]
    WeightsDiffer {
        /// The weight.
        path: String,
        /// Its shape in the float model, if it is there.
        float: WeightShape,
        /// Its shape in the quantized model, if it is there.
        quantized: WeightShape,
    },
    /// A quantizer is enabled, static, and was never calibrated.
    #[error("`{name}` is static and has no range: calibrate it, or disable it")]
    NeverCalibrated {
        /// The quantizer.
        name: String,
    },
    /// The model cannot be diagnosed: it is packed.
    #[error(transparent)]
    Quant(#[from] QuantError),
}

/// The shape of a weight, if a model has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightShape(pub Option<Vec<usize>>);

impl std::fmt::Display for WeightShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(shape) => write!(f, "of the shape {shape:?}"),
            None => f.write_str("missing"),
        }
    }
}
