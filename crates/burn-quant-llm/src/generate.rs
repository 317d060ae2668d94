//! Text that a decoder writes, token by token.
//!
//! ```text
//! logits ──► repetition penalty ──► / temperature ──► softmax ──► top k ──► top p ──► one at random
//! ```
//!
//! Source: the logits processors of transformers 5.14, in their order.

use std::collections::HashSet;
use std::ops::ControlFlow;

use burn::tensor::{DType, Device, Int, Tensor};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::model::Cache;
use crate::{Decoder, LlmError};

/// How tokens are chosen, and when a text ends.
///
/// # Example
///
/// ```
/// use burn_quant_llm::Sampling;
///
/// let mut sampling = Sampling::greedy(64); // the likeliest token, at most 64 of them
/// sampling.stop = vec![2];
///
/// let sampling = Sampling { top_p: 0.9, seed: 7, ..Sampling::random(64, 0.8) };
/// assert!(sampling.validate().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// What logits are divided by: 0 always takes the likeliest token, 1 takes each as often as the model says.
    pub temperature: f32,
    /// The number of likeliest tokens to choose from.
    pub top_k: Option<usize>,
    /// The least probability of all tokens to choose from together, likeliest first: 1 for all tokens.
    pub top_p: f32,
    /// What positive logits of tokens that are there already are divided by, and negative ones multiplied with: 1 for
    /// no penalty.
    pub repetition_penalty: f32,
    /// The seed: the same one chooses the same tokens.
    pub seed: u64,
    /// The most tokens of an answer.
    pub max_tokens: usize,
    /// Tokens that end an answer, and are no part of it.
    pub stop: Vec<u32>,
}

impl Sampling {
    /// Creates the choice of the likeliest token at each step.
    ///
    /// No token ends the text.
    pub fn greedy(max_tokens: usize) -> Self {
        Self::random(max_tokens, 0.0)
    }

    /// Creates a choice at random, by the probabilities of a temperature.
    ///
    /// The seed is 0, and no token ends the text.
    pub fn random(max_tokens: usize, temperature: f32) -> Self {
        let stop = Vec::new();
        Self { temperature, top_k: None, top_p: 1.0, repetition_penalty: 1.0, seed: 0, max_tokens, stop }
    }

    /// Checks that all numbers are in their ranges.
    ///
    /// # Errors
    ///
    /// [`LlmError::Option`] with the one that is not.
    pub fn validate(&self) -> Result<(), LlmError> {
        let checks = [
            ("the temperature", self.temperature >= 0.0, self.temperature.to_string(), "a number of at least 0"),
            ("top k", self.top_k != Some(0), "0".to_string(), "at least 1"),
            ("top p", self.top_p > 0.0 && self.top_p <= 1.0, self.top_p.to_string(), "above 0 and at most 1"),
            (
                "the repetition penalty",
                self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite(),
                self.repetition_penalty.to_string(),
                "a number above 0",
            ),
        ];
        match checks.into_iter().find(|(_, holds, ..)| !holds) {
            Some((what, _, found, expected)) => Err(LlmError::Option { what, found, expected }),
            None => Ok(()),
        }
    }

    /// Whether a token can be chosen on the device.
    fn is_argmax(&self) -> bool {
        self.repetition_penalty == 1.0 && (self.temperature == 0.0 || self.top_k == Some(1))
    }
}

/// Tokens of an answer, one after the other.
///
/// An iterator: take as many as you like. The prompt is read when it is created, tokens are computed when they are
/// asked for. Keys and values are packed if the decoder has quantizers for them that can be.
///
/// # Example
///
/// ```no_run
/// use burn::tensor::Device;
/// use burn_quant_checkpoint::Folder;
/// use burn_quant_llm::{Decoder, Generator, Sampling, Tokenizer};
///
/// let folder = Folder::open("SmolLM2-135M")?;
/// let (decoder, tokenizer) = (Decoder::load(&folder, &Device::default())?, Tokenizer::of_folder(&folder)?);
/// let mut text = tokenizer.stream();
/// for token in Generator::new(&decoder, &tokenizer.encode("Quantization is")?, &Sampling::greedy(32))? {
///     print!("{}", text.push(token)?);
/// }
/// # Ok::<(), burn_quant_llm::LlmError>(())
/// ```
#[derive(Debug)]
pub struct Generator<'a> {
    decoder: &'a Decoder,
    sampling: Sampling,
    device: Device,
    rng: StdRng,
    cache: Cache,
    /// Logits `[1, vocabulary]` of what comes next.
    logits: Tensor<2>,
    /// What the penalty of repetition is for.
    seen: HashSet<u32>,
    /// The last token, which is not in the cache yet.
    last: Option<u32>,
    left: usize,
}

impl<'a> Generator<'a> {
    /// Reads a prompt.
    ///
    /// The logits of its last token alone are computed. Keys and values are cached as codes if the quantizers of all
    /// layers have a packed form for it, and in floats otherwise: [`Generator::cache`] tells.
    ///
    /// # Errors
    ///
    /// [`LlmError::TooShort`] for no tokens, [`LlmError::Option`] for a token that the decoder does not know and for
    /// options out of their ranges.
    pub fn new(decoder: &'a Decoder, prompt: &[u32], sampling: &Sampling) -> Result<Self, LlmError> {
        sampling.validate()?;
        check_tokens(decoder, prompt, 1)?;
        let device = decoder.model.norm.gamma.val().device();
        let mut cache = decoder.packed_cache().unwrap_or_else(|_| decoder.cache());
        let logits = last_logits(decoder, prompt, &mut cache, &device);
        Ok(Self {
            decoder,
            device,
            rng: StdRng::seed_from_u64(sampling.seed),
            cache,
            logits,
            seen: prompt.iter().copied().collect(),
            last: None,
            left: sampling.max_tokens,
            sampling: sampling.clone(),
        })
    }

    /// Returns keys and values of what was read and written, but for the last token.
    ///
    /// For their number and their bytes.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }
}

impl Iterator for Generator<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        if let Some(last) = self.last {
            self.logits = last_logits(self.decoder, &[last], &mut self.cache, &self.device);
        }
        let token = match self.sampling.is_argmax() {
            true => self.logits.clone().argmax(1).into_scalar::<i64>() as u32,
            false => {
                let logits = self.logits.clone().cast(DType::F32).into_data().try_into_vec().expect("f32 data");
                choose(logits, &self.sampling, &self.seen, &mut self.rng)
            }
        };
        if self.sampling.stop.contains(&token) {
            self.left = 0;
            return None;
        }
        self.seen.insert(token);
        self.last = Some(token);
        Some(token)
    }
}

/// Writes the answer to a prompt and returns its tokens.
///
/// `on_token` sees each when it is there, and may end the answer. For an iterator, see [`Generator`].
///
/// # Errors
///
/// Those of [`Generator::new`].
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant_llm::LlmError> {
/// # let config = burn_quant_llm::DecoderConfig::of_json(&serde_json::json!({
/// #     "architectures": ["LlamaForCausalLM"], "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2,
/// #     "num_hidden_layers": 1, "vocab_size": 32,
/// # }))?;
/// # let decoder = burn_quant_llm::Decoder::new(config, &burn::tensor::Device::flex());
/// use std::ops::ControlFlow;
/// use burn_quant_llm::{Sampling, generate};
///
/// let answer = generate(&decoder, &[1, 2, 3], &Sampling::random(8, 1.0), |token| {
///     println!("{token}");
///     ControlFlow::Continue(())
/// })?;
/// assert_eq!(answer.len(), 8);
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn generate(
    decoder: &Decoder,
    prompt: &[u32],
    sampling: &Sampling,
    mut on_token: impl FnMut(u32) -> ControlFlow<()>,
) -> Result<Vec<u32>, LlmError> {
    let mut tokens = Vec::new();
    for token in Generator::new(decoder, prompt, sampling)? {
        tokens.push(token);
        if on_token(token).is_break() {
            break;
        }
    }
    Ok(tokens)
}

/// Makes a row of tokens, `[1, tokens]`: what a decoder takes.
///
/// # Panics
///
/// If there are none.
pub fn row(tokens: &[u32], device: &Device) -> Tensor<2, Int> {
    let tokens: Vec<i32> = tokens.iter().map(|token| *token as i32).collect();
    Tensor::<1, Int>::from_data(tokens.as_slice(), device).unsqueeze()
}

/// Refuses fewer tokens than there must be, and those that a decoder does not know.
pub(crate) fn check_tokens(decoder: &Decoder, tokens: &[u32], wanted: usize) -> Result<(), LlmError> {
    if tokens.len() < wanted {
        return Err(LlmError::TooShort { found: tokens.len(), wanted });
    }
    match tokens.iter().find(|token| **token as usize >= decoder.config().vocabulary) {
        Some(token) => Err(LlmError::Option {
            what: "a token",
            found: token.to_string(),
            expected: "a number below the `vocab_size` of the model: the tokenizer is another model's",
        }),
        None => Ok(()),
    }
}

/// Logits `[1, vocabulary]` of what follows the last of new tokens.
fn last_logits(decoder: &Decoder, tokens: &[u32], cache: &mut Cache, device: &Device) -> Tensor<2> {
    let hidden = decoder.hidden(row(tokens, device), cache);
    decoder.logits(hidden.narrow(1, tokens.len() - 1, 1)).squeeze_dim(1)
}

/// A token by its logit. Of equal ones the first is the likelier.
fn choose(mut logits: Vec<f32>, sampling: &Sampling, seen: &HashSet<u32>, rng: &mut StdRng) -> u32 {
    let penalty = sampling.repetition_penalty;
    if penalty != 1.0 {
        for token in seen {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let descending = |a: &u32, b: &u32| {
        let logit = |token: &u32| logits[*token as usize];
        logit(b).total_cmp(&logit(a)).then(a.cmp(b))
    };
    if sampling.temperature == 0.0 {
        return order.into_iter().min_by(descending).expect("a vocabulary has tokens");
    }
    if let Some(k) = sampling.top_k.filter(|k| *k < order.len()) {
        order.select_nth_unstable_by(k, descending);
        order.truncate(k);
    }
    order.sort_unstable_by(descending);
    // f64, so that a sum over a vocabulary is one of probabilities
    let most = f64::from(logits[order[0] as usize]);
    let weight = |token: &u32| ((f64::from(logits[*token as usize]) - most) / f64::from(sampling.temperature)).exp();
    let mut weights: Vec<f64> = order.iter().map(weight).collect();
    let all: f64 = weights.iter().sum();
    if sampling.top_p < 1.0 {
        let (wanted, mut sum) = (f64::from(sampling.top_p) * all, 0.0);
        let enough = weights.iter().position(|weight| {
            sum += weight;
            sum >= wanted
        });
        weights.truncate(enough.map_or(weights.len(), |last| last + 1));
    }
    let mut point = rng.random::<f64>() * weights.iter().sum::<f64>();
    let chosen = weights.iter().position(|weight| {
        point -= weight;
        point < 0.0
    });
    order[chosen.unwrap_or(weights.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The logits of probabilities.
    fn logits(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln()).collect()
    }

    /// How often each token is chosen in 4000 tries, in percent.
    fn shares(probabilities: &[f32], sampling: &Sampling, seen: &[u32]) -> Vec<i32> {
        let (mut rng, seen) = (StdRng::seed_from_u64(sampling.seed), seen.iter().copied().collect());
        let mut counts = vec![0; probabilities.len()];
        (0..4000).for_each(|_| counts[choose(logits(probabilities), sampling, &seen, &mut rng) as usize] += 1);
        counts.into_iter().map(|count| (f64::from(count) / 40.0).round() as i32).collect()
    }

    #[track_caller]
    fn assert_near(found: &[i32], expected: [i32; 4]) {
        // 4000 tries: a standard deviation is at most 0.8 percent
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 3), "{found:?} is not {expected:?}");
    }

    #[test]
    fn tokens_are_chosen_as_often_as_the_temperature_says() {
        let p = [0.1, 0.4, 0.2, 0.3];
        assert_near(&shares(&p, &Sampling::random(1, 1.0), &[]), [10, 40, 20, 30]);
        // p² / Σp²
        assert_near(&shares(&p, &Sampling::random(1, 0.5), &[]), [3, 53, 13, 30]);
        assert_eq!(shares(&p, &Sampling::greedy(1), &[]), [0, 100, 0, 0]);
        assert_eq!(shares(&p, &Sampling::random(1, 1e-6), &[]), [0, 100, 0, 0], "no overflow");
    }

    #[test]
    fn top_k_and_top_p_leave_the_likeliest_tokens() {
        let (p, base) = ([0.1, 0.4, 0.2, 0.3], Sampling::random(1, 1.0));
        assert_near(&shares(&p, &Sampling { top_k: Some(2), ..base.clone() }, &[]), [0, 57, 0, 43]);
        // 0.4 + 0.3 reach 0.65, 0.4 alone does not
        assert_near(&shares(&p, &Sampling { top_p: 0.65, ..base.clone() }, &[]), [0, 57, 0, 43]);
        assert_eq!(shares(&p, &Sampling { top_p: 0.01, ..base.clone() }, &[]), [0, 100, 0, 0], "one is always left");
        // after the two likeliest of which the first has 57 percent
        assert_eq!(shares(&p, &Sampling { top_k: Some(2), top_p: 0.5, ..base }, &[]), [0, 100, 0, 0]);
    }

    #[test]
    fn a_penalty_makes_tokens_less_likely_that_are_there_already_whatever_their_sign() {
        let (seen, mut rng) = (HashSet::from([0]), StdRng::seed_from_u64(0));
        let sampling = Sampling { repetition_penalty: 2.0, ..Sampling::greedy(1) };
        assert_eq!(choose(vec![3.0, 2.0], &sampling, &seen, &mut rng), 1); // 1.5 < 2
        assert_eq!(choose(vec![-1.0, -1.5], &sampling, &seen, &mut rng), 1); // −2 < −1.5
        assert_eq!(choose(vec![5.0, 2.0], &sampling, &seen, &mut rng), 0); // 2.5 > 2
    }

    #[test]
    fn of_equal_tokens_the_first_is_taken() {
        let mut rng = StdRng::seed_from_u64(0);
        assert_eq!(choose(vec![0.0, 1.0, 1.0], &Sampling::greedy(1), &HashSet::new(), &mut rng), 1);
    }

    #[test]
    fn numbers_out_of_their_ranges_are_refused_by_name() {
        for (sampling, name) in [
            (Sampling::random(1, -1.0), "the temperature"),
            (Sampling::random(1, f32::NAN), "the temperature"),
            (Sampling { top_k: Some(0), ..Sampling::greedy(1) }, "top k"),
            (Sampling { top_p: 0.0, ..Sampling::greedy(1) }, "top p"),
            (Sampling { top_p: 1.1, ..Sampling::greedy(1) }, "top p"),
            (Sampling { repetition_penalty: 0.0, ..Sampling::greedy(1) }, "the repetition penalty"),
        ] {
            let error = sampling.validate().unwrap_err();
            assert!(matches!(error, LlmError::Option { what, .. } if what == name), "{error}");
        }
    }
}
