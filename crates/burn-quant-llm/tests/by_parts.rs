//! Decoders quantized part by part: the files of the whole, bit for bit, and runs that were interrupted.

mod models;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use burn::tensor::{Device, Int, Tensor};
use burn_quant::{Algorithm, QuantConfig, QuantizerConfig, Rule, presets, quantize, quantize_weights};
use burn_quant_checkpoint::Folder;
use burn_quant_llm::{ByParts, Decoder, Export, ExportState, LlmError, PartProgress, Target, recipe_for, row};

use models::folder;

/// Three windows of 24 tokens.
fn windows() -> Vec<Vec<u32>> {
    (0..3u32).map(|seed| (0..24).map(|i| (i * 37 + seed * 101 + i * i * 11) % 256).collect()).collect()
}

fn whole(folder: &Folder, recipe: &QuantConfig, device: &Device) -> Decoder {
    let decoder = Decoder::load(folder, device).unwrap();
    let calibrated = quantize(decoder, recipe, |decoder| {
        windows().iter().for_each(|window| drop(decoder.forward(row(window, device), &mut decoder.cache())));
    });
    calibrated.unwrap().0
}

/// The files of a folder, or the file, by name.
fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    if path.is_file() {
        return BTreeMap::from([(String::new(), std::fs::read(path).unwrap())]);
    }
    let entries = path.read_dir().unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect()
}

#[track_caller]
fn assert_same_files(found: &Path, expected: &Path, what: &str) {
    let (found, expected) = (files(found), files(expected));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (name, bytes) in expected {
        assert!(found[&name] == bytes, "{what}: `{name}` differs");
    }
}

fn logits(decoder: &Decoder, device: &Device) -> Vec<f32> {
    let tokens: Tensor<2, Int> = row(&windows()[1], device);
    decoder.forward(tokens, &mut decoder.cache()).into_data().try_into_vec().unwrap()
}

#[test]
fn files_are_those_of_the_whole_model_bit_for_bit() {
    let device = Device::flex();
    let int4 = QuantConfig::new().with_rule(Rule::set("*proj.weight_quantizer", QuantizerConfig::int(4).per_block(32)));
    let awq = int4.clone().with_algorithm(Algorithm::awq_lite());
    for model in ["llama", "qwen2", "qwen3", "mixtral", "qwen3_moe"] {
        let (_place, float) = folder(model);
        for (name, recipe, target) in [
            ("fp8, fp8 cache", presets::fp8_default().extend(presets::fp8_kv()), Target::ModelOpt),
            ("int8, smoothed", presets::int8_smoothquant(), Target::ModelOpt),
            ("nvfp4", presets::nvfp4_default(), Target::CompressedTensors),
            ("int4, awq", awq.clone(), Target::CompressedTensors),
            ("int4, awq, gguf", awq.clone(), Target::Gguf),
        ] {
            let what = format!("{model}, {name}");
            let place = tempfile::tempdir().unwrap();
            let [expected, found, work] = ["expected", "found", "work"].map(|name| place.path().join(name));
            let decoder = Decoder::load(&float, &device).unwrap();
            let recipe = recipe_for(recipe, decoder.config(), target);
            let state = ExportState::of(&whole(&float, &recipe, &device)).unwrap();
            let windows = windows();
            let parts = ByParts::new(&float, &recipe, &work).with_windows(&windows).quantize(&device).unwrap();
            let export = Export::new(&float, &found);
            match target {
                Target::ModelOpt => {
                    state.write_modelopt(&float, &expected).unwrap();
                    export.modelopt(&parts).unwrap();
                }
                Target::CompressedTensors => {
                    state.write_compressed_tensors(&float, &expected).unwrap();
                    export.compressed_tensors(&parts).unwrap();
                }
                Target::Gguf => {
                    let expected = state.write_gguf(&float, &expected).unwrap();
                    assert_eq!(export.gguf(&parts).unwrap(), expected, "{what}");
                }
            }
            assert_same_files(&found, &expected, &what);
            parts.remove().unwrap();
            assert!(!work.exists());
        }
    }
}

#[test]
fn parts_put_together_are_the_packed_model() {
    let device = Device::flex();
    let (_place, float) = folder("llama");
    let place = tempfile::tempdir().unwrap();
    for (name, recipe) in [("int8", presets::int8_default()), ("mxfp4", presets::mxfp4_default())] {
        let windows = windows();
        let run = ByParts::new(&float, &recipe, place.path().join(name)).with_windows(&windows);
        let packed = run.quantize(&device).unwrap().packed().unwrap();
        let (expected, _) = burn_quant::compress(whole(&float, &recipe, &device)).unwrap();
        assert_eq!(logits(&packed, &device), logits(&expected, &device), "{name}");
    }
}

#[test]
fn recipes_without_data_need_none_and_others_ask_for_it() {
    let device = Device::flex();
    let (_place, float) = folder("qwen2");
    let place = tempfile::tempdir().unwrap();
    let recipe = presets::int8_weight_only();
    let parts = ByParts::new(&float, &recipe, place.path().join("work")).quantize(&device).unwrap();
    let (expected, _) = quantize_weights(Decoder::load(&float, &device).unwrap(), &recipe).unwrap();
    let [found, written] = ["found", "expected"].map(|name| place.path().join(name));
    Export::new(&float, &found).modelopt(&parts).unwrap();
    ExportState::of(&expected).unwrap().write_modelopt(&float, &written).unwrap();
    assert_same_files(&found, &written, "int8 weights");

    let recipe = presets::fp8_default();
    let error = ByParts::new(&float, &recipe, place.path().join("other")).quantize(&device).unwrap_err();
    assert!(error.to_string().contains("`model.layers.0.mlp.down_proj.input_quantizer`"), "{error}");
    assert!(!place.path().join("other").exists(), "nothing is begun");
}

#[test]
fn a_run_that_was_interrupted_goes_on_where_it_was() {
    let device = Device::flex();
    let (_place, float) = folder("llama");
    let place = tempfile::tempdir().unwrap();
    let work = place.path().join("work");
    let (recipe, windows) = (presets::nvfp4_awq_lite(), windows());
    let begin = || ByParts::new(&float, &recipe, &work).with_windows(&windows);
    let interrupted = catch_unwind(AssertUnwindSafe(|| {
        let stop = |progress| assert!(!matches!(progress, PartProgress::Done { done: 2, .. }), "interrupted");
        drop(begin().with_progress(stop).quantize(&device));
    }));
    assert!(interrupted.is_err());

    let mut seen = Vec::new();
    let parts = begin().with_progress(|progress| seen.push(progress)).quantize(&device).unwrap();
    assert_eq!(seen[0], PartProgress::Resumed { done: 2, of: 4 });
    assert_eq!(seen.len(), 1 + 2 * 2, "two parts were left: {seen:?}");
    let [found, expected] = ["found", "expected"].map(|name| place.path().join(name));
    Export::new(&float, &found).with_shard_bytes(1 << 20).modelopt(&parts).unwrap();
    ExportState::of(&whole(&float, &recipe, &device)).unwrap().write_modelopt(&float, &expected).unwrap();
    assert_same_files(&found, &expected, "after an interruption");
    let names = files(&work).into_keys().collect::<Vec<_>>();
    assert_eq!(names, ["lock", "part-0.bpk", "part-1.bpk", "part-2.bpk", "part-3.bpk", "state.json"]);
}

#[test]
fn a_work_folder_of_something_else_is_refused() {
    let device = Device::flex();
    let (_place, float) = folder("llama");
    let place = tempfile::tempdir().unwrap();
    let work = place.path().join("work");
    let (recipe, windows) = (presets::int8_default(), windows());
    let run = |recipe: &QuantConfig| {
        let stop = |progress| assert!(!matches!(progress, PartProgress::Done { done: 2, .. }), "interrupted");
        let run = ByParts::new(&float, recipe, &work).with_windows(&windows).with_progress(stop);
        catch_unwind(AssertUnwindSafe(|| run.quantize(&device).map(drop)))
    };
    assert!(run(&recipe).is_err(), "interrupted");
    let refused = |recipe: &QuantConfig| run(recipe).expect("no part is begun").unwrap_err();

    let error = refused(&presets::fp8_default());
    assert!(matches!(error, LlmError::Work { .. }) && error.to_string().contains("of another run"), "{error}");

    let features = work.join("features-2.f32");
    let bytes = std::fs::read(&features).unwrap();
    std::fs::write(&features, &bytes[..bytes.len() - 4]).unwrap();
    let error = refused(&recipe);
    assert!(error.to_string().contains("features-2.f32"), "{error}");

    let record = work.join("part-1.bpk");
    let mut bytes = std::fs::read(&record).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&record, bytes).unwrap();
    let error = refused(&recipe);
    assert!(error.to_string().contains("part-1.bpk"), "{error}");

    std::fs::write(work.join("state.json"), "{").unwrap();
    let error = refused(&recipe);
    assert!(error.to_string().contains("damaged"), "{error}");

    std::fs::remove_file(work.join("state.json")).unwrap();
    let error = refused(&recipe);
    assert!(error.to_string().contains("something else"), "{error}");
}
