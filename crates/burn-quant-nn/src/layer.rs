//! One wrapper for every layer of burn that is one operation: the layer, a quantizer before it and one after it.

use std::borrow::{Borrow, BorrowMut};
use std::fmt;
use std::ops::{Deref, DerefMut};

use burn::module::{
    Content, Devices, DisplaySettings, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::{Device, Tensor};

use burn_quant_core::error::QuantError;
use burn_quant_core::layout::Role;
use burn_quant_core::quantizer::TensorQuantizer;

/// A layer of burn that is one operation, as rules and records know it.
///
/// It is sealed: the layers are those of burn that this crate wraps. A layer of your own has
/// [`TensorQuantizer`] fields instead, and calls them.
pub trait SingleOperation: Module + ModuleDisplay + sealed::Sealed {
    /// The type name of the layer with activation quantizers, which rules match: `Struct:QuantLayerNorm`.
    const CONTAINER: &'static str;
    /// What its outputs are, and its inputs.
    const ROLE: Role;
    /// Whether its inputs are numbers, which can be quantized, and not indices.
    const QUANTIZES_INPUT: bool = true;

    /// Returns the quantizer of the inputs of a new layer, disabled.
    fn new_input_quantizer(&self) -> TensorQuantizer {
        TensorQuantizer::disabled(Self::ROLE)
    }

    /// Returns burn's layer that computes the same as this one behind a quantizer.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotBurn`] if the quantizer is enabled, or scales the inputs.
    fn behind(&self, input_quantizer: &TensorQuantizer) -> Result<Self, QuantError> {
        input_quantizer.refuse(INPUT)?;
        Ok(self.clone())
    }
}

/// Keeps layers of others out: their `forward` would be found behind the wrapper, and pass by its quantizers.
pub(crate) mod sealed {
    /// A layer that this crate wraps.
    pub trait Sealed {}
}

/// A layer of burn with a quantizer before it and one after it, both off until a rule enables them.
///
/// ```text
/// forward(x) = output_quantizer( layer( input_quantizer(x) ) )
/// ```
///
/// The weight's quantizer is attached to the weight itself, as on burn's own layers. Fields of burn's layer are reached
/// through it: `layer.weight`. To what visits a model — records, optimizers, adapters of checkpoints — the parameters
/// are those of burn's layer, and the quantizers stand beside them. Where a function asks for `&burn::nn::Linear`, a
/// reference to this is taken for one, and computes without the quantizers.
///
/// Pools, norms and the leaky rectifier have no product to save: a rule switches their quantizers on if it names them,
/// by the container or by a glob that matches no product; `*input_quantizer` leaves them off, in presets and in recipes
/// that are read from ModelOpt's (`QuantConfig::from_modelopt_json`). ModelOpt itself quantizes what comes into pooling
/// and most norms.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn_nn::LinearConfig; // of burn
/// use burn::tensor::{Device, Tensor};
/// use burn_quant::nn::ActivationQuantized;
///
/// let burns = LinearConfig::new(3, 2).init(&Device::flex());
/// let ours = ActivationQuantized::from(burns.clone()); // a QuantLinear
/// let x = Tensor::<2>::ones([1, 3], &Device::flex());
/// assert_eq!(ours.forward(x.clone()).to_data(), burns.forward(x).to_data());
/// assert_eq!(ours.to_burn().unwrap().weight.to_data(), burns.weight.to_data());
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ActivationQuantized<L> {
    layer: L,
    /// Quantizes the input; disabled in a new layer. That of an embedding, whose inputs are indices, is never used, and
    /// is neither found nor saved.
    pub input_quantizer: TensorQuantizer,
    /// Quantizes the output; disabled in a new layer and by every preset.
    pub output_quantizer: TensorQuantizer,
}

impl<L: SingleOperation> ActivationQuantized<L> {
    /// Returns burn's layer, which computes the same; with the weight's quantizer if it has one.
    ///
    /// Of a linear layer, a pre-quantization scale or a branch of low rank, which burn's layer lacks, is merged into
    /// the quantized weight: that is then an ordinary parameter, equal to f32 rounding.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotBurn`] if the quantizer of the input or of the output is enabled, or scales the input of
    /// another layer than a linear one.
    pub fn to_burn(&self) -> Result<L, QuantError> {
        self.output_quantizer.refuse(OUTPUT)?;
        match L::QUANTIZES_INPUT {
            true => self.layer.behind(&self.input_quantizer),
            false => Ok(self.layer.clone()),
        }
    }

    /// Returns the same quantizers around another layer.
    ///
    /// # Errors
    ///
    /// Those of `f`.
    pub fn try_map_layer<E>(self, f: impl FnOnce(L) -> Result<L, E>) -> Result<Self, E> {
        Ok(Self { layer: f(self.layer)?, ..self })
    }

    /// The layer between its quantizers; for layers without a weight.
    pub(crate) fn around<const D: usize>(
        &self,
        input: Tensor<D>,
        layer: impl FnOnce(&L, Tensor<D>) -> Tensor<D>,
    ) -> Tensor<D> {
        self.output_quantizer.forward(layer(&self.layer, self.input_quantizer.forward(input)))
    }

    /// The layer with its weight between its quantizers, of which `product` is the operation.
    pub(crate) fn product<const D: usize, const W: usize>(
        &self,
        input: Tensor<D>,
        weight: Tensor<W>,
        bias: Option<Tensor<1>>,
        product: impl Fn(Tensor<D>, Tensor<W>, Option<Tensor<1>>) -> Tensor<D> + Send + 'static,
    ) -> Tensor<D> {
        self.output_quantizer.forward(self.input_quantizer.layer(input, weight, bias, product))
    }

    /// The same with `f` applied to each part.
    fn each(self, f: &impl Each) -> Self {
        Self {
            layer: f.on(self.layer),
            input_quantizer: f.on(self.input_quantizer),
            output_quantizer: f.on(self.output_quantizer),
        }
    }
}

/// What is done with each part of a module.
trait Each {
    fn on<M: Module>(&self, module: M) -> M;
}

impl<L: SingleOperation> From<L> for ActivationQuantized<L> {
    fn from(layer: L) -> Self {
        let (input_quantizer, output_quantizer) = (layer.new_input_quantizer(), TensorQuantizer::disabled(L::ROLE));
        Self { layer, input_quantizer, output_quantizer }
    }
}

impl<L> Deref for ActivationQuantized<L> {
    type Target = L;

    fn deref(&self) -> &L {
        &self.layer
    }
}

impl<L> DerefMut for ActivationQuantized<L> {
    fn deref_mut(&mut self) -> &mut L {
        &mut self.layer
    }
}

impl<L> Borrow<L> for ActivationQuantized<L> {
    fn borrow(&self) -> &L {
        &self.layer
    }
}

impl<L> BorrowMut<L> for ActivationQuantized<L> {
    fn borrow_mut(&mut self) -> &mut L {
        &mut self.layer
    }
}

const INPUT: &str = "input_quantizer";
const OUTPUT: &str = "output_quantizer";

impl<L: SingleOperation> Module for ActivationQuantized<L> {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.layer.visit(visitor);
        let slots = [(INPUT, &self.input_quantizer), (OUTPUT, &self.output_quantizer)];
        for (name, quantizer) in &slots[usize::from(!L::QUANTIZES_INPUT)..] {
            visitor.enter_module(name, L::CONTAINER);
            quantizer.visit(visitor);
            visitor.exit_module(name, L::CONTAINER);
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let layer = self.layer.map(mapper);
        let mut mapped = |name, quantizer: TensorQuantizer| {
            mapper.enter_module(name, L::CONTAINER);
            let quantizer = quantizer.map(mapper);
            mapper.exit_module(name, L::CONTAINER);
            quantizer
        };
        let input_quantizer = match L::QUANTIZES_INPUT {
            true => mapped(INPUT, self.input_quantizer),
            false => self.input_quantizer,
        };
        Self { layer, input_quantizer, output_quantizer: mapped(OUTPUT, self.output_quantizer) }
    }

    fn to_device(self, device: &Device) -> Self {
        struct To<'a>(&'a Device);
        impl Each for To<'_> {
            fn on<M: Module>(&self, module: M) -> M {
                module.to_device(self.0)
            }
        }
        self.each(&To(device))
    }

    fn fork(self, device: &Device) -> Self {
        struct Fork<'a>(&'a Device);
        impl Each for Fork<'_> {
            fn on<M: Module>(&self, module: M) -> M {
                module.fork(self.0)
            }
        }
        self.each(&Fork(device))
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        let devices = self.layer.collect_devices(devices);
        self.output_quantizer.collect_devices(self.input_quantizer.collect_devices(devices))
    }

    fn materialize(self) -> Self {
        struct Materialize;
        impl Each for Materialize {
            fn on<M: Module>(&self, module: M) -> M {
                module.materialize()
            }
        }
        self.each(&Materialize)
    }

    fn valid(&self) -> Self {
        struct Valid;
        impl Each for Valid {
            fn on<M: Module>(&self, module: M) -> M {
                module.valid()
            }
        }
        self.clone().each(&Valid)
    }

    fn train(self) -> Self {
        struct Train;
        impl Each for Train {
            fn on<M: Module>(&self, module: M) -> M {
                module.train()
            }
        }
        self.each(&Train)
    }
}

impl<L: SingleOperation> fmt::Display for ActivationQuantized<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&ModuleDisplay::format(self, DisplaySettings::default()))
    }
}

impl<L: SingleOperation> ModuleDisplayDefault for ActivationQuantized<L> {
    fn num_params(&self) -> usize {
        Module::num_params(self)
    }

    fn content(&self, content: Content) -> Option<Content> {
        let content = content.set_top_level_type(L::CONTAINER.trim_start_matches("Struct:")).add("layer", &self.layer);
        let content = if L::QUANTIZES_INPUT { content.add(INPUT, &self.input_quantizer) } else { content };
        content.add(OUTPUT, &self.output_quantizer).optional()
    }
}

impl<L: SingleOperation> ModuleDisplay for ActivationQuantized<L> {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        None
    }
}

/// Names for the wrapper around layers of burn, with what rules and records call them.
macro_rules! activation_quantized {
    ($($layer:ident => $quant:ident, $role:ident;)*) => {
        $(
            #[doc = concat!("burn's [`", stringify!($layer), "`] with quantizers before and after it.")]
            pub type $quant = crate::layer::ActivationQuantized<$layer>;

            impl crate::layer::sealed::Sealed for $layer {}

            impl crate::layer::SingleOperation for $layer {
                const CONTAINER: &'static str = concat!("Struct:", stringify!($quant));
                const ROLE: Role = Role::$role;
            }
        )*
    };
}

/// The same for layers without a weight, with their `forward`.
macro_rules! weightless {
    ($($layer:ident => $quant:ident, $role:ident, $rank:tt;)*) => {
        activation_quantized! { $($layer => $quant, $role;)* }
        $(weightless! { @forward $layer, $rank })*
    };
    (@forward $layer:ident, any) => {
        impl crate::layer::ActivationQuantized<$layer> {
            /// Applies the layer with its quantizers.
            ///
            /// Shapes are those of burn's layer; a disabled quantizer is the identity.
            pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
                self.around(input, |layer, input| layer.forward(input))
            }
        }
    };
    (@forward $layer:ident, $rank:literal) => {
        impl crate::layer::ActivationQuantized<$layer> {
            /// Applies the layer with its quantizers.
            ///
            /// Shapes are those of burn's layer; a disabled quantizer is the identity.
            pub fn forward(&self, input: Tensor<$rank>) -> Tensor<$rank> {
                self.around(input, |layer, input| layer.forward(input))
            }
        }
    };
}
