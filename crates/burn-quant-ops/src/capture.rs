//! Ops as nodes of a captured graph, one each: what is recorded of them, and how it is run again.
//!
//! ```text
//! fake_quant(x, …) on Device::capture() ──► Custom("burn_quant::fake_quant", [x, amax, …], scalars) ──► RecordedOp
//!                                                              │
//!                                                              └──► register_ops: any backend runs it by its kernel
//! ```
//!
//! Each op's folder has its side of it, `capture.rs`.

use burn::backend::ir::{BackendIr, CustomOpIr};
use burn::backend::{DispatchKindConversion, DispatchTensor};
use burn_router::CustomOpRegistry;

use crate::fake_quant::{Call, capture as fake_quant};
use crate::group_amax::capture as group_amax;
use crate::hadamard::capture as hadamard;
use crate::packed_conv::capture as packed_conv;
use crate::packed_conv_transpose::capture as packed_conv_transpose;
use crate::packed_linear::{PackedCall, capture as packed_linear};
use crate::recording::read;
use crate::{FakeQuantOps, GroupAmaxOps, Groups, Hadamard, HadamardOps, PackedLayout, PackedLinearOps};
use crate::{PackedConvCall, PackedConvTransposeCall};

/// An op of this crate in a captured graph.
///
/// Tensors that an op does not use are not among its inputs.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RecordedOp {
    /// [`fake_quant`](crate::fake_quant()): `x`, then amax, the range of the tensor, and the bias, where there are
    /// such.
    FakeQuant(Call),
    /// [`group_amax`](crate::group_amax()) of one tensor.
    GroupAmax(Groups),
    /// [`hadamard`](crate::hadamard()) of one tensor.
    Hadamard(Hadamard),
    /// [`packed_linear`](crate::packed_linear()): `x [rows, inputs]` in f32, codes, scales, and the range of the
    /// activations where it is given.
    PackedLinear(PackedCall),
    /// [`PackedTensor::unpack`](crate::PackedTensor::unpack) without offsets: codes and scales.
    PackedUnpack(PackedLayout),
    /// [`PackedTensor::columns`](crate::PackedTensor::columns) without offsets: codes, scales and indices.
    PackedColumns(PackedLayout),
    /// [`packed_conv`](crate::packed_conv()) in integers: `x [batch, in, …]` in f32, codes, ranges, the range of the
    /// activations, then the bias and the offsets, where there are such.
    PackedConv(PackedConvCall),
    /// [`packed_conv_transpose`](crate::packed_conv_transpose()) in integers, with the same inputs.
    PackedConvTranspose(PackedConvTransposeCall),
}

/// Why a node of a graph is no op of this crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotRecorded {
    /// The node's id.
    pub id: String,
}

impl std::fmt::Display for NotRecorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` is no op of burn-quant, or of another version", self.id)
    }
}

impl std::error::Error for NotRecorded {}

impl RecordedOp {
    /// Reads a node of a captured graph; `shape` is that of its first input.
    ///
    /// # Errors
    ///
    /// [`NotRecorded`] if it is another crate's, or of a version that records something else.
    pub fn of(op: &CustomOpIr, shape: &[usize]) -> Result<Self, NotRecorded> {
        let read = match op.id.as_str() {
            fake_quant::ID => read(op, shape).map(Self::FakeQuant),
            group_amax::ID => read(op, shape).map(Self::GroupAmax),
            hadamard::ID => read(op, shape).map(Self::Hadamard),
            packed_linear::LINEAR => read(op, shape).map(Self::PackedLinear),
            packed_linear::UNPACK => read(op, shape).map(Self::PackedUnpack),
            packed_linear::COLUMNS => read(op, shape).map(Self::PackedColumns),
            packed_conv::ID => read(op, shape).map(Self::PackedConv),
            packed_conv_transpose::ID => read(op, shape).map(Self::PackedConvTranspose),
            _ => None,
        };
        read.ok_or_else(|| NotRecorded { id: op.id.clone() })
    }
}

/// Teaches an interpreter of graphs, or a server of burn's remote backend, the ops of this crate.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::backend::Flex;
/// use burn_router::{CustomOpRegistry, TensorInterpreter};
///
/// let mut registry = CustomOpRegistry::<Flex>::new();
/// burn_quant_ops::register_ops(&mut registry);
/// let interpreter = TensorInterpreter::with_custom_ops(Default::default(), registry);
/// # }
/// ```
pub fn register_ops<B>(registry: &mut CustomOpRegistry<B>)
where
    B: BackendIr + FakeQuantOps + GroupAmaxOps + HadamardOps + PackedLinearOps,
    DispatchTensor: DispatchKindConversion<B>,
{
    registry.register(fake_quant::ID, |handles, op, _| fake_quant::run::<B>(handles, op));
    registry.register(group_amax::ID, |handles, op, _| group_amax::run::<B>(handles, op));
    registry.register(hadamard::ID, |handles, op, _| hadamard::run::<B>(handles, op));
    for id in [packed_linear::LINEAR, packed_linear::UNPACK, packed_linear::COLUMNS] {
        registry.register(id, |handles, op, _| packed_linear::run::<B>(handles, op));
    }
    registry.register(packed_conv::ID, |handles, op, _| packed_conv::run::<B>(handles, op));
    registry.register(packed_conv_transpose::ID, |handles, op, _| packed_conv_transpose::run::<B>(handles, op));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_quant::capture::SCALES;
    use crate::packed_linear::capture::{ACTIVATIONS, DTYPES, SCALE_FORMATS};
    use crate::recording::{FLOATS, SIGNS, SPANS, Scalars};
    use crate::{AxisGroups, Direction, FakeQuant, GradientRule, PackedConv, PackedConvTranspose};
    use burn_quant_numerics::IntFormat;

    /// The node of an op, with some of its scalars.
    fn node(scalars: &[burn::backend::ir::ScalarIr]) -> CustomOpIr {
        CustomOpIr::with_scalars("burn_quant::op", &[], &[], scalars.to_vec())
    }

    fn comes_back<T: Scalars + PartialEq + std::fmt::Debug>(value: T, shape: &[usize]) {
        let scalars = value.scalars();
        assert_eq!(read::<T>(&node(&scalars), shape).as_ref(), Some(&value));
        for len in 0..scalars.len() {
            // what is cut off may be what is optional
            let short = read::<T>(&node(&scalars[..len]), shape);
            assert!(short.as_ref() != Some(&value), "{len} of {} scalars", scalars.len());
        }
    }

    #[test]
    fn what_an_op_is_told_comes_back() {
        let shape = [6, 10];
        let ints = (2..=16).flat_map(|bits| {
            SIGNS.into_iter().flat_map(move |sign| SPANS.map(|span| IntFormat::new(bits, sign, span).unwrap().into()))
        });
        let divisions = [
            Groups::per_tensor(&shape),
            Groups::per_channel(&shape, 1),
            Groups::blocks(&shape, 1, 4),
            Groups::new(&shape, &[AxisGroups::Blocks(2), AxisGroups::Blocks(3)]),
        ];
        for format in ints.chain(FLOATS) {
            for groups in divisions.clone() {
                let spec = FakeQuant { format, groups: groups.clone(), gradient: GradientRule::Clipped };
                for scales in SCALES {
                    comes_back(Call { spec: spec.clone(), scales, bias: None }, &shape);
                    comes_back(Call { spec: spec.clone(), scales, bias: Some(groups.clone()) }, &shape);
                }
            }
            for scale in SCALE_FORMATS {
                let Ok(layout) = PackedLayout::new(6, 10, 4, format, scale) else { continue };
                for (activations, dtype) in ACTIVATIONS.into_iter().zip(DTYPES) {
                    let layout = layout.with_global_amax(3.5);
                    comes_back(PackedCall { layout, activations, dtype }, &shape);
                }
            }
        }
        for signs in [None, Some(u64::MAX)] {
            comes_back(Hadamard { axis: 1, block: 8, signs, direction: Direction::Inverse }, &shape);
        }
    }

    #[test]
    fn the_geometry_of_a_packed_convolution_comes_back() {
        let int8 = IntFormat::signed(8).unwrap().into();
        let layout = PackedLayout::new(6, 12, 6, int8, burn_quant_numerics::ScaleFormat::F32).unwrap();
        for axes in 1..=3 {
            let of = |from: usize| (from..from + axes).collect::<Vec<_>>();
            let shape = vec![7; axes + 2];
            let pairs: Vec<_> = of(0).into_iter().zip(of(3)).collect();
            let conv = PackedConv::new(&of(2)).with_stride(&of(1)).with_padding(&pairs).with_dilation(&of(2));
            let conv = conv.with_groups(3);
            assert_eq!((conv.kernel(), conv.stride(), conv.padding()), (&of(2)[..], &of(1)[..], &pairs[..]));
            let up = PackedConvTranspose::new(&of(2)).with_stride(&of(1)).with_padding(&of(0)).with_padding_out(&of(4));
            let up = up.with_dilation(&of(3)).with_groups(2);
            assert_eq!((up.padding(), up.padding_out(), up.dilation()), (&of(0)[..], &of(4)[..], &of(3)[..]));
            for (has_bias, has_offsets) in [(false, false), (true, false), (false, true)] {
                comes_back(PackedConvCall { layout, conv: conv.clone(), has_bias, has_offsets }, &shape);
                comes_back(PackedConvTransposeCall { layout, conv: up.clone(), has_bias, has_offsets }, &shape);
            }
            let scalars = conv.scalars();
            assert_eq!(read::<PackedConv>(&node(&scalars), &shape[1..]), None, "an image of fewer axes");
        }
    }

    /// A whole axis stays whole on a tensor of another size, and blocks stay as large.
    #[test]
    fn groups_fit_tensors_of_another_size() {
        let read = |groups: &Groups, shape: &[usize]| read::<Groups>(&node(&groups.scalars()), shape);
        assert_eq!(read(&Groups::per_channel(&[2, 8], 1), &[5, 8]), Some(Groups::per_channel(&[5, 8], 1)));
        assert_eq!(read(&Groups::blocks(&[2, 8], 1, 4), &[7, 12]), Some(Groups::blocks(&[7, 12], 1, 4)));
        assert_eq!(read(&Groups::per_tensor(&[2, 8]), &[2, 8, 1]), None);
    }
}
