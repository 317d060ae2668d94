//! What a training loop may want beside the quantized model: a loss against its float self.
//!
//! Training itself is the user's loop, or burn's: a quantized model is trained like any other.
//!
//! * [`Distillation`] learns the outputs of a teacher
//! * [`Lora`] trains factors of low rank beside frozen quantized weights
//!
//! Ranges that are learned are a gradient rule of the quantizer, [`GradientRule::Lsq`](crate::GradientRule::Lsq) and
//! [`GradientRule::Pact`](crate::GradientRule::Pact). For a start in float, keep the [`Plan`](crate::Plan) of the model,
//! [`disable`](crate::disable) everything, and [`install_plan`](crate::install_plan) when it is time; to observe ranges again, call
//! [`observe`](crate::observe()) and [`calibrate`](crate::calibrate) on the model.

mod distillation;
mod lora;

pub use distillation::Distillation;
pub use lora::Lora;
