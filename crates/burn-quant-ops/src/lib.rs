//! Differentiable quantization ops on burn tensors: the only crate of the family with backend code and kernels.
//!
//! ```text
//!   x ──► group_amax ──► amax, one per group            (observation and dynamic ranges)
//!   x, amax ──► fake_quant ──► y, same shape and dtype  (straight-through gradient to x, none to amax)
//! ```
//!
//! [`Groups`] says which elements share an amax; [`FakeQuant`] adds the number format and the [`GradientRule`].
//!
//! Each op is a folder: its `reference` is composed of burn's own ops and never optimised; `flex` and `cubecl` are fused
//! kernels that give the same bits; `autodiff` is written by hand. A backend without a kernel of ours, because burn has it
//! but this crate's feature of the same name is off, runs the reference.
//!
//! # Features
//!
//! The names are burn's: `flex`, `wgpu`, `vulkan`, `metal`, `webgpu`, `cuda`, `rocm`, `cpu`, `autodiff`, `fusion`. Enable
//! here what you enable in burn.

mod backend;
mod fake_quant;
#[cfg(feature = "flex")]
mod flex;
mod group_amax;
mod groups;

pub use burn_quant_numerics as numerics;
pub use fake_quant::{
    Bias, Call, FakeQuant, FakeQuantOps, GradientRule, Ranges, Scales, fake_quant, fake_quant_affine,
};
pub use group_amax::{GroupAmaxOps, group_amax};
pub use groups::{AxisGroups, Groups};
