//! Differentiable quantization ops on burn tensors: the only crate of the family with backend code and kernels.
//!
//! ```text
//!   x ──► group_amax ──► amax, one per group            (observation)
//!   x, ranges ──► fake_quant ──► y, same shape and dtype  (straight-through gradient to x, and to learned ranges)
//!   x, bias, ranges ──► fake_quant_affine ──► y           (the same around a bias)
//!   x ──► hadamard ──► y                                  (an orthogonal rotation of blocks, and its inverse)
//!   x, codes and scales ──► packed_linear ──► y           (a linear layer of a packed weight)
//!   x, codes and scales ──► packed_conv ────► y           (a convolution with a packed kernel)
//!   rows ──► PackedRows ──► rows                          (what a cache holds of tokens)
//! ```
//!
//! [`Groups`] says which elements share an amax; [`FakeQuant`] adds the number format and the [`GradientRule`];
//! [`Ranges`] are given, or taken from the data in the same pass, for scales in f32, E8M0 (MX formats) or E4M3 (NVFP4).
//!
//! Each op is a folder: its `reference` is composed of burn's own ops and never optimised; `flex` and `cubecl` are
//! fused kernels that give the same bits; `autodiff` is written by hand. A backend without a kernel of ours, because
//! burn has it but this crate's feature of the same name is off, runs the reference.
//!
//! # Features
//!
//! The names are burn's: `flex`, `wgpu`, `vulkan`, `metal`, `webgpu`, `cuda`, `rocm`, `cpu`, `autodiff`, `fusion`,
//! `autotune`. Enable here what you enable in burn.

mod backend;
#[cfg(feature = "capture")]
mod capture;
mod fake_quant;
#[cfg(feature = "flex")]
mod flex;
mod group_amax;
mod groups;
mod hadamard;
mod max_pool;
mod packed_conv;
mod packed_conv_transpose;
mod packed_linear;
mod packed_rows;
#[cfg(feature = "capture")]
mod recording;
mod relative_entropy;

pub use backend::{has_kernels, is_capture, is_flex};
pub use burn_quant_numerics as numerics;
#[cfg(feature = "capture")]
pub use capture::{NotRecorded, RecordedOp, register_ops};
pub use fake_quant::{
    Bias, Call, FakeQuant, FakeQuantOps, GradientRule, Ranges, Scales, fake_quant, fake_quant_affine,
};
pub use group_amax::{GroupAmaxOps, group_amax};
pub use groups::{AxisGroups, Groups};
pub use hadamard::{Direction, Hadamard, HadamardOps, hadamard};
pub use max_pool::max_pool2d;
pub use packed_conv::{PackedConv, PackedConvCall, PackedConvOps, convolves_integers, packed_conv};
pub use packed_conv_transpose::{
    PackedConvTranspose, PackedConvTransposeCall, PackedConvTransposeOps, packed_conv_transpose,
};
pub use packed_linear::{
    ActivationKind, Activations, Around, NotPacked, OutputRounding, PackedCall, PackedLayout, PackedLinearOps,
    PackedOffsets, PackedScales, PackedTensor, Pointwise, multiplies_integers, packed_linear, packed_linear_fused,
};
pub use packed_rows::{PackedRows, RowRanges, RowsLayout};
pub use relative_entropy::relative_entropy;
