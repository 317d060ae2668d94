//! Packed models against their float selves: time, memory and files.

use std::hint::black_box;
use std::path::Path;

use burn::tensor::{Device, Distribution, Tensor};
use burn_quant::compress::memory;
use burn_quant::nn::attention::KvCache;
use burn_quant::nn::{LinearConfig, QuantLinear};
use burn_quant::numerics::IntFormat;
use burn_quant::ops::{
    Activations, Around, FakeQuant, GradientRule, Groups, OutputRounding, PackedTensor, Ranges, fake_quant,
    packed_linear, packed_linear_fused,
};
use burn_quant::place::Role;
use burn_quant::quantizer::TensorQuantizer;
use burn_quant::train::QuantLora;
use burn_quant::{QuantConfig, QuantizerConfig, Rule, compress, presets, quantize, quantize_weights};
use burn_quant_benches::{device, shortest};
use char_gpt::model::{CharGpt, Size};
use char_gpt::text::Text;
use char_gpt::train::{Schedule, bar, bits_per_character, train};
use fashion_mnist::model::Cnn;
use pretrained::minilm::{MiniLm, Sentences};

use super::{Figure, ratio};

fn linear(inputs: usize, outputs: usize, device: &Device) -> QuantLinear {
    LinearConfig::new(inputs, outputs).with_bias(false).init(device)
}

fn packed(layer: QuantLinear, weight: QuantizerConfig, tokens: bool) -> QuantLinear {
    let config = QuantConfig::new().with_rule(Rule::set("weight_quantizer", weight));
    let config = match tokens {
        true => config.with_rule(Rule::set("input_quantizer", QuantizerConfig::int(8).per_token().dynamic())),
        false => config,
    };
    let [inputs, _] = layer.weight.dims();
    let x = Tensor::<2>::random([2, inputs], Distribution::Default, &layer.weight.device());
    let (layer, _) = quantize(layer, &config, |layer| drop(layer.forward(x.clone()))).expect("it is quantized");
    compress(layer).expect("it is packed").0
}

/// Eight layers of 4096 · 4096 in turn, so that weights come from memory; the unit is burn's own f32 layer.
pub(crate) fn linears() -> Vec<Figure> {
    const SIDE: usize = 4096;
    let device = device();
    let float: Vec<QuantLinear> = (0..8).map(|_| linear(SIDE, SIDE, &device)).collect();
    let int4 = QuantizerConfig::int(4).per_block(128);
    let all = |weight: QuantizerConfig| -> Vec<QuantLinear> {
        float.iter().map(|layer| packed(layer.clone(), weight.clone(), true)).collect()
    };
    let (w4, w8) = (all(int4), all(QuantizerConfig::int(8).per_channel()));
    let mut figures = Vec::new();
    for (batch, bounds) in [(1, [6.0, 3.5]), (32, [4.0, 4.0])] {
        let x = Tensor::<2>::random([batch, SIDE], Distribution::Normal(0.0, 1.0), &device);
        let run = |layers: &[QuantLinear]| {
            layers.iter().for_each(|layer| drop(black_box(layer.forward(x.clone()))));
            device.sync().expect("the device is alive");
        };
        let times = shortest(7, &mut [&mut || run(&w4), &mut || run(&w8), &mut || run(&float)]);
        for (i, name) in ["W4 block 128, INT8 tokens", "W8, INT8 tokens"].into_iter().enumerate() {
            let faster = times[2].as_secs_f64() / times[i].as_secs_f64();
            figures.push(Figure::at_least(format!("packed {name}, batch {batch}: f32 / packed"), faster, bounds[i]));
        }
    }
    figures
}

/// What a packed layer costs beside its product, in microseconds: the time of one that has next to nothing to multiply.
pub(crate) fn glue() -> Vec<Figure> {
    let device = device();
    let layer = packed(linear(16, 16, &device), QuantizerConfig::int(8).per_channel(), true);
    let x = Tensor::<2>::random([1, 16], Distribution::Normal(0.0, 1.0), &device);
    let many = || (0..1000).for_each(|_| drop(black_box(layer.forward(x.clone()))));
    let times = shortest(9, &mut [&mut || many()]);
    // what one pass saves: the same as passes of their own over the input and the result
    let weight = Tensor::<2>::random([1024, 1024], Distribution::Normal(0.0, 0.02), &device);
    let int8 = IntFormat::signed(8).expect("8 bits").into();
    let groups = Groups::per_channel(&[1024, 1024], 1);
    let spec = FakeQuant { format: int8, groups, gradient: GradientRule::PassThrough };
    let weight = PackedTensor::pack(weight, Ranges::Dynamic, spec).expect("it packs");
    let scale = Tensor::<1>::random([1024], Distribution::Uniform(0.5, 2.0), &device);
    let bias = Tensor::<1>::random([1024], Distribution::Normal(0.0, 1.0), &device);
    for batch in [1, 32, 512] {
        let x = Tensor::<2>::random([batch, 1024], Distribution::Normal(0.0, 1.0), &device);
        let many = |f: &dyn Fn() -> Tensor<2>| (0..20).for_each(|_| drop(black_box(f())));
        let tokens = || Activations::Int8PerToken;
        let with_bias = || Around { addend: Some(bias.clone().unsqueeze()), ..Around::default() };
        let with_scale = || Around { pre_quant_scale: Some(scale.clone()), ..Around::default() };
        let range = Tensor::<1>::from_data([2.0f32], &device);
        let gradient = GradientRule::Clipped;
        let output = || OutputRounding { format: int8, range: range.clone(), gradient };
        let rounded = || Around { output: Some(output()), ..Around::default() };
        let rounding = || FakeQuant { format: int8, groups: Groups::per_tensor(&[batch, 1024]), gradient };
        let times = shortest(
            9,
            &mut [
                &mut || many(&|| packed_linear(x.clone(), &weight, tokens())),
                &mut || many(&|| packed_linear_fused(x.clone(), &weight, tokens(), with_bias())),
                &mut || many(&|| packed_linear(x.clone(), &weight, tokens()) + bias.clone().unsqueeze()),
                &mut || many(&|| packed_linear_fused(x.clone(), &weight, tokens(), with_scale())),
                &mut || many(&|| packed_linear(x.clone() * scale.clone().unsqueeze(), &weight, tokens())),
                &mut || many(&|| packed_linear_fused(x.clone(), &weight, tokens(), rounded())),
                &mut || many(&|| fake_quant(packed_linear(x.clone(), &weight, tokens()), range.clone(), rounding())),
            ],
        );
        let of = |i: usize| times[i].as_secs_f64() / times[0].as_secs_f64();
        println!(
            "# packed linear 1024 x 1024, INT8 tokens, batch {batch}, of the product alone: with a bias {:.3} in one \
             pass, {:.3} in its own; with scales of inputs {:.3} and {:.3}; rounded to INT8 {:.3} and {:.3}",
            of(1),
            of(2),
            of(3),
            of(4),
            of(5),
            of(6)
        );
    }
    vec![Figure::at_most("packed linear, beside the product, us", times[0].as_secs_f64() * 1e3, 5.0)]
}

/// The network of the first example in INT8, whole: the unit is its packed self.
pub(crate) fn convolutions() -> Vec<Figure> {
    let device = device();
    let float = Cnn::new(&device);
    let calibration = Tensor::<4>::random([64, 1, 28, 28], Distribution::Default, &device);
    let run = |model: &Cnn| drop(model.forward(calibration.clone()));
    let (quantized, _) = quantize(float.clone(), &presets::int8_default(), run).expect("it is quantized");
    let (packed, _) = compress(quantized).expect("it is packed");
    let figure = |batch: usize| {
        let x = Tensor::<4>::random([batch, 1, 28, 28], Distribution::Default, &device);
        let many = |model: &Cnn| (0..20).for_each(|_| drop(black_box(model.forward(x.clone()))));
        let times = shortest(15, &mut [&mut || many(&packed), &mut || many(&float)]);
        let each = |i: usize| times[i].as_secs_f64() * 1e6 / 20.0;
        println!("# convolution network, batch {batch}: {:.0} us packed, {:.0} us in f32", each(0), each(1));
        Figure::at_least(format!("packed convolution network, batch {batch}: f32 / packed"), ratio(&times), 1.5)
    };
    [1, 32].map(figure).into()
}

/// The linear layers of SmolLM2-135M, one of its 30 blocks: bytes in memory against f32.
pub(crate) fn sizes() -> Vec<Figure> {
    let device = device();
    let shapes = [[576, 576], [576, 192], [576, 192], [576, 576], [576, 1536], [576, 1536], [1536, 576]];
    let share = |config: &QuantizerConfig| {
        let config = QuantConfig::new().with_rule(Rule::set("weight_quantizer", config.clone()));
        let (mut bytes, mut float) = (0, 0);
        for [inputs, outputs] in shapes {
            let (layer, _) = quantize_weights(linear(inputs, outputs, &device), &config).expect("it is quantized");
            let held = memory(&compress(layer).expect("it is packed").0);
            (bytes, float) = (bytes + held.bytes(), float + held.float_bytes());
        }
        bytes as f64 / float as f64
    };
    [
        ("W4 block 32", QuantizerConfig::int(4).per_block(32), 0.165),
        ("W4 block 128", QuantizerConfig::int(4).per_block(128), 0.14),
        ("W8", QuantizerConfig::int(8).per_channel(), 0.26),
    ]
    .map(|(name, config, bound)| {
        Figure::at_most(format!("packed SmolLM2 linears, {name} / f32"), share(&config), bound)
    })
    .into()
}

/// What a token takes in a packed cache of SmolLM2-135M, of 30 layers with three heads of 64 features, against f32.
pub(crate) fn cache() -> Vec<Figure> {
    let device = device();
    let token = Tensor::<4>::random([1, 3, 1, 64], Distribution::Normal(0.0, 1.0), &device);
    let bytes = |cache: &mut KvCache| {
        cache.extend(token.clone(), token.clone());
        cache.bytes_per_token()
    };
    let float = bytes(&mut KvCache::new());
    [
        ("INT8 per token", QuantizerConfig::int(8).per_token().dynamic(), 0.27),
        ("FP8", QuantizerConfig::e4m3().constant(4.0), 0.25),
        ("NVFP4", QuantizerConfig::nvfp4().constant(4.0), 0.15),
    ]
    .map(|(name, config, bound)| {
        let quantizer = TensorQuantizer::new(config, Role::ChannelsLast);
        let packed = bytes(&mut KvCache::packed(&quantizer, &quantizer).expect("it has a packed form"));
        println!("# cache of SmolLM2, {name}: {} bytes per token, {} in f32", 30 * packed, 30 * float);
        Figure::at_most(format!("packed cache, {name} / f32, bytes per token"), packed as f64 / float as f64, bound)
    })
    .into()
}

/// LoRA of rank 8 on the character model for 200 steps, over packed INT4 weights and over the same ones simulated.
pub(crate) fn qlora() -> Vec<Figure> {
    let (device, plain) = (device().autodiff(), device());
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/char-gpt/data/moby-dick.txt.gz");
    let text = Text::read(&text).expect("the text is in the repository");
    let schedule = |steps, learning_rate, seed| Schedule { steps, batch: 16, learning_rate, seed };
    device.seed(1);
    let model = CharGpt::new(text.characters(), Size::SMALL, &device);
    let model = train(model, &text, schedule(200, 2e-3, 1), &device, &bar("", false));
    let int4 = QuantizerConfig::int(4).per_block(32);
    let config = QuantConfig::new()
        .with_rule(Rule::set("blocks.*weight_quantizer", int4.clone()))
        .with_rule(Rule::set("lm_head.weight_quantizer", int4));
    let (simulated, _) = quantize_weights(model, &config).expect("it is quantized");
    let (packed, report) = compress(simulated.clone()).expect("it is packed");
    let held_out = text.held_out(64, 16, &plain);
    let trained = |base: CharGpt| {
        device.seed(2);
        let adapted = QuantLora::new(8).adapt(base).expect("it is adapted");
        let adapted = train(adapted, &text, schedule(200, 1e-3, 2), &device, &bar("", false));
        bits_per_character(&adapted, &held_out)
    };
    let before = bits_per_character(&packed, &held_out);
    let (of_packed, of_simulated) = (trained(packed), trained(simulated));
    println!("# QLoRA: {before:.4} bits per character before, {of_packed:.4} after, {of_simulated:.4} simulated");
    let share = report.packed_bytes() as f64 / report.float_bytes as f64;
    let off = 100.0 * (of_packed / of_simulated - 1.0).abs();
    vec![
        Figure::at_most("QLoRA, packed weights / f32", share, 0.2),
        Figure::at_most("QLoRA, loss after 200 steps, % off LoRA over fake quantization", off, 1.0),
    ]
}

/// MiniLM on a batch of 32 sentences, INT8 with SmoothQuant.
pub(crate) fn minilm() -> Vec<Figure> {
    let Some(models) = std::env::var_os("BURN_QUANT_MODELS").map(std::path::PathBuf::from) else {
        println!("# packed MiniLM: not measured, as BURN_QUANT_MODELS names no folder with the published models");
        return Vec::new();
    };
    let device = device();
    let text = burn_quant_benches::moby_dick();
    let (float, task) = pretrained::minilm::published(&models, &text, &device).expect("the model is there");
    let config = presets::int8_smoothquant();
    let calibrate = |model: &MiniLm| task.calibration.iter().for_each(|batch| drop(model.forward(batch)));
    let (quantized, _) = quantize(float.clone(), &config, calibrate).expect("it is quantized");
    let (packed, _) = compress(quantized).expect("it is packed");
    let batches = task.calibration.iter().take(32usize.div_ceil(task.calibration[0].words.dims()[0]));
    let (words, padding) = batches.map(|batch| (batch.words.clone(), batch.padding.clone())).unzip();
    let batch =
        Sentences { words: Tensor::cat(words, 0).narrow(0, 0, 32), padding: Tensor::cat(padding, 0).narrow(0, 0, 32) };
    let run = |model: &MiniLm| drop(black_box(model.forward(&batch)));
    let times = shortest(9, &mut [&mut || run(&packed), &mut || run(&float)]);
    println!("# MiniLM, tokens {:?}: {:?} packed, {:?} in f32", batch.words.dims(), times[0], times[1]);
    vec![Figure::at_least("packed MiniLM, INT8 SmoothQuant, a batch: f32 / packed", ratio(&times), 2.0)]
}
