//! What a training loop may want beside the quantized model: a loss against its float self.
//!
//! Training itself is the user's loop, or burn's: a quantized model is trained like any other.
//!
//! * [`Distillation`] learns the outputs of a teacher
//! * [`QuantLora`] trains factors of low rank beside frozen quantized weights
//!
//! Ranges that are learned are a gradient rule of the quantizer,
//! [`GradientRule::Lsq`](burn_quant_ops::GradientRule::Lsq) and
//! [`GradientRule::Pact`](burn_quant_ops::GradientRule::Pact); separate ranges before and after rounding are
//! [`LearnedRanges`](burn_quant_core::config::LearnedRanges). For a start in float, keep the
//! [`Plan`](burn_quant_core::place::Plan) of the model, [`disable`](burn_quant_core::place::disable) everything, and
//! [`install_plan`](burn_quant_core::place::install_plan) when it is time; to observe ranges again, call
//! [`observe`](burn_quant_calibrate::pipeline::observe()) and [`calibrate`](burn_quant_calibrate::pipeline::calibrate)
//! on the model.

mod distillation;
mod lora;

pub use distillation::Distillation;
pub use lora::QuantLora;
