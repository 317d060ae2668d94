//! How well a decoder predicts a text, and how far a quantized one is from its float model.

use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Int, Tensor};
use serde::Serialize;

use crate::generate::{check_tokens, row};
use crate::{Decoder, LlmError};

/// Cuts a text into windows of a length, at most so many.
///
/// They lie one after the other from its beginning; a last one that would be shorter is left out.
///
/// # Errors
///
/// [`LlmError::TooShort`] if the text has less than one.
///
/// # Example
///
/// ```
/// use burn_quant_llm::windows;
///
/// assert_eq!(windows(&[1, 2, 3, 4, 5], 2, 8)?, [[1, 2], [3, 4]]);
/// # Ok::<(), burn_quant_llm::LlmError>(())
/// ```
pub fn windows(tokens: &[u32], len: usize, count: usize) -> Result<Vec<Vec<u32>>, LlmError> {
    if len == 0 || count == 0 {
        let what = if len == 0 { "the length of windows" } else { "the number of windows" };
        return Err(LlmError::Option { what, found: "0".into(), expected: "at least 1" });
    }
    match tokens.chunks_exact(len).take(count).map(<[u32]>::to_vec).collect::<Vec<_>>() {
        windows if windows.is_empty() => Err(LlmError::TooShort { found: tokens.len(), wanted: len }),
        windows => Ok(windows),
    }
}

/// Returns the perplexity of windows of tokens: `exp` of the mean negative log-likelihood, in nats, of every token but
/// the first of its window.
///
/// ```text
/// exp( − Σ_windows Σ_t ln p(x_t | x_0 … x_{t−1}) / Σ_windows (n − 1) )
/// ```
///
/// Likelihoods of a window are added on the device in f32, those of all windows in f64. Each window is read from the
/// device once.
///
/// # Errors
///
/// [`LlmError::TooShort`] for no windows, and for one of fewer than two tokens; [`LlmError::Option`] for a token that
/// the decoder does not know.
///
/// # Example
///
/// ```no_run
/// use burn::tensor::Device;
/// use burn_quant_checkpoint::Folder;
/// use burn_quant_llm::{Decoder, Tokenizer, perplexity, windows};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = Folder::open("SmolLM2-135M")?;
/// let decoder = Decoder::load(&folder, &Device::default())?;
/// let tokens = Tokenizer::of_folder(&folder)?.encode(&std::fs::read_to_string("wiki.test.txt")?)?;
/// println!("{:.2}", perplexity(&decoder, &windows(&tokens, 512, 8)?)?);
/// # Ok(()) }
/// ```
pub fn perplexity(decoder: &Decoder, windows: &[Vec<u32>]) -> Result<f64, LlmError> {
    perplexity_with(decoder, windows, |_| {})
}

/// Returns the perplexity as [`perplexity`] does, and calls a listener after each window with the number of windows so
/// far.
///
/// # Errors
///
/// Those of [`perplexity`].
pub fn perplexity_with(
    decoder: &Decoder,
    windows: &[Vec<u32>],
    mut on_window: impl FnMut(usize),
) -> Result<f64, LlmError> {
    check_windows(&[decoder], windows)?;
    let (mut nats, mut count) = (0.0, 0);
    for (i, window) in windows.iter().enumerate() {
        let window = Window::of(decoder, window);
        let sum = window.chunks().map(|chunk| chunk.log_likelihood(&chunk.log_probabilities(decoder, &window.hidden)));
        nats -= read(sum.reduce(|a, b| a + b).expect("a window has tokens"))[0];
        count += window.predicted;
        on_window(i + 1);
    }
    Ok((nats / count as f64).exp())
}

/// How far a quantized decoder is from its float model on a text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Comparison {
    /// The perplexity of the float model.
    pub float_perplexity: f64,
    /// The perplexity of the quantized one.
    pub perplexity: f64,
    /// The mean of `Σ p · ln(p / q)` over tokens, in nats: `p` of the float model, `q` of the quantized one.
    pub kl: f64,
    /// The share of tokens for which both say the same most likely next one, 0 to 1.
    pub top1: f64,
    /// The number of tokens that were predicted.
    pub tokens: usize,
}

/// Compares a quantized decoder with its float model on windows of tokens.
///
/// Logits stay on the device; each window is read from it once.
///
/// # Errors
///
/// Those of [`perplexity`], and [`LlmError::Option`] if the two have different vocabularies.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant_llm::LlmError> {
/// # let config = burn_quant_llm::DecoderConfig::of_json(&serde_json::json!({
/// #     "architectures": ["LlamaForCausalLM"], "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2,
/// #     "num_hidden_layers": 1, "vocab_size": 32,
/// # }))?;
/// # let float = burn_quant_llm::Decoder::new(config, &burn::tensor::Device::flex());
/// use burn_quant::{presets, quantize_weights};
/// use burn_quant_llm::compare;
///
/// let (quantized, _) = quantize_weights(float.clone(), &presets::int8_weight_only())?;
/// let comparison = compare(&float, &quantized, &[vec![1, 2, 3, 4, 5, 6, 7, 8]])?;
/// assert!(comparison.kl < 1e-3);
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn compare(float: &Decoder, quantized: &Decoder, windows: &[Vec<u32>]) -> Result<Comparison, LlmError> {
    compare_with(float, quantized, windows, |_| {})
}

/// Compares as [`compare`] does, and calls a listener after each window with the number of windows so far.
///
/// # Errors
///
/// Those of [`compare`].
pub fn compare_with(
    float: &Decoder,
    quantized: &Decoder,
    windows: &[Vec<u32>],
    mut on_window: impl FnMut(usize),
) -> Result<Comparison, LlmError> {
    let (expected, found) = (float.config().vocabulary, quantized.config().vocabulary);
    if expected != found {
        let (found, expected) = (format!("{found} and {expected}"), "the same one for both models");
        return Err(LlmError::Option { what: "the vocabulary", found, expected });
    }
    check_windows(&[float, quantized], windows)?;
    let (mut sums, mut tokens) = ([0.0; 4], 0);
    for (i, window) in windows.iter().enumerate() {
        let [of_float, of_quantized] = [float, quantized].map(|decoder| Window::of(decoder, window));
        let measured = of_float.chunks().map(|chunk| {
            let p = chunk.log_probabilities(float, &of_float.hidden);
            let q = chunk.log_probabilities(quantized, &of_quantized.hidden);
            let likelihoods = [chunk.log_likelihood(&p), chunk.log_likelihood(&q)];
            let same = p.clone().argmax(1).equal(q.clone().argmax(1)).float().cast(DType::F32).sum();
            let kl = (p.clone().exp() * (p - q)).sum();
            let [a, b] = likelihoods;
            Tensor::cat(vec![a, b, kl, same], 0)
        });
        let measured = read(measured.reduce(|a, b| a + b).expect("a window has tokens"));
        sums.iter_mut().zip(measured).for_each(|(sum, value)| *sum += value);
        tokens += of_float.predicted;
        on_window(i + 1);
    }
    let [float, quantized, kl, same] = sums.map(|sum| sum / tokens as f64);
    Ok(Comparison { float_perplexity: (-float).exp(), perplexity: (-quantized).exp(), kl, top1: same, tokens })
}

fn check_windows(decoders: &[&Decoder], windows: &[Vec<u32>]) -> Result<(), LlmError> {
    if windows.is_empty() {
        return Err(LlmError::TooShort { found: 0, wanted: 2 });
    }
    decoders.iter().try_for_each(|decoder| windows.iter().try_for_each(|window| check_tokens(decoder, window, 2)))
}

/// Values of a tensor as f64.
fn read(tensor: Tensor<1>) -> Vec<f64> {
    tensor.into_data().convert::<f64>().try_into_vec().expect("f64 data")
}

/// Elements of logits that are computed at a time, 64 MiB of f32: a vocabulary of 128 thousand has 128 tokens.
const LOGITS: usize = 1 << 24;

/// The features of all tokens of a window but the last, and what follows them.
struct Window {
    hidden: Tensor<3>,
    targets: Tensor<2, Int>,
    predicted: usize,
    /// Tokens whose logits are computed at a time.
    step: usize,
}

impl Window {
    fn of(decoder: &Decoder, tokens: &[u32]) -> Self {
        let predicted = tokens.len() - 1;
        let tokens = row(tokens, &decoder.model.norm.gamma.val().device());
        let hidden = decoder.hidden(tokens.clone().narrow(1, 0, predicted), &mut decoder.cache());
        let targets = tokens.narrow(1, 1, predicted).reshape([predicted, 1]);
        Self { hidden, targets, predicted, step: (LOGITS / decoder.config().vocabulary.max(1)).max(1) }
    }

    fn chunks(&self) -> impl Iterator<Item = Chunk> {
        (0..self.predicted).step_by(self.step).map(|first| {
            let tokens = self.step.min(self.predicted - first);
            Chunk { first, tokens, targets: self.targets.clone().narrow(0, first, tokens) }
        })
    }
}

/// Some tokens of a window.
struct Chunk {
    first: usize,
    tokens: usize,
    targets: Tensor<2, Int>,
}

impl Chunk {
    /// `[tokens, vocabulary]` in f32.
    fn log_probabilities(&self, decoder: &Decoder, hidden: &Tensor<3>) -> Tensor<2> {
        let logits = decoder.logits(hidden.clone().narrow(1, self.first, self.tokens));
        log_softmax(logits.cast(DType::F32).squeeze_dim::<2>(0), 1)
    }

    /// Of all its tokens together: `[1]`.
    fn log_likelihood(&self, log_probabilities: &Tensor<2>) -> Tensor<1> {
        log_probabilities.clone().gather(1, self.targets.clone()).sum()
    }
}
