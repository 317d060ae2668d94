//! Where a traversal is in a model.

use burn::module::Reparameterization;

use crate::quantizer::TensorQuantizer;

/// One step of a path: the name of a field, and the struct that owns it.
#[derive(Clone, Debug)]
struct PathSegment {
    name: String,
    container: String,
}

/// The fields that lead to a parameter or a quantizer.
#[derive(Clone, Debug, Default)]
pub struct Path(Vec<PathSegment>);

const REPARAMETERIZATION: &str = "Reparameterization";
const QUANTIZER: &str = "Struct:TensorQuantizer";
const PACKED_WEIGHT: &str = "Struct:PackedWeight";

impl Path {
    pub(super) fn enter(&mut self, name: &str, container: &str) {
        self.0.push(PathSegment { name: name.into(), container: container.into() });
    }

    pub(super) fn exit(&mut self) {
        self.0.pop();
    }

    /// Returns the names of the fields, joined by dots.
    ///
    /// `layers.0.fc1`; empty at the root.
    pub fn joined(&self) -> String {
        self.0.iter().map(|segment| segment.name.as_str()).collect::<Vec<_>>().join(".")
    }

    /// Returns the name of the last field; empty at the root.
    ///
    /// A quantizer is called by it.
    pub fn field(&self) -> &str {
        self.0.last().map_or("", |segment| &segment.name)
    }

    /// The type name of the struct that owns the last field, or the weight whose reparameterization this is.
    pub fn container(&self) -> &str {
        let own = self.0.iter().rev().find(|segment| segment.container != REPARAMETERIZATION);
        own.map_or("", |segment| segment.container.split_once(':').map_or(&*segment.container, |(_, name)| name))
    }

    /// Whether this is the path of a tensor that a quantizer keeps.
    pub(crate) fn is_in_quantizer(&self) -> bool {
        self.0.last().is_some_and(|segment| [QUANTIZER, PACKED_WEIGHT].contains(&segment.container.as_str()))
    }

    /// The name of the quantizer at this path.
    ///
    /// An activation quantizer is named by its path. A weight quantizer, which burn keeps below its parameter, stands
    /// beside it by name: `fc.weight.weight_quantizer` is called `fc.weight_quantizer`, and that of a parameter
    /// `fc.kernel` is `fc.kernel_weight_quantizer`.
    pub fn quantizer_name(&self) -> String {
        match self.0.split_last() {
            Some((last, parameter)) if last.container == REPARAMETERIZATION => {
                Self(parameter.to_vec()).weight_quantizer_name()
            }
            _ => self.joined(),
        }
    }

    /// Returns the name that the quantizer of the parameter at this path has, or would have.
    ///
    /// `fc1.weight` has `fc1.weight_quantizer`, any other parameter `<path>_weight_quantizer`.
    pub fn weight_quantizer_name(&self) -> String {
        let mut names: Vec<&str> = self.0.iter().map(|segment| segment.name.as_str()).collect();
        let of_field;
        if let Some(field) = names.pop() {
            of_field = match field {
                "weight" => TensorQuantizer::NAME.to_string(),
                other => format!("{other}_{}", TensorQuantizer::NAME),
            };
            names.push(&of_field);
        }
        names.join(".")
    }
}

/// The path of the layer that a parameter or a quantizer belongs to; empty if it is the model itself.
pub fn layer_of(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(layer, _)| layer)
}

/// The path of a field of a layer.
pub fn within(layer: &str, field: &str) -> String {
    if layer.is_empty() { field.to_string() } else { format!("{layer}.{field}") }
}
