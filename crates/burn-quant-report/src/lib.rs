//! Diagnosis of quantized models, of the toolkit [`burn-quant`](https://docs.rs/burn-quant): which layer loses
//! accuracy, why, and what to change.
//!
//! ```text
//! float model ─┐                ┌─► Display   the ten worst layers and what to do
//!              ├─► diagnose ──► Diagnosis ─► JSON
//! quantized ───┘   (taps)       └─► html      one page, opens from disk
//! ```
//!
//! | module | |
//! |---|---|
//! | `diagnosis` | what was found: plain data |
//! | `measure` | taps that sum on the device |
//! | `case` | numbers of quantizers and layers, put together |
//! | `findings` | numbers -> what is wrong, in words, and the recipe that mends it |
//! | `sensitivity` | the metric with each layer quantized alone |
//! | `html`, `text` | what people see |

mod case;
mod diagnose;
mod diagnosis;
mod error;
mod findings;
mod html;
mod measure;
mod non_finite;
mod options;
mod sensitivity;
mod text;

pub use diagnose::diagnose;
pub use diagnosis::{
    Better, CurvePoint, Diagnosis, Ends, Finding, FindingKind, Histogram, LayerDiagnosis, Metric, NO_NOISE, Operand,
    Overview, QuantizerDiagnosis, RecipeResult, Sensitivity, Severity,
};
pub use error::{DiagnoseError, WeightShape};
pub use options::{DiagnoseOptions, DiagnoseProgress};
