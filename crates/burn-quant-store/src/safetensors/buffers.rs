//! Where the buffers of quantizers are in a file, and in which shape.

use std::collections::BTreeMap;

use burn_quant_core::layout::Role;
use burn_quant_core::model::{layer_of, within};
use burn_quant_core::place::{Plan, PlannedQuantizer};
use burn_quant_core::quantizer::{Buffer, TensorQuantizer};

use crate::check::{buffer_owner, weight_of};

/// A buffer that a quantizer of a plan may have.
pub(super) struct BufferPlace {
    /// Its path in burn's record: `fc.weight.weight_quantizer.amax`.
    pub(super) record: String,
    /// Its name in the file: `fc.weight_quantizer.amax`.
    pub(super) file: String,
    shape: BufferShape,
}

enum BufferShape {
    /// One axis.
    Flat,
    /// The groups along each axis of the weight.
    Groups(Vec<usize>),
    /// So many rows.
    Rows(usize),
    /// So many columns.
    Columns(usize),
}

impl BufferPlace {
    /// The shape of so many values: that of its kind, if it has as many.
    pub(super) fn shape(&self, len: usize) -> Vec<usize> {
        let shape = match &self.shape {
            BufferShape::Flat => vec![len],
            BufferShape::Groups(counts) => counts.clone(),
            BufferShape::Rows(rows) => vec![*rows, len / (*rows).max(1)],
            BufferShape::Columns(columns) => vec![len / (*columns).max(1), *columns],
        };
        if shape.iter().product::<usize>() == len { shape } else { vec![len] }
    }
}

/// The name in the file of a buffer of a quantizer, or of a stage of it.
pub(super) fn buffer_name(quantizer: &str, buffer: Buffer) -> String {
    format!("{quantizer}.{}", buffer.name())
}

/// All buffers that the quantizers of a plan may have; `shapes` are those of parameters, by path.
pub(super) fn buffer_places(plan: &Plan, shapes: &BTreeMap<String, Vec<usize>>) -> Vec<BufferPlace> {
    let mut places = Vec::new();
    for (name, planned) in &plan.quantizers {
        let quantizer = TensorQuantizer::new(planned.config.clone(), planned.role);
        let weight = shapes.get(&path_of_weight(name, planned)).map(Vec::as_slice);
        for (i, (stage, _)) in quantizer.stages(name).enumerate() {
            places.extend(Buffer::ALL.map(|buffer| BufferPlace {
                record: format!("{}.{}", buffer_owner(&stage, planned.role), buffer.name()),
                file: buffer_name(&stage, buffer),
                shape: match weight {
                    Some(weight) if i == 0 => shape_of(buffer, name, planned, &quantizer, weight),
                    _ => BufferShape::Flat,
                },
            }));
        }
    }
    places
}

/// The weight that a quantizer is for, or that is beside it.
fn path_of_weight(name: &str, planned: &PlannedQuantizer) -> String {
    match planned.role {
        Role::Weight(_) => weight_of(name),
        _ => within(layer_of(name), "weight"),
    }
}

fn shape_of(
    buffer: Buffer,
    name: &str,
    planned: &PlannedQuantizer,
    quantizer: &TensorQuantizer,
    weight: &[usize],
) -> BufferShape {
    let is_weight = matches!(planned.role, Role::Weight(_));
    let divides = is_weight && planned.enabled && planned.check(name, Some(weight)).is_ok();
    match (buffer, weight) {
        (Buffer::Amax | Buffer::AmaxPost, _) if divides => {
            BufferShape::Groups(quantizer.range_groups(weight).counts().to_vec())
        }
        (Buffer::Bias, _) if divides => match quantizer.bias_groups(weight) {
            Some(groups) => BufferShape::Groups(groups.counts().to_vec()),
            None => BufferShape::Flat,
        },
        (Buffer::LowRankDown, [inputs, _]) => BufferShape::Rows(*inputs),
        (Buffer::LowRankUp, [_, outputs]) => BufferShape::Columns(*outputs),
        _ => BufferShape::Flat,
    }
}
