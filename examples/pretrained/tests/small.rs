//! The same code on small checkpoints with random weights: `data/` holds them in the formats and under the names of the
//! published ones, and the expected outputs were computed from the same numbers in NumPy, in f64.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use burn_quant::quantize;
use pretrained::efficientnet::{self, EfficientNet};
use pretrained::gguf::{Gguf, GgufError};
use pretrained::minilm::{self, MiniLm, Sentences};
use pretrained::smollm::{self, SmolLm, row};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 2e-5 * expected.abs().max(1.0), "{found} for {expected}");
    }
}

/// The cosine of two lists.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    minilm::cosine(a, b)
}

mod sentence_encoder {
    use super::*;

    const SIZE: minilm::Size = minilm::Size { words: 20, positions: 16, width: 8, inner: 16, layers: 2, heads: 2 };

    fn model() -> MiniLm {
        MiniLm::new(SIZE, &Device::default()).load(&data("bert.safetensors")).unwrap()
    }

    fn sentences() -> Sentences {
        Sentences::new(&[vec![1, 2, 3], vec![4, 5, 6, 7, 8]], &Device::default())
    }

    #[test]
    fn embeddings_are_those_of_the_checkpoint_and_do_not_see_the_padding() {
        let found = minilm::embeddings(&model(), &[sentences()]);
        assert_close(&found[0], &[-0.47436, 0.18535, -0.33353, 0.24011, 0.49918, 0.20249, -0.32976, -0.4157]);
        assert_close(&found[1], &[-0.44978, 0.22018, -0.33007, 0.20582, 0.52577, 0.17058, -0.36462, -0.3993]);
    }

    #[test]
    fn every_recipe_that_fits_stays_near_the_float_embeddings() {
        let expected = minilm::embeddings(&model(), &[sentences()]);
        for (recipe, config) in minilm::recipes() {
            let (quantized, _) = quantize(model(), &config, |model| drop(model.forward(&sentences()))).expect(recipe);
            let found = minilm::embeddings(&quantized, &[sentences()]);
            assert_ne!(found, expected, "{recipe}");
            for (found, expected) in found.iter().zip(&expected) {
                assert!(cosine(found, expected) > 0.9, "{recipe}: {}", cosine(found, expected));
            }
        }
    }

    #[test]
    fn a_checkpoint_of_another_size_is_refused_by_name() {
        let larger = minilm::Size { layers: 3, ..SIZE };
        let error = MiniLm::new(larger, &Device::default()).load(&data("bert.safetensors")).unwrap_err().to_string();
        assert!(error.contains("encoder.layers.2.mha.query.weight"), "{error}");
        let wider = minilm::Size { inner: 32, ..SIZE };
        let error = MiniLm::new(wider, &Device::default()).load(&data("bert.safetensors")).unwrap_err().to_string();
        assert!(error.contains("pwff.linear_inner"), "{error}");
    }

    #[test]
    fn ranks_share_the_mean_of_equal_values() {
        // ranks 0 1.5 1.5 3 against 0 1 2 3
        let found = minilm::spearman(&[1.0, 2.0, 2.0, 5.0], &[1.0, 3.0, 4.0, 9.0]);
        assert!((found - 0.9486832980505138).abs() < 1e-12, "{found}");
    }
}

mod decoder {
    use super::*;

    const SIZE: smollm::Size = smollm::Size { layers: 2, head: 8, rotary_base: 1e5 };
    const TOKENS: [u32; 5] = [0, 86, 260, 34, 121];

    fn file() -> Gguf {
        Gguf::open(&data("llama.gguf")).unwrap()
    }

    fn model() -> SmolLm {
        SmolLm::load(&file(), SIZE, &Device::default()).unwrap()
    }

    fn last_logits(model: &SmolLm) -> Vec<f32> {
        let logits = model.forward(row(&TOKENS, &Device::default()), &mut model.cache());
        values(logits.narrow(1, TOKENS.len() - 1, 1))
    }

    #[test]
    fn logits_and_perplexity_are_those_of_the_checkpoint() {
        assert_close(&last_logits(&model())[..4], &[2.71661, 0.26983, 3.87477, -2.84269]);
        let perplexity = smollm::perplexity(&model(), &[TOKENS.to_vec()], &Device::default());
        assert!((perplexity / 2254.8860269227503 - 1.0).abs() < 1e-5, "{perplexity}");
    }

    #[test]
    fn a_quantized_cache_gives_what_the_whole_sequence_gives() {
        for (recipe, config) in smollm::recipes() {
            let tokens = row(&TOKENS, &Device::default());
            let calibrate = |model: &SmolLm| drop(model.forward(tokens.clone(), &mut model.cache()));
            let (model, _) = quantize(model(), &config, calibrate).expect(recipe);
            let mut cache = model.cache();
            let mut last = Vec::new();
            for token in TOKENS {
                last = values(model.forward(row(&[token], &Device::default()), &mut cache));
            }
            let (whole, float) = (cosine(&last, &last_logits(&model)), cosine(&last, &last_logits(&self::model())));
            assert!(whole > 1.0 - 1e-9, "{recipe}: {whole}");
            assert!(float > 0.9, "{recipe}: {float}"); // NVFP4, at 32 features: 0.927
        }
    }

    #[test]
    fn the_tokenizer_in_the_file_merges_and_returns_the_text() {
        let tokenizer = smollm::tokenizer(&file()).unwrap();
        // special tokens, 2 + the byte, and three merges; digits stand one by one
        let found = smollm::encode(&tokenizer, "<|im_start|>the the 12").unwrap();
        assert_eq!(found, [0, 259, 260, 2 + 32, 2 + 49, 2 + 50]);
        assert_eq!(tokenizer.decode(&found, false).unwrap(), "<|im_start|>the the 12");
    }

    #[test]
    fn generation_stops_at_its_end_or_its_length() {
        let model = model();
        let found = smollm::generate(&model, &TOKENS, 4, u32::MAX, &Device::default());
        assert_eq!(found.len(), 4);
        assert_eq!(smollm::generate(&model, &TOKENS, 4, found[0], &Device::default()), [0u32; 0]);
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error_that_says_where() {
        let whole = std::fs::read(data("llama.gguf")).unwrap();
        for len in (0..whole.len()).step_by(61) {
            let loaded =
                Gguf::parse(whole[..len].to_vec()).and_then(|file| SmolLm::load(&file, SIZE, &Device::default()));
            assert!(matches!(loaded, Err(GgufError::Truncated { len: found, .. }) if found == len), "{len}");
        }
    }

    #[test]
    fn other_files_versions_and_names_are_refused() {
        let whole = std::fs::read(data("llama.gguf")).unwrap();
        let changed = |at: usize, byte: u8| {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            Gguf::parse(bytes)
        };
        assert!(matches!(changed(0, b'X'), Err(GgufError::Magic { found }) if found == b"XGUF"));
        assert!(matches!(changed(4, 2), Err(GgufError::Version { found: 2 })));
        // the length of the first key, 2^63 and more: no allocation, an error
        assert!(matches!(changed(31, 255), Err(GgufError::Truncated { .. })));
        assert!(matches!(file().tensor("blk.9.attn_q.weight"), Err(GgufError::Missing { name }) if name ==
                "blk.9.attn_q.weight"));
        assert!(matches!(file().text("tokenizer.ggml.tokens"), Err(GgufError::Missing { .. })));
        assert_eq!(file().text("general.architecture").unwrap(), "llama");
    }
}

mod mobile_network {
    use super::*;

    const SIZE: efficientnet::Size =
        efficientnet::Size { stem: 4, stages: &[(1, 3, 1, 1, 4), (2, 5, 2, 6, 8)], head: 6, classes: 3 };

    fn model() -> EfficientNet {
        EfficientNet::new(SIZE, &Device::default()).load(&data("efficientnet.pth")).unwrap()
    }

    fn image() -> Tensor<4> {
        let values: Vec<f32> = (0..3 * 16 * 16).map(|i| (i * 7 % 11 - 5) as f32 / 5.0).collect();
        Tensor::from_data(TensorData::new(values, [1, 3, 16, 16]), &Device::default())
    }

    #[test]
    fn logits_are_those_of_the_checkpoint_before_and_after_folding() {
        let expected = [1.15179, -2.06509, -3.60882];
        assert_close(&values(model().forward(image())), &expected);
        let folded = model().folded().unwrap();
        assert_close(&values(folded.forward(image())), &expected);
    }

    #[test]
    fn equalization_changes_nothing_but_the_bound_of_activations() {
        // no activation of this image reaches 6
        let image = image() * 0.5;
        let expected = values(model().forward(image.clone()));
        assert_close(&values(model().folded().unwrap().equalized().unwrap().forward(image)), &expected);
    }

    #[test]
    fn every_recipe_that_fits_stays_near_the_float_logits() {
        let expected = values(model().forward(image()));
        for (recipe, config, equalize) in efficientnet::recipes() {
            let folded = model().folded().unwrap();
            let network = if equalize { folded.equalized().unwrap() } else { folded };
            let (network, _) = quantize(network, &config, |network| drop(network.forward(image()))).expect(recipe);
            let found = values(network.forward(image()));
            assert_ne!(found, expected, "{recipe}");
            assert!(cosine(&found, &expected) > 0.95, "{recipe}: {}", cosine(&found, &expected));
        }
    }

    #[test]
    fn a_checkpoint_of_another_size_is_refused_by_name() {
        let more = efficientnet::Size { classes: 4, ..SIZE };
        let error =
            EfficientNet::new(more, &Device::default()).load(&data("efficientnet.pth")).unwrap_err().to_string();
        assert!(error.contains("fc.weight"), "{error}");
    }
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().convert::<f32>().try_into_vec().unwrap()
}
