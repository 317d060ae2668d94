//! The reference's models, with its names: their sizes are those of the tensors, or what the case records.

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, PaddingConfig2d, conv::Conv2dConfig};
use burn::tensor::activation::{gelu, relu, softmax};
use burn::tensor::{DType, Device, Tensor};
use burn_quant::TensorQuantizer;
use burn_quant::nn::{QuantConv2d, QuantLinear};
use burn_quant::place::Role;

use super::Source;
use crate::index::{close, values};

/// A model of the reference, with its names.
pub(super) trait Network: Module {
    type Input: Clone;
    fn input(source: &Source<'_>, key: &str, device: &Device) -> Self::Input;
    fn forward(&self, x: Self::Input, sums: Sums) -> Tensor<2>;
}

/// How a linear layer adds up.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sums {
    /// As `QuantLinear::forward` does.
    OfTheLayer,
    /// Product and bias are rounded once, and f32 is accumulated in f64 where the device has it.
    Exact,
}

/// Parameters by the reference's names.
pub(super) struct Loader<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) device: &'a Device,
}

impl Loader<'_> {
    fn param<const D: usize>(&self, name: &str) -> Tensor<D> {
        self.source.tensor(&format!("param/{name}"), self.device)
    }

    fn linear(&self, name: &str) -> QuantLinear {
        let weight = self.param::<2>(&format!("{name}.weight")).transpose();
        let bias = Some(Param::from_tensor(self.param(&format!("{name}.bias"))));
        Linear { weight: Param::from_tensor(weight), bias }.into()
    }

    fn conv(&self, name: &str) -> QuantConv2d {
        let weight = self.param::<4>(&format!("{name}.weight"));
        let [output, input, height, width] = weight.dims();
        let padding = PaddingConfig2d::Explicit(height / 2, width / 2, height / 2, width / 2);
        let config = Conv2dConfig::new([input, output], [height, width]).with_padding(padding);
        let mut conv = config.init(self.device);
        conv.weight = Param::from_tensor(weight);
        conv.bias = Some(Param::from_tensor(self.param(&format!("{name}.bias"))));
        conv.into()
    }

    fn norm(&self, name: &str) -> Norm {
        let gamma = self.param::<1>(&format!("{name}.weight"));
        let mut layer = LayerNormConfig::new(gamma.dims()[0]).with_epsilon(1e-5).init(self.device);
        layer.gamma = Param::from_tensor(gamma);
        layer.beta = Some(Param::from_tensor(self.param(&format!("{name}.bias"))));
        Norm { layer, input_quantizer: TensorQuantizer::disabled(Role::ChannelsLast) }
    }
}

/// A linear layer. With [`Sums::Exact`] it rounds once, after product, sum and bias, as the reference's does in half
/// precision; and sums of f32 that differ in the last place flip no roundings, as the golden data is stable under exact
/// sums.
fn linear<const D: usize>(layer: &QuantLinear, x: Tensor<D>, sums: Sums) -> Tensor<D> {
    match sums {
        Sums::OfTheLayer => return layer.forward(x),
        Sums::Exact => {}
    }
    let bias = layer.bias.as_ref().map(Param::val);
    layer.input_quantizer.layer(x, layer.weight.val(), bias, rounded_once)
}

fn rounded_once<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let (dtype, device) = (x.dtype(), x.device());
    let wide = match dtype {
        DType::F32 if device.supports_dtype(DType::F64) => DType::F64,
        _ => DType::F32,
    };
    let bias = bias.map(|bias| bias.cast(wide));
    burn::tensor::module::linear(x.cast(wide), weight.cast(wide), bias).cast(dtype)
}

#[derive(Module, Debug)]
pub(super) struct Mlp {
    fc1: QuantLinear,
    fc2: QuantLinear,
    fc3: QuantLinear,
}

impl Mlp {
    pub(super) fn load(loader: &Loader<'_>) -> Self {
        Self { fc1: loader.linear("fc1"), fc2: loader.linear("fc2"), fc3: loader.linear("fc3") }
    }

    /// The weight of a layer before it is rounded, as the reference keeps it: its shape `[out, in]` and its values.
    pub(super) fn weight(&self, layer: &str) -> (Vec<usize>, Vec<f32>) {
        let layer = match layer {
            "fc1" => &self.fc1,
            "fc2" => &self.fc2,
            _ => &self.fc3,
        };
        let weight = layer.weight.base().transpose();
        (weight.dims().to_vec(), values(weight))
    }
}

impl Network for Mlp {
    type Input = Tensor<2>;

    fn input(source: &Source<'_>, key: &str, device: &Device) -> Tensor<2> {
        source.tensor(key, device)
    }

    fn forward(&self, x: Tensor<2>, sums: Sums) -> Tensor<2> {
        let linear = |layer: &QuantLinear, x| linear(layer, x, sums);
        linear(&self.fc3, relu(linear(&self.fc2, relu(linear(&self.fc1, x)))))
    }
}

#[derive(Module, Debug)]
pub(super) struct Cnn {
    conv1: QuantConv2d,
    conv2: QuantConv2d,
    fc: QuantLinear,
}

/// Max pooling over windows of 2 x 2. Quantized convolutions give equal sums, and where they are equal but for the
/// rounding of sums the first of a window is taken, as in PyTorch: that is where its gradient goes.
fn pool(x: Tensor<4>) -> Tensor<4> {
    const CLOSE: f32 = 1e-6;
    let [batch, channels, height, width] = x.dims();
    let (height, width) = (height / 2 * 2, width / 2 * 2); // what fills no window is left out
    let x = x.slice([0..batch, 0..channels, 0..height, 0..width]);
    let windows: Tensor<6> = x.reshape([batch, channels, height / 2, 2, width / 2, 2]);
    let windows: Tensor<5> = windows.swap_dims(3, 4).reshape([batch, channels, height / 2, width / 2, 4]);
    let favour = [3.0, 2.0, 1.0, 0.0].map(|n: f32| 1.0 + n * CLOSE);
    let factors = Tensor::<1>::from_data(favour, &windows.device());
    let largest = (windows.clone().detach() * factors.reshape([1, 1, 1, 1, 4])).argmax(4);
    windows.gather(4, largest).reshape([batch, channels, height / 2, width / 2])
}

impl Cnn {
    pub(super) fn load(loader: &Loader<'_>) -> Self {
        Self { conv1: loader.conv("conv1"), conv2: loader.conv("conv2"), fc: loader.linear("fc") }
    }
}

impl Network for Cnn {
    type Input = Tensor<4>;

    fn input(source: &Source<'_>, key: &str, device: &Device) -> Tensor<4> {
        source.tensor(key, device)
    }

    fn forward(&self, x: Tensor<4>, sums: Sums) -> Tensor<2> {
        let x = pool(relu(self.conv1.forward(x)));
        let x = pool(relu(self.conv2.forward(x)));
        linear(&self.fc, x.flatten(1, 3), sums)
    }
}

/// A layer norm with an activation quantizer: the reference quantizes their inputs.
#[derive(Module, Debug)]
struct Norm {
    layer: LayerNorm,
    input_quantizer: TensorQuantizer,
}

impl Norm {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.layer.forward(self.input_quantizer.forward(x))
    }
}

#[derive(Module, Debug)]
struct Block {
    norm1: Norm,
    q_proj: QuantLinear,
    k_proj: QuantLinear,
    v_proj: QuantLinear,
    o_proj: QuantLinear,
    norm2: Norm,
    fc1: QuantLinear,
    fc2: QuantLinear,
    #[module(skip)]
    heads: usize,
}

impl Block {
    fn forward(&self, x: Tensor<3>, sums: Sums) -> Tensor<3> {
        let x = x.clone() + self.attend(self.norm1.forward(x), sums);
        x.clone() + linear(&self.fc2, gelu(linear(&self.fc1, self.norm2.forward(x), sums)), sums)
    }

    fn attend(&self, x: Tensor<3>, sums: Sums) -> Tensor<3> {
        let [batch, tokens, width] = x.dims();
        let split = |x: Tensor<3>| x.reshape([batch, tokens, self.heads, width / self.heads]).swap_dims(1, 2);
        let (q, k, v) = (
            split(linear(&self.q_proj, x.clone(), sums)),
            split(linear(&self.k_proj, x.clone(), sums)),
            split(linear(&self.v_proj, x, sums)),
        );
        let scores = q.matmul(k.swap_dims(2, 3)) * ((width / self.heads) as f64).powf(-0.5);
        let mixed = softmax(scores, 3).matmul(v).swap_dims(1, 2).reshape([batch, tokens, width]);
        linear(&self.o_proj, mixed, sums)
    }
}

#[derive(Module, Debug)]
pub(super) struct Transformer {
    blocks: Vec<Block>,
    norm: Norm,
    head: QuantLinear,
}

impl Transformer {
    pub(super) fn load(loader: &Loader<'_>) -> Self {
        Self::with_heads(loader, heads(loader))
    }

    pub(super) fn with_heads(loader: &Loader<'_>, heads: usize) -> Self {
        let blocks = loader.source.golden.names(loader.source.case, "param/blocks.");
        let numbers = blocks.iter().filter_map(|name| name.split('.').next()?.parse::<usize>().ok());
        let blocks = numbers.max().map_or(0, |last| last + 1);
        let block = |i: usize| {
            let (linear, norm) = (
                |name: &str| loader.linear(&format!("blocks.{i}.{name}")),
                |name: &str| loader.norm(&format!("blocks.{i}.{name}")),
            );
            Block {
                norm1: norm("norm1"),
                q_proj: linear("q_proj"),
                k_proj: linear("k_proj"),
                v_proj: linear("v_proj"),
                o_proj: linear("o_proj"),
                norm2: norm("norm2"),
                fc1: linear("fc1"),
                fc2: linear("fc2"),
                heads,
            }
        };
        Self { blocks: (0..blocks).map(block).collect(), norm: loader.norm("norm"), head: loader.linear("head") }
    }
}

/// The number of attention heads: the one that reproduces the output of the case without quantization. What that case
/// records of it must agree.
fn heads(loader: &Loader<'_>) -> usize {
    *loader.source.golden.heads.get_or_init(|| {
        let float = loader.source.golden.float_of(loader.source.case);
        let source = Source { case: float, dtype: DType::F32, ..*loader.source };
        let loader = Loader { source: &source, device: source.device };
        let x = Transformer::input(&source, "eval", source.device);
        let expected = source.golden.values(float, &float.expected["y"]);
        let reproduces = |heads: &usize| {
            let y = Transformer::with_heads(&loader, *heads).forward(x.clone(), Sums::OfTheLayer);
            close("y", &values(y), &expected, 1e-4).is_ok()
        };
        let width = x.dims()[2];
        let found = (1..=width).filter(|heads| width % heads == 0).find(reproduces);
        let found = found.expect("some number of heads gives the output of the float case");
        let recorded = float.config["dims"]["heads"].as_u64();
        assert!(recorded.is_none_or(|recorded| recorded == found as u64), "{recorded:?} heads, found {found}");
        found
    })
}

impl Network for Transformer {
    type Input = Tensor<3>;

    fn input(source: &Source<'_>, key: &str, device: &Device) -> Tensor<3> {
        source.tensor(key, device)
    }

    fn forward(&self, x: Tensor<3>, sums: Sums) -> Tensor<2> {
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x, sums));
        let [batch, _, width] = x.dims();
        linear(&self.head, self.norm.forward(x).mean_dim(1).reshape([batch, width]), sums)
    }
}
