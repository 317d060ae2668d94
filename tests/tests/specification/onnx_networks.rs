//! ONNX of networks of burn's own layers, unmodified: they are captured and replayed, written, and compared in ONNX
//! Runtime.

use burn::module::Module;
use burn::nn::attention::{
    CrossAttentionConfig, MhaInput, MultiHeadAttention, MultiHeadAttentionConfig, generate_autoregressive_mask,
};
use burn::nn::conv::{Conv1dConfig, Conv2d, Conv2dConfig, Conv3dConfig, ConvTranspose1dConfig, ConvTranspose2dConfig};
use burn::nn::gru::GruConfig;
use burn::nn::pool::{
    AdaptiveAvgPool1dConfig, AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, AvgPool1dConfig, AvgPool2dConfig, MaxPool2d,
    MaxPool2dConfig,
};
use burn::nn::transformer::{
    TransformerDecoderConfig, TransformerDecoderInput, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::nn::{
    BatchNorm, BatchNormConfig, BiLstmConfig, EmbeddingConfig, GroupNormConfig, InstanceNormConfig, LayerNormConfig,
    Linear, LinearConfig, LocalResponseNormConfig, LstmConfig, PaddingConfig1d, PaddingConfig2d,
    PositionalEncodingConfig, RmsNormConfig, RotaryEncodingConfig, SwiGluConfig, Unfold4dConfig,
};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_quant_graph::{Values, capture};
use burn_quant_onnx::{Exporter, export};
use burn_quant_tests::device;

use crate::onnx_runtime::{Files, Read};
use crate::spread;

/// Layers that are written for batches of any size.
struct Layers {
    files: Files,
    failed: Vec<String>,
    device: Device,
}

impl Layers {
    fn new() -> Self {
        Self { files: Files::new(), failed: Vec::new(), device: device().1 }
    }

    fn add<M: Module, I: Values + Read + Clone, O: Values + Read>(
        &mut self,
        name: &str,
        model: &M,
        inputs: impl Fn(usize) -> I,
        forward: impl Fn(&M, I) -> O,
    ) {
        let replayed = capture(model, inputs(3), &forward).and_then(|graph| {
            let found: O = graph.replay(&self.device)?.run(inputs(3))?;
            Ok(bits(found.read()) == bits(forward(model, inputs(3)).read()))
        });
        match replayed {
            Ok(true) => {}
            Ok(false) => self.failed.push(format!("{name}: the replay computes something else")),
            Err(error) => self.failed.push(format!("{name}: {error}")),
        }
        match Exporter::new().export_any_size(model, [3, 5].map(&inputs), &forward) {
            Ok(onnx) => self.files.add(name, &onnx, inputs(4), forward(model, inputs(4))),
            Err(error) => self.failed.push(format!("{name}: {error}")),
        }
    }

    fn check(self) {
        assert!(self.failed.is_empty(), "{}", self.failed.join("\n"));
        self.files.check();
    }
}

/// The bits of tensors, in which NaN is what it is.
fn bits(tensors: Vec<TensorData>) -> Vec<Vec<u8>> {
    tensors.iter().map(|data| data.as_bytes().to_vec()).collect()
}

#[derive(Module, Debug)]
struct Mlp {
    layers: Vec<Linear>,
}

impl Mlp {
    fn new(device: &Device) -> Self {
        let linear = |[inputs, outputs]: [usize; 2]| LinearConfig::new(inputs, outputs).init(device);
        Self { layers: [[8, 16], [16, 16], [16, 4]].map(linear).into() }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let Some((last, hidden)) = self.layers.split_last() else { return x };
        last.forward(hidden.iter().fold(x, |x, layer| relu(layer.forward(x))))
    }
}

/// Two convolutions beside a way that is shorter.
#[derive(Module, Debug)]
struct Residual {
    one: (Conv2d, BatchNorm),
    two: (Conv2d, BatchNorm),
    shorter: Option<(Conv2d, BatchNorm)>,
}

impl Residual {
    fn new([inputs, outputs]: [usize; 2], stride: usize, device: &Device) -> Self {
        let conv = |channels: [usize; 2], size: usize, stride: usize| {
            let pad = size / 2;
            let config = Conv2dConfig::new(channels, [size, size]).with_bias(false).with_stride([stride, stride]);
            let conv = config.with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad)).init(device);
            (conv, BatchNormConfig::new(channels[1]).init(device))
        };
        Self {
            one: conv([inputs, outputs], 3, stride),
            two: conv([outputs, outputs], 3, 1),
            shorter: (stride > 1).then(|| conv([inputs, outputs], 1, stride)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let normed = |(conv, norm): &(Conv2d, BatchNorm), x| norm.forward(conv.forward(x));
        let y = normed(&self.two, relu(normed(&self.one, x.clone())));
        let x = match &self.shorter {
            Some(shorter) => normed(shorter, x),
            None => x,
        };
        relu(x + y)
    }
}

/// A network of the shape of ResNet-18: a stem, four stages of two blocks, the mean of what is left, and a head.
#[derive(Module, Debug)]
struct ResNet {
    stem: (Conv2d, BatchNorm),
    pool: MaxPool2d,
    blocks: Vec<Residual>,
    mean: AdaptiveAvgPool2d,
    head: Linear,
}

impl ResNet {
    fn new(device: &Device) -> Self {
        let pad = PaddingConfig2d::Explicit(3, 3, 3, 3);
        let stem = Conv2dConfig::new([3, 4], [7, 7]).with_stride([2, 2]).with_padding(pad).with_bias(false);
        let pool = MaxPool2dConfig::new([3, 3]).with_strides([2, 2]);
        let stages = [([4, 4], 1), ([4, 6], 2), ([6, 8], 2), ([8, 10], 2)];
        let blocks = stages.into_iter().flat_map(|([inputs, outputs], stride)| {
            [Residual::new([inputs, outputs], stride, device), Residual::new([outputs, outputs], 1, device)]
        });
        Self {
            stem: (stem.init(device), BatchNormConfig::new(4).init(device)),
            pool: pool.with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).init(),
            blocks: blocks.collect(),
            mean: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            head: LinearConfig::new(10, 5).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(relu(self.stem.1.forward(self.stem.0.forward(x))));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        self.head.forward(self.mean.forward(x).flatten(1, 3))
    }
}

#[test]
fn an_mlp_and_a_residual_network() {
    let mut layers = Layers::new();
    let device = layers.device.clone();
    layers.add("mlp", &Mlp::new(&device), |batch| spread([batch, 8], &device), Mlp::forward);
    let images = |batch| spread::<4>([batch, 3, 40, 48], &device);
    layers.add("resnet", &ResNet::new(&device), images, ResNet::forward);
    let onnx = export(&ResNet::new(&device), images(2), ResNet::forward).unwrap();
    let expected = [
        ("Add", 9),
        ("BatchNormalization", 20),
        ("Conv", 20),
        ("GlobalAveragePool", 1),
        ("Identity", 1),
        ("MatMul", 1),
        ("MaxPool", 1),
        ("Relu", 17),
        ("Reshape", 1),
    ];
    assert_eq!(onnx.operators(), expected);
    layers.check();
}

#[test]
fn layers_of_images() {
    let mut layers = Layers::new();
    let device = &layers.device.clone();
    let images = |batch| spread::<4>([batch, 4, 9, 8], device);
    let lines = |batch| spread::<3>([batch, 4, 9], device);
    let same = Conv1dConfig::new(4, 6, 4).with_padding(PaddingConfig1d::Same).with_dilation(2).init(device);
    layers.add("conv1d_same", &same, lines, |conv, x| conv.forward(x));
    let groups = Conv2dConfig::new([4, 8], [3, 2]).with_groups(4).with_dilation([2, 1]).init(device);
    layers.add("conv2d_groups", &groups, images, |conv, x| conv.forward(x));
    let volume = Conv3dConfig::new([2, 3], [2, 2, 3]).init(device);
    layers.add("conv3d", &volume, |batch| spread([batch, 2, 4, 5, 6], device), |conv, x| conv.forward(x));
    let config = ConvTranspose2dConfig::new([4, 2], [3, 3]).with_stride([2, 2]).with_padding([1, 0]);
    let transposed = config.with_padding_out([1, 0]).with_groups(2).init(device);
    layers.add("conv_transpose2d", &transposed, images, |conv, x| conv.forward(x));
    let transposed = ConvTranspose1dConfig::new([4, 2], 3).with_stride(2).init(device);
    layers.add("conv_transpose1d", &transposed, lines, |conv, x| conv.forward(x));
    let ceil = MaxPool2dConfig::new([2, 3]).with_strides([2, 2]).with_ceil_mode(true).init();
    layers.add("max_pool_ceil", &ceil, images, |pool, x| pool.forward(x));
    let uneven = MaxPool2dConfig::new([2, 3]).with_padding(PaddingConfig2d::Explicit(0, 1, 1, 0)).init();
    layers.add("max_pool_uneven", &uneven, images, |pool, x| pool.forward(x));
    for counts in [false, true] {
        let padding = PaddingConfig2d::Explicit(1, 1, 1, 1);
        let config = AvgPool2dConfig::new([3, 3]).with_strides([2, 2]).with_padding(padding);
        let pool = config.with_count_include_pad(counts).init();
        layers.add(&format!("avg_pool_{counts}"), &pool, images, |pool, x| pool.forward(x));
        let pool = AvgPool1dConfig::new(4).with_stride(3).with_ceil_mode(true).with_count_include_pad(counts).init();
        layers.add(&format!("avg_pool_ceil_{counts}"), &pool, lines, |pool, x| pool.forward(x));
    }
    let means = AdaptiveAvgPool2dConfig::new([3, 4]).init();
    layers.add("adaptive", &means, images, |pool, x| pool.forward(x));
    let means = AdaptiveAvgPool2dConfig::new([4, 3]).init();
    layers.add("adaptive_uneven", &means, images, |pool, x| pool.forward(x));
    let means = AdaptiveAvgPool1dConfig::new(7).init();
    layers.add("adaptive_uneven_1d", &means, lines, |pool, x| pool.forward(x));
    let group = GroupNormConfig::new(2, 4).init(device);
    layers.add("group_norm", &group, images, |norm, x| norm.forward(x));
    let instance = InstanceNormConfig::new(4).init(device);
    layers.add("instance_norm", &instance, images, |norm, x| norm.forward(x));
    let response = LocalResponseNormConfig::new(3).init();
    layers.add("local_response_norm", &response, images, |norm, x| norm.forward(x));
    let windows = Unfold4dConfig::new([2, 3]).with_padding([1, 0]).init();
    layers.add("unfold", &windows, images, |windows, x| windows.forward(x));
    layers.check();
}

#[test]
fn layers_of_sequences() {
    let mut layers = Layers::new();
    let device = &layers.device.clone();
    let tokens = |batch| spread::<3>([batch, 5, 8], device);
    layers.add("layer_norm", &LayerNormConfig::new(8).init(device), tokens, |norm, x| norm.forward(x));
    layers.add("rms_norm", &RmsNormConfig::new(8).init(device), tokens, |norm, x| norm.forward(x));
    layers.add("swiglu", &SwiGluConfig::new(8, 6).init(device), tokens, |layer, x| layer.forward(x));
    layers.add("positions", &PositionalEncodingConfig::new(8).init(device), tokens, |layer, x| layer.forward(x));
    let heads = |batch| spread::<4>([batch, 2, 5, 8], device);
    layers.add("rope", &RotaryEncodingConfig::new(8, 8).init(device), heads, |rope, x| rope.forward(x));
    let embedding = EmbeddingConfig::new(12, 8).init(device);
    let ids = |batch: usize| {
        let count = (batch * 5) as i64;
        (Tensor::<1, Int>::arange(0..count, device) * 7).remainder_scalar(12).reshape([batch, 5])
    };
    layers.add("embedding", &embedding, ids, |table, ids| table.forward(ids));
    let steps = |batch| spread::<3>([batch, 3, 4], device);
    layers.add("lstm", &LstmConfig::new(4, 3, true).init(device), steps, |lstm, x| lstm.forward(x, None).0);
    layers.add("bilstm", &BiLstmConfig::new(4, 3, true).init(device), steps, |lstm, x| lstm.forward(x, None).0);
    layers.add("gru", &GruConfig::new(4, 3, true).init(device), steps, |gru, x| gru.forward(x, None));
    let attention = MultiHeadAttentionConfig::new(8, 2).init(device);
    let causal = |attention: &MultiHeadAttention, x: Tensor<3>| {
        let mask = generate_autoregressive_mask(x.dims()[0], 5, &x.device());
        attention.forward(MhaInput::self_attn(x).mask_attn(mask)).context
    };
    layers.add("attention", &attention, tokens, |layer, x| layer.forward(MhaInput::self_attn(x)).context);
    layers.add("attention_causal", &attention, tokens, causal);
    let cross = CrossAttentionConfig::new(8, 6, 2, 1, 4).init(device);
    let both = |batch| (tokens(batch), spread::<3>([batch, 7, 6], device));
    layers.add("cross_attention", &cross, both, |layer, (x, context)| layer.forward(x, context, None));
    let encoder = TransformerEncoderConfig::new(8, 16, 2, 1).init(device);
    layers.add("encoder", &encoder, tokens, |layer, x| layer.forward(TransformerEncoderInput::new(x)));
    let decoder = TransformerDecoderConfig::new(8, 16, 2, 1).with_norm_first(true).init(device);
    let both = |batch| (tokens(batch), spread::<3>([batch, 7, 8], device));
    layers.add("decoder", &decoder, both, |layer, (x, memory)| layer.forward(TransformerDecoderInput::new(x, memory)));
    layers.check();
}

/// A file with windows of one size would be wrong for other sizes.
#[test]
fn adaptive_pools_are_for_the_size_that_was_captured() {
    let (_, device) = device();
    let pool = AdaptiveAvgPool1dConfig::new(2).init();
    let lines = [6, 10].map(|len| spread::<3>([2, 4, len], &device));
    let error = Exporter::new().export_any_size(&pool, lines, |pool, x| pool.forward(x)).unwrap_err().to_string();
    assert!(
        error.ends_with("the size of `batch` is free, and it is divided into windows; capture one size"),
        "{error}"
    );
}
