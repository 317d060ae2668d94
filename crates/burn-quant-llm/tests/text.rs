//! What a decoder writes, and how well it predicts a text: the same on every path that computes it.
#![cfg(feature = "flex")]

use std::ops::ControlFlow;

use burn::tensor::{Device, Int, Tensor};
use burn_quant::{QuantConfig, QuantizerConfig, Rule, presets, quantize, quantize_weights};
use burn_quant_llm::{
    Decoder, DecoderConfig, Generator, LlmError, Sampling, compare, compare_with, generate, perplexity, windows,
};

/// A decoder with random weights.
fn decoder(vocabulary: usize, hidden: usize) -> Decoder {
    let json = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": hidden, "intermediate_size": 2 * hidden,
        "num_attention_heads": 2, "num_hidden_layers": 2, "vocab_size": vocabulary,
    });
    let device = Device::flex();
    device.seed(42);
    Decoder::new(DecoderConfig::of_json(&json).unwrap(), &device)
}

fn row(tokens: &[u32]) -> Tensor<2, Int> {
    let tokens: Vec<i32> = tokens.iter().map(|token| *token as i32).collect();
    Tensor::<1, Int>::from_data(tokens.as_slice(), &Device::flex()).unsqueeze()
}

/// The logarithms of the probabilities of what follows each token but the last, in f64 on the host.
fn log_probabilities(decoder: &Decoder, tokens: &[u32]) -> Vec<Vec<f64>> {
    let logits = decoder.forward(row(&tokens[..tokens.len() - 1]), &mut decoder.cache());
    let logits: Vec<f32> = logits.into_data().try_into_vec().unwrap();
    logits
        .chunks_exact(decoder.config().vocabulary)
        .map(|logits| {
            let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
            logits.iter().map(|logit| f64::from(*logit) - sum.ln()).collect()
        })
        .collect()
}

fn likeliest(logs: &[f64]) -> usize {
    (0..logs.len()).max_by(|a, b| logs[*a].total_cmp(&logs[*b])).unwrap()
}

#[test]
fn a_cache_and_the_logits_of_last_tokens_alone_choose_what_a_whole_pass_chooses() {
    let decoder = decoder(64, 32);
    let prompt = [3, 1, 4, 1, 5];
    let answer: Vec<u32> = Generator::new(&decoder, &prompt, &Sampling::greedy(8)).unwrap().collect();
    let mut expected = prompt.to_vec();
    for _ in 0..8 {
        // a last token that is left out of the product
        let logs = log_probabilities(&decoder, &[expected.as_slice(), &[0]].concat());
        expected.push(likeliest(logs.last().unwrap()) as u32);
    }
    assert_eq!(answer, expected[prompt.len()..]);
}

/// Heads that share keys, read at once or in pieces: several tokens and one take different ways, and so does a window
/// that hides some.
#[test]
fn a_prompt_in_pieces_has_the_logits_of_the_whole() {
    for window in [None, Some(6)] {
        let json = serde_json::json!({
            "architectures": ["MistralForCausalLM"], "hidden_size": 32, "intermediate_size": 64, "vocab_size": 64,
            "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "sliding_window": window,
        });
        Device::flex().seed(42);
        let decoder = Decoder::new(DecoderConfig::of_json(&json).unwrap(), &Device::flex());
        let tokens: Vec<u32> = (0..9).map(|i| i * 7 % 64).collect();
        let logits = |tokens: &[u32], cache: &mut _| -> Vec<f32> {
            decoder.forward(row(tokens), cache).into_data().try_into_vec().unwrap()
        };
        let whole = logits(&tokens, &mut decoder.cache());
        let (mut cache, mut in_pieces, mut read) = (decoder.cache(), Vec::new(), 0);
        for piece in [4, 1, 3, 1] {
            in_pieces.extend(logits(&tokens[read..read + piece], &mut cache));
            read += piece;
        }
        let largest = whole.iter().fold(0f32, |largest, logit| largest.max(logit.abs()));
        assert_eq!(in_pieces.len(), whole.len());
        for (found, expected) in in_pieces.iter().zip(&whole) {
            assert!((found - expected).abs() <= 1e-5 * largest, "{window:?}: {found}, expected {expected}");
        }
    }
}

#[test]
fn the_same_seed_writes_the_same_tokens_and_another_one_others() {
    let decoder = decoder(64, 32);
    let answer = |seed| {
        let sampling = Sampling { seed, top_p: 0.95, ..Sampling::random(16, 1.0) };
        generate(&decoder, &[1, 2, 3], &sampling, |_| ControlFlow::Continue(())).unwrap()
    };
    assert_eq!(answer(1).len(), 16);
    assert_eq!(answer(1), answer(1));
    assert_ne!(answer(1), answer(2));
}

#[test]
fn an_answer_ends_before_a_stop_token_and_where_the_caller_says() {
    let decoder = decoder(64, 32);
    let greedy = Sampling::greedy(8);
    let all = generate(&decoder, &[1, 2], &greedy, |_| ControlFlow::Continue(())).unwrap();
    let at = all.iter().position(|token| *token != all[0]).unwrap_or(0);
    let stopped = Sampling { stop: vec![all[at]], ..greedy.clone() };
    let answer = generate(&decoder, &[1, 2], &stopped, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(answer, all[..at], "without the token that stops it");
    assert_eq!(generate(&decoder, &[1, 2], &greedy, |_| ControlFlow::Break(())).unwrap(), all[..1]);
    let mut ended = Generator::new(&decoder, &[1, 2], &stopped).unwrap();
    assert!(ended.by_ref().count() == at && ended.next().is_none(), "and it stays at its end");
}

#[test]
fn quantized_keys_and_values_are_kept_in_their_codes() {
    let decoder = decoder(64, 32);
    let tokens = row(&[1, 2, 3, 4, 5, 6, 7, 8]);
    let config = presets::int8_weight_only().extend(presets::fp8_kv());
    let (quantized, _) =
        quantize(decoder.clone(), &config, |model| drop(model.hidden(tokens.clone(), &mut model.cache()))).unwrap();
    let bytes = |decoder: &Decoder| {
        Generator::new(decoder, &[1, 2, 3], &Sampling::greedy(1)).unwrap().cache().bytes_per_token()
    };
    // keys and values of 32 features in 2 layers: 4 bytes each, or 1
    assert_eq!((bytes(&decoder), bytes(&quantized)), (2 * 2 * 32 * 4, 2 * 2 * 32));
}

#[test]
fn prompts_without_tokens_or_of_another_model_are_refused() {
    let decoder = decoder(64, 32);
    let error = |prompt: &[u32]| Generator::new(&decoder, prompt, &Sampling::greedy(1)).unwrap_err();
    assert!(matches!(error(&[]), LlmError::TooShort { found: 0, wanted: 1 }));
    assert!(matches!(error(&[1, 64]), LlmError::Option { found, .. } if found == "64"));
}

#[test]
fn perplexity_is_the_mean_over_all_tokens_but_the_first_of_each_window() {
    let decoder = decoder(64, 32);
    let windows = [vec![1, 2, 3, 4, 5, 6], vec![7, 8, 9]];
    let nats = windows.iter().flat_map(|window| {
        let logs = log_probabilities(&decoder, window);
        logs.into_iter().zip(&window[1..]).map(|(logs, token)| -logs[*token as usize]).collect::<Vec<_>>()
    });
    let expected = (nats.sum::<f64>() / 7.0).exp(); // 5 + 2 tokens
    let found = perplexity(&decoder, &windows).unwrap();
    assert!((found / expected - 1.0).abs() < 1e-5, "{found} is not {expected}");
}

#[test]
fn a_vocabulary_too_large_for_all_tokens_at_once_gives_the_same() {
    // 64 tokens are computed at a time, and 67 predicted
    let decoder = decoder(1 << 18, 4);
    let window: Vec<u32> = (0..68).map(|i| i * 3001).collect();
    let logs = log_probabilities(&decoder, &window);
    let nats: f64 = logs.into_iter().zip(&window[1..]).map(|(logs, token)| -logs[*token as usize]).sum();
    let (found, expected) = (perplexity(&decoder, &[window]).unwrap(), (nats / 67.0).exp());
    assert!((found / expected - 1.0).abs() < 1e-4, "{found} is not {expected}");
}

#[test]
fn a_model_does_not_diverge_from_itself() {
    let decoder = decoder(64, 32);
    let windows = [vec![1, 2, 3, 4], vec![5, 6, 7, 8]];
    let comparison = compare(&decoder, &decoder, &windows).unwrap();
    assert_eq!((comparison.kl, comparison.top1, comparison.tokens), (0.0, 1.0, 6));
    assert_eq!(comparison.float_perplexity, comparison.perplexity);
    assert!((comparison.perplexity / perplexity(&decoder, &windows).unwrap() - 1.0).abs() < 1e-6);
}

#[test]
fn divergence_and_agreement_are_those_of_the_definition() {
    let float = decoder(64, 32);
    let int2 =
        QuantConfig::new().with_rule(Rule::set("*layers*weight_quantizer", QuantizerConfig::int(2).per_channel()));
    let (quantized, _) = quantize_weights(float.clone(), &int2).unwrap();
    let window: Vec<u32> = (0..24).collect();
    let (p, q) = (log_probabilities(&float, &window), log_probabilities(&quantized, &window));
    let kl = |(p, q): (&Vec<f64>, &Vec<f64>)| p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
    let kl = p.iter().zip(&q).map(kl).sum::<f64>() / 23.0;
    let top1 = p.iter().zip(&q).filter(|(p, q)| likeliest(p) == likeliest(q)).count() as f64 / 23.0;
    let mut seen = Vec::new();
    let found = compare_with(&float, &quantized, std::slice::from_ref(&window), |done| seen.push(done)).unwrap();
    assert!(kl > 1e-3 && (found.kl / kl - 1.0).abs() < 1e-3, "{} is not {kl}", found.kl);
    assert!(top1 < 1.0 && (found.top1 - top1).abs() < 1e-6, "{} is not {top1}", found.top1);
    assert_eq!(seen, [1]);
}

#[test]
fn texts_too_short_to_evaluate_are_refused_with_both_numbers() {
    let decoder = decoder(64, 32);
    assert!(matches!(windows(&[1, 2, 3], 4, 1), Err(LlmError::TooShort { found: 3, wanted: 4 })));
    assert!(matches!(windows(&[1, 2, 3], 0, 1), Err(LlmError::Option { .. })));
    assert!(matches!(perplexity(&decoder, &[]), Err(LlmError::TooShort { found: 0, wanted: 2 })));
    assert!(matches!(perplexity(&decoder, &[vec![1]]), Err(LlmError::TooShort { found: 1, wanted: 2 })));
}
