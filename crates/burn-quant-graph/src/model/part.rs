//! What a graph model is made of: layers with quantizers, products of activations, and all other parameters.

use burn::module::{Content, Devices, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use burn_quant_core::layout::Role;
use burn_quant_core::quantizer::TensorQuantizer;
use burn_quant_nn::{
    QuantConv1d, QuantConv2d, QuantConv3d, QuantConvTranspose1d, QuantConvTranspose2d, QuantConvTranspose3d,
    QuantEmbedding, QuantLinear,
};

use crate::values::AnyTensor;

/// A product of two tensors that are computed, each behind a quantizer.
#[derive(Module, Debug)]
pub(super) struct MatMul {
    lhs_quantizer: TensorQuantizer,
    rhs_quantizer: TensorQuantizer,
}

impl MatMul {
    pub(super) fn new() -> Self {
        let disabled = || TensorQuantizer::disabled(Role::ChannelsLast);
        Self { lhs_quantizer: disabled(), rhs_quantizer: disabled() }
    }

    fn forward<const D: usize>(&self, lhs: Tensor<D>, rhs: Tensor<D>) -> Tensor<D> {
        self.lhs_quantizer.forward(lhs).matmul(self.rhs_quantizer.forward(rhs))
    }
}

macro_rules! parts {
    ($($part:ident($module:ty),)*) => {
        /// A module of the model.
        #[derive(Clone, Debug)]
        pub(super) enum Part {
            $($part($module),)*
        }

        impl Part {
            /// Adds the part to what a model shows of itself.
            pub(super) fn shown(&self, name: &str, content: Content) -> Content {
                match self { $(Part::$part(module) => content.add(name, module),)* }
            }
        }

        impl Module for Part {
            fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
                match self { $(Part::$part(module) => module.visit(visitor),)* }
            }

            fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
                match self { $(Part::$part(module) => Part::$part(Module::map(module, mapper)),)* }
            }

            fn collect_devices(&self, devices: Devices) -> Devices {
                match self { $(Part::$part(module) => module.collect_devices(devices),)* }
            }

            fn to_device(self, device: &Device) -> Self {
                match self { $(Part::$part(module) => Part::$part(module.to_device(device)),)* }
            }

            fn fork(self, device: &Device) -> Self {
                match self { $(Part::$part(module) => Part::$part(module.fork(device)),)* }
            }

            fn materialize(self) -> Self {
                match self { $(Part::$part(module) => Part::$part(Module::materialize(module)),)* }
            }

            fn valid(&self) -> Self {
                match self { $(Part::$part(module) => Part::$part(module.valid()),)* }
            }

            fn train(self) -> Self {
                match self { $(Part::$part(module) => Part::$part(module.train()),)* }
            }
        }
    };
}

parts! {
    Linear(QuantLinear),
    Conv1d(QuantConv1d),
    Conv2d(QuantConv2d),
    Conv3d(QuantConv3d),
    ConvTranspose1d(QuantConvTranspose1d),
    ConvTranspose2d(QuantConvTranspose2d),
    ConvTranspose3d(QuantConvTranspose3d),
    Embedding(QuantEmbedding),
    MatMul(MatMul),
    Float1(Param<Tensor<1>>),
    Float2(Param<Tensor<2>>),
    Float3(Param<Tensor<3>>),
    Float4(Param<Tensor<4>>),
    Float5(Param<Tensor<5>>),
    Float6(Param<Tensor<6>>),
}

/// How a part is called at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// By its `forward`.
    Forward,
    /// An embedding with indices in a row.
    Row,
    /// The table of an embedding as the weight of a linear layer.
    Logits,
}

/// One of the two parameters of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    Weight,
    Bias,
}

/// A float parameter of the rank of its data.
pub(super) fn parameter(data: TensorData, device: &Device) -> Part {
    macro_rules! of_rank {
        ($part:ident, $rank:literal) => {
            Part::$part(tensor::<$rank>(data, device))
        };
    }
    match data.shape().len() {
        1 => of_rank!(Float1, 1),
        2 => of_rank!(Float2, 2),
        3 => of_rank!(Float3, 3),
        4 => of_rank!(Float4, 4),
        5 => of_rank!(Float5, 5),
        _ => of_rank!(Float6, 6),
    }
}

pub(super) fn tensor<const D: usize>(data: TensorData, device: &Device) -> Param<Tensor<D>> {
    let dtype = data.dtype();
    Param::from_tensor(Tensor::from_data(data, (device, dtype)))
}

/// Runs an expression with a tensor of floats in its rank.
macro_rules! with_floats {
    ($any:expr, $x:ident => $body:expr) => {{
        let any: AnyTensor = $any;
        match any.shape.len() {
            1 => with_floats!(any, 1, $x => $body),
            2 => with_floats!(any, 2, $x => $body),
            3 => with_floats!(any, 3, $x => $body),
            4 => with_floats!(any, 4, $x => $body),
            5 => with_floats!(any, 5, $x => $body),
            _ => with_floats!(any, 6, $x => $body),
        }
    }};
    ($any:ident, $rank:literal, $x:ident => $body:expr) => {{
        let $x: Tensor<$rank> = $any.ranked();
        AnyTensor::from($body)
    }};
}

impl Part {
    /// The result of the operations that the part stands for.
    pub(super) fn call(&self, call: Call, inputs: Vec<AnyTensor>) -> AnyTensor {
        let mut inputs = inputs.into_iter();
        let mut next = || inputs.next().expect("as many inputs as the operations have");
        match (self, call) {
            (Part::Linear(layer), _) => with_floats!(next(), x => layer.forward(x)),
            (Part::Conv1d(layer), _) => layer.forward(next().ranked()).into(),
            (Part::Conv2d(layer), _) => layer.forward(next().ranked()).into(),
            (Part::Conv3d(layer), _) => layer.forward(next().ranked()).into(),
            (Part::ConvTranspose1d(layer), _) => layer.forward(next().ranked()).into(),
            (Part::ConvTranspose2d(layer), _) => layer.forward(next().ranked()).into(),
            (Part::ConvTranspose3d(layer), _) => layer.forward(next().ranked()).into(),
            (Part::Embedding(layer), Call::Forward) => layer.forward(next().ranked()).into(),
            (Part::Embedding(layer), Call::Row) => {
                let indices: Tensor<1, burn::tensor::Int> = next().ranked();
                layer.forward(indices.unsqueeze()).squeeze_dim::<2>(0).into()
            }
            (Part::Embedding(layer), Call::Logits) => with_floats!(next(), x => layer.logits(x)),
            (Part::MatMul(product), _) => {
                let (lhs, rhs) = (next(), next());
                with_floats!(lhs, lhs => product.forward(lhs, rhs.ranked()))
            }
            _ => unreachable!("a parameter is no operation"),
        }
    }

    /// A parameter, as operations beside its layer read it.
    pub(super) fn value(&self, field: Field) -> AnyTensor {
        macro_rules! of {
            ($layer:ident) => {
                match field {
                    Field::Weight => $layer.weight.val().into(),
                    Field::Bias => $layer.bias.as_ref().expect("a layer with a bias").val().into(),
                }
            };
        }
        match self {
            Part::Linear(layer) => of!(layer),
            Part::Conv1d(layer) => of!(layer),
            Part::Conv2d(layer) => of!(layer),
            Part::Conv3d(layer) => of!(layer),
            Part::ConvTranspose1d(layer) => of!(layer),
            Part::ConvTranspose2d(layer) => of!(layer),
            Part::ConvTranspose3d(layer) => of!(layer),
            Part::Embedding(layer) => layer.weight.val().into(),
            Part::Float1(parameter) => parameter.val().into(),
            Part::Float2(parameter) => parameter.val().into(),
            Part::Float3(parameter) => parameter.val().into(),
            Part::Float4(parameter) => parameter.val().into(),
            Part::Float5(parameter) => parameter.val().into(),
            Part::Float6(parameter) => parameter.val().into(),
            Part::MatMul(_) => unreachable!("a product of activations has no parameter"),
        }
    }
}
