//! The same code on small checkpoints with random weights: `data/` holds them in the formats and under the names of the
//! published ones, and the expected outputs were computed from the same numbers in NumPy, in f64.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use burn_quant::quantize;
use burn_quant_llm::{perplexity, row};
use pretrained::efficientnet::{self, EfficientNet};
use pretrained::minilm::{self, MiniLm, Sentences};
use pretrained::smollm::{self, SmolLm, Texts};

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

    const TOKENS: [u32; 5] = [0, 86, 260, 34, 121];

    /// The model, and the folder that its float folder is written to.
    fn model() -> (SmolLm, tempfile::TempDir) {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("llama.gguf");
        std::fs::copy(data("llama.gguf"), &file).unwrap();
        (SmolLm::open(&file, &Device::default()).unwrap(), place)
    }

    fn texts() -> Texts {
        Texts { calibration: vec![TOKENS.to_vec()], held_out: vec![TOKENS.to_vec()] }
    }

    #[test]
    fn logits_and_perplexity_are_those_of_the_checkpoint() {
        let (model, _place) = model();
        let logits = model.decoder.forward(row(&TOKENS, &Device::default()), &mut model.decoder.cache());
        let found = values(logits.narrow(1, TOKENS.len() - 1, 1));
        assert_close(&found[..4], &[2.71661, 0.26983, 3.87477, -2.84269]);
        let perplexity = perplexity(&model.decoder, &[TOKENS.to_vec()]).unwrap();
        assert!((perplexity / 2254.8860269227503 - 1.0).abs() < 1e-5, "{perplexity}");
    }

    #[test]
    fn the_float_folder_is_written_once() {
        let (_, place) = model();
        let weights = place.path().join("llama/model.safetensors");
        let written = weights.metadata().unwrap().modified().unwrap();
        SmolLm::open(&place.path().join("llama.gguf"), &Device::default()).unwrap();
        assert_eq!(weights.metadata().unwrap().modified().unwrap(), written);
    }

    #[test]
    fn every_recipe_has_its_bits_and_its_distance() {
        let (model, _place) = model();
        let recipes: Vec<_> = smollm::recipes().into_iter().filter(|(name, _)| !name.contains("block 128")).collect();
        let table = smollm::evaluate(&model, &texts(), &Device::default(), recipes).unwrap();
        assert_eq!(table.get("float (dequantized Q4_1)", "KL, nats"), Some(0.0));
        for (recipe, numbers) in &table.rows[1..] {
            assert!(numbers[2] > 0.0 && numbers[2] < 0.5, "{recipe}: a divergence of {}", numbers[2]);
            assert!(numbers[0] < 16.1, "{recipe}: {} bits", numbers[0]); // a cache takes a range for each layer
        }
    }

    #[test]
    fn a_text_is_cut_into_windows_from_its_two_ends() {
        let (model, _place) = model();
        // 20 tokens of a byte each to the tenth; a window is 512 of them
        let text: String = (0..12_000).map(|i| if i < 10_800 { 'a' } else { 'b' }).collect();
        let texts = model.texts(&text, 3, 3).unwrap();
        assert_eq!((texts.calibration.len(), texts.held_out.len()), (3, 2));
        assert_ne!(texts.calibration[0], texts.held_out[0]);
        assert!(model.texts("too short", 1, 1).is_err());
    }

    #[test]
    fn every_server_gets_its_file_and_it_reads_back_as_what_was_calibrated() {
        let (model, _place) = model();
        let out = tempfile::tempdir().unwrap();
        let written = smollm::write(&model, &texts(), &Device::default(), out.path()).unwrap();
        let names: Vec<&str> = written.iter().map(|it| it.path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["llama", "fp8", "int8", "nvfp4", "q4_0.gguf"]);
        assert_eq!(written[0].bits, 32.0);
        for it in &written[1..] {
            assert!(it.path.exists() && it.bytes > 0 && it.tokens_per_second > 0.0, "{it}");
            assert!(it.comparison.kl > 0.0 && it.comparison.kl < 0.5, "{it}");
        }
        // what is there is not overwritten
        assert!(smollm::write(&model, &texts(), &Device::default(), out.path()).is_err());
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
