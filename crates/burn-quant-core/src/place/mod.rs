//! Model + QuantConfig -> the same model with a quantizer on every weight that is known, and a [`Plan`].
//!
//! * [`WeightLayouts`] which parameters are weights, and what their axes mean
//! * [`Plan`] the resolved configuration of every quantizer, by name
//! * [`place`] rules to plan, plan to model; [`enable`] and [`disable`] switch what is placed

mod beside;
mod layout;
mod plan;
mod switch;

pub use beside::BesideConvolution;
pub use layout::WeightLayouts;
pub use plan::{NoWeights, Placed};
pub use plan::{Plan, PlannedQuantizer, install_plan, place, plan};
pub use switch::{disable, enable};
