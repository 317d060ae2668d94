//! The command line, as a user meets it: the binary runs on a tiny model of the repository.
#![cfg(feature = "flex")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// A Llama of 64 features with a tokenizer of bytes, made for 128 tokens.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/checkpoints/models/llama");
/// A text of some thousand bytes.
const TEXT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

/// What a run of the binary left.
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: stdout is {:?}", self.stdout))
    }

    #[track_caller]
    fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self
    }

    /// Failed with a code and a message that has these words.
    #[track_caller]
    fn failed(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not in: {}", self.stderr);
        }
        self
    }
}

fn run_with(arguments: &[&str], stdin: &str) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_burn-quant"));
    let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn run(arguments: &[&str]) -> Run {
    run_with(arguments, "")
}

/// A folder for results.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().into()
    }

    /// Quantizes the model and returns the folder.
    fn quantized(&self, recipe: &str, format: &str, more: &[&str]) -> String {
        let out = self.text(&format!("{recipe}.{format}"));
        let arguments = ["quantize", MODEL, "--recipe", recipe, "--format", format, "--out", &out];
        run(&[&arguments, more].concat()).succeeded();
        out
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.0.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

const CALIBRATION: [&str; 6] = ["--calib", TEXT, "--samples", "4", "--tokens", "64"];

fn evaluated(model: &str, more: &[&str]) -> Value {
    let arguments = ["eval", model, "--against", MODEL, "--text", TEXT, "--windows", "2", "--tokens", "64", "--json"];
    run(&[&arguments, more].concat()).succeeded().json()
}

#[test]
fn weight_only_recipes_need_no_data_and_the_folder_is_a_model_again() {
    let place = Place::new();
    let out = place.quantized("int8_wo", "modelopt", &[]);
    let config: Value =
        serde_json::from_slice(&std::fs::read(Path::new(&out).join("hf_quant_config.json")).unwrap()).unwrap();
    assert_eq!(config["quantization"]["quant_algo"], "W8A16");
    assert!(Path::new(&out).join("tokenizer.json").is_file());
    #[cfg(unix)] // a server has another user
    for entry in Path::new(&out).read_dir().unwrap() {
        let mode = std::os::unix::fs::PermissionsExt::mode(&entry.as_ref().unwrap().metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o644, "{entry:?}");
    }
    let measured = evaluated(&out, &[]);
    let kl = measured["kl"].as_f64().unwrap();
    assert!(kl > 0.0 && kl < 1e-2, "{measured}");
    assert!(measured["top1"].as_f64().unwrap() > 0.8, "{measured}");
    assert_eq!(measured["tokens"], 2 * 63);
    let [prefill, decode] = ["prefill_tokens_per_second", "decode_tokens_per_second"];
    assert!(measured["model"][prefill].as_f64() > Some(0.0) && measured["model"][decode].as_f64() > Some(0.0));
}

#[test]
fn calibrated_recipes_are_written_for_servers_and_read_back() {
    let place = Place::new();
    // a model of random weights, which is sure of its answers and easily moved
    for (recipe, format, most) in [
        ("fp8+fp8_kv", "modelopt", 0.2),
        ("nvfp4_awq", "modelopt", 1.5),
        ("int8_sq", "modelopt", 0.2),
        ("fp8", "compressed-tensors", 0.2),
        ("nvfp4", "compressed-tensors", 1.5),
        ("int8", "burnpack", 0.2),
        ("int8_wo", "gguf", 0.2),
    ] {
        let out = place.quantized(recipe, format, &CALIBRATION);
        let kl = evaluated(&out, &[])["kl"].as_f64().unwrap();
        assert!(kl > 0.0 && kl < most, "{recipe} as {format}: {kl}");
    }
    assert_eq!(place.names().len(), 7, "and nothing is left beside them");
}

#[test]
fn a_report_says_what_was_done() {
    let place = Place::new();
    let out = place.text("out");
    let arguments = ["quantize", MODEL, "--recipe", "fp8", "--format", "modelopt", "--out", &out];
    let done = run(&[&arguments[..], &CALIBRATION, &["--json"]].concat()).succeeded().json();
    assert_eq!(done["layers"], serde_json::json!({"e4m3": 14, "float": 1})); // the head stays in float
    assert_eq!(done["calibration"], serde_json::json!({"windows": 4, "tokens": 256, "passes": 1}));
    assert!(done["bytes"].as_u64() < done["float_bytes"].as_u64());
    assert_eq!((&done["format"], &done["recipe"]), (&"modelopt".into(), &"fp8".into()));
}

#[test]
fn a_recipe_may_be_a_file() {
    let place = Place::new();
    let file = place.text("recipe.toml");
    std::fs::write(
        &file,
        "preset = \"int8_weight_only\"\n[[rules]]\nquantizer = \"*down_proj*\"\naction = \"disable\"\n",
    )
    .unwrap();
    let out = place.text("out");
    let done =
        run(&["quantize", MODEL, "--recipe", &file, "--format", "modelopt", "--out", &out, "--json"]).succeeded();
    assert_eq!(done.json()["layers"], serde_json::json!({"int8": 12, "float": 3}));
}

#[test]
fn a_search_keeps_its_budget_and_says_what_each_layer_got() {
    let place = Place::new();
    for score in ["gradient", "layer-error"] {
        let out = place.text(score);
        let arguments = ["quantize", MODEL, "--auto", "9", "--formats", "nvfp4,fp8", "--score", score];
        let more = ["--format", "modelopt", "--out", &out, "--json"];
        let done = run(&[&arguments[..], &more, &CALIBRATION].concat()).succeeded().json();
        let bits = done["search"]["effective_bits"].as_f64().unwrap();
        assert!(bits > 4.5 && bits <= 9.0, "{done}");
        assert!(done["search"]["formats"].as_object().unwrap().len() > 3, "{done}");
        assert!(evaluated(&out, &[])["kl"].as_f64().unwrap() < 1.5);
    }
}

#[test]
fn data_that_is_needed_and_not_given_is_asked_for() {
    let place = Place::new();
    let out = place.text("out");
    for recipe in ["fp8", "int4_awq"] {
        run(&["quantize", MODEL, "--recipe", recipe, "--format", "modelopt", "--out", &out])
            .failed(1, &[&format!("`{recipe}` needs calibration data"), "--calib TEXT", "burn-quant presets"]);
    }
    assert!(place.names().is_empty());
}

#[test]
fn a_diagnosis_is_a_table_json_and_a_page() {
    let place = Place::new();
    let page = place.text("report.html");
    let arguments = ["diagnose", MODEL, "--recipe", "int8", "--text", TEXT, "--windows", "1"];
    let found = run(&[&arguments, &CALIBRATION[..], &["--html", &page, "--json"]].concat()).succeeded().json();
    // seven linear layers in each of two blocks, and the output's is not quantized
    assert_eq!(found["layers"].as_array().unwrap().len(), 15, "{found}");
    let metric = &found["overview"]["metric"];
    assert!(metric["quantized"].as_f64() > Some(0.0) && metric["name"] == "perplexity", "{metric}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("<h1") && page.contains("gate_proj"));
    let printed = run(&[&arguments, &CALIBRATION[..]].concat()).succeeded().stdout;
    assert!(printed.contains("share of error") && printed.contains("down_proj"), "{printed}");

    run(&arguments).failed(1, &["`int8` needs calibration data", "--calib TEXT"]);
    let nowhere = place.text("nowhere/report.html");
    let refused = run(&[&arguments, &CALIBRATION[..], &["--html", &nowhere, "--json"]].concat());
    refused.failed(1, &["nowhere", "written"]); // before anything is computed
}

#[test]
fn a_memory_ceiling_changes_nothing_but_the_memory() {
    let place = Place::new();
    // 96 MiB are for the program itself
    for (recipe, format) in [("nvfp4_awq", "modelopt"), ("int8_wo", "gguf"), ("int8", "burnpack")] {
        let whole = place.quantized(recipe, format, &CALIBRATION);
        let parts = place.text(&format!("{recipe}.parts.{format}"));
        let arguments = ["quantize", MODEL, "--recipe", recipe, "--format", format, "--out", &parts];
        let run = run(&[&arguments, &CALIBRATION[..], &["--memory", "97MiB", "--json"]].concat()).succeeded();
        let (done, kl) = (run.json(), |model| evaluated(model, &[])["kl"].as_f64().unwrap());
        assert_eq!(done["parts"], 4, "embeddings, two layers, head: {done}");
        assert_eq!(done["layers"].as_object().unwrap().len(), 2, "quantized, and the head in float: {done}");
        // the record of parts is packed, and multiplies integers
        let apart: f64 = kl(&parts) - kl(&whole);
        assert!(apart.abs() < 1e-6, "{recipe} as {format}: {apart}");
    }
    assert_eq!(place.names().len(), 6, "the work folders are gone: {:?}", place.names());

    let out = place.text("out");
    let arguments = ["quantize", MODEL, "--recipe", "int8_wo", "--format", "gguf", "--out", &out, "--memory"];
    run(&[&arguments[..], &["96MiB"]].concat()).failed(1, &["one part of it takes 9", "--memory"]);
    run(&[&arguments[..], &["plenty"]].concat()).failed(2, &["expected a size: 8GiB"]);
    run(&[&arguments[..], &["97MiB", "--work", MODEL]].concat()).failed(1, &["something else"]);
    assert!(!place.path("out").exists());
}

#[test]
fn what_a_format_cannot_hold_is_refused_and_nothing_is_half_written() {
    let place = Place::new();
    let out = place.text("out");
    let arguments = ["quantize", MODEL, "--recipe", "nvfp4_svdquant", "--format", "compressed-tensors", "--out", &out];
    run(&[&arguments[..], &CALIBRATION].concat()).failed(1, &["cannot be written", "low rank", "burnpack"]);
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn a_result_that_is_there_is_not_overwritten() {
    let place = Place::new();
    let out = place.text("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(place.path("out/mine"), "mine").unwrap();
    run(&["quantize", MODEL, "--recipe", "int8_wo", "--format", "modelopt", "--out", &out])
        .failed(1, &["exists", "--out"]);
    assert_eq!(std::fs::read_to_string(place.path("out/mine")).unwrap(), "mine");
}

#[test]
fn packed_weights_predict_the_same_in_less_memory() {
    let place = Place::new();
    let out = place.quantized("int8_wo", "modelopt", &[]);
    let (simulated, packed) = (evaluated(&out, &[]), evaluated(&out, &["--packed"]));
    let perplexity = |of: &Value| of["model"]["perplexity"].as_f64().unwrap();
    assert!((perplexity(&packed) / perplexity(&simulated) - 1.0).abs() < 1e-4);
    assert!(packed["model"]["bytes"].as_u64() < simulated["model"]["bytes"].as_u64());
}

#[test]
fn an_evaluation_of_a_float_model_prints_a_table() {
    let run = run(&["eval", MODEL, "--text", TEXT, "--windows", "1", "--tokens", "32"]).succeeded();
    for word in ["llama: LlamaForCausalLM", "1 window of 32 tokens", "perplexity", "tokens/s", "memory", "f32"] {
        assert!(run.stdout.contains(word), "`{word}` is not in {}", run.stdout);
    }
    assert_narrow(&run.stdout);
}

#[test]
fn the_same_seed_gives_the_same_answer() {
    let answer = |seed: &str| {
        let sampling = ["--temperature", "1", "--max-tokens", "12", "--seed", seed, "--json"];
        run(&[&["chat", MODEL, "--prompt", "ab"][..], &sampling].concat()).succeeded().json()
    };
    let first = answer("1");
    assert_eq!(first["answer"], answer("1")["answer"]);
    assert_ne!(first["answer"], answer("2")["answer"]);
    assert_eq!(first["prompt_tokens"], 2);
    assert!(first["tokens"].as_u64().unwrap() <= 12);
}

#[test]
fn each_line_of_stdin_is_answered() {
    let greedy = ["--max-tokens", "4"];
    let both = run_with(&[&["chat", MODEL][..], &greedy].concat(), "ab\n\ncd\n").succeeded();
    let one = |prompt| run(&[&["chat", MODEL, "--prompt", prompt][..], &greedy].concat()).succeeded().stdout;
    // a model without a template goes on with each text by itself
    assert_eq!(both.stdout, one("ab") + &one("cd"));
}

#[test]
fn folders_and_files_are_inspected_without_a_model() {
    let place = Place::new();
    let out = place.quantized("nvfp4", "modelopt", &CALIBRATION);
    let inspected = run(&["inspect", &out, "--json"]).succeeded().json();
    assert_eq!(inspected["quantization"], "ModelOpt, NVFP4, 14 quantized layers");
    let parts = inspected["parts"].as_array().unwrap();
    let part = |name: &str| parts.iter().find(|part| part["name"] == name).unwrap();
    let q_proj = part("model.layers.0.self_attn.q_proj");
    assert_eq!((&q_proj["format"], &q_proj["shape"]), (&"NVFP4 /16".into(), &serde_json::json!([64, 64])));
    // half a byte, a scale for 16, a scale for all
    assert_eq!(q_proj["bits"], 4.0 + 8.0 / 16.0 + 32.0 / 4096.0);
    assert_eq!(part("lm_head")["format"], "F32");
    assert_eq!(inspected["suspicious"], serde_json::json!([]));

    let file = format!("{out}/model.safetensors");
    let of_file = run(&["inspect", &file, "--json"]).succeeded().json();
    assert_eq!(of_file["parts"], inspected["parts"]);
    let table = run(&["inspect", &out]).succeeded().stdout;
    assert!(table.contains("model.layers.*.self_attn.q_proj") && table.contains("no scale looks wrong"), "{table}");
    assert_narrow(&table);
    assert!(run(&["inspect", &out, "--layers"]).succeeded().stdout.contains("model.layers.1.self_attn.q_proj"));
}

#[test]
fn gguf_files_are_models_with_a_tokenizer_of_their_own() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/checkpoints/gguf/llama-q8_0.gguf");
    let inspected = run(&["inspect", file, "--json"]).succeeded().json();
    assert_eq!(inspected["quantization"], "GGUF version 3, llama");
    let q = inspected["parts"].as_array().unwrap().iter().find(|part| part["name"] == "blk.0.attn_q").unwrap();
    assert_eq!((&q["format"], q["bits"].as_f64()), (&"Q8_0".into(), Some(8.5)));
    assert_narrow(&run(&["inspect", file]).succeeded().stdout);
    assert!(evaluated(file, &["--tokenizer", MODEL])["kl"].as_f64().unwrap() < 0.2);

    let place = Place::new();
    let own = place.quantized("int8_wo", "gguf", &[]);
    let prompt = ["--prompt", "ab", "--max-tokens", "4"];
    let answer = run(&[&["chat", &own][..], &prompt].concat()).succeeded().stdout;
    assert_eq!(answer, run(&[&["chat", &own, "--tokenizer", MODEL][..], &prompt].concat()).succeeded().stdout);
}

#[test]
fn a_gguf_file_becomes_a_folder_that_is_quantized() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/checkpoints/gguf/llama-q8_0.gguf");
    let place = Place::new();
    let out = place.text("float");
    let arguments = ["convert", file, "--out", &out];
    let converted = run(&[&arguments[..], &["--dtype", "f16", "--json"]].concat()).succeeded().json();
    assert_eq!((&converted["dtype"], &converted["out"]), (&"f16".into(), &out.as_str().into()));
    assert_eq!(converted["bytes"].as_u64(), converted["parameters"].as_u64().map(|it| 2 * it));
    // its values are those of the codes, rounded to f16
    let tokenizer = ["--tokenizer", MODEL];
    let [folder, codes] = [&out, file].map(|model| evaluated(model, &tokenizer)["kl"].as_f64().unwrap());
    assert!((folder - codes).abs() < 1e-3, "{folder} for {codes}");
    let again = place.text("again");
    let recipe = ["--recipe", "int8_wo", "--format", "modelopt", "--out", &again];
    run(&[&["quantize", &out][..], &recipe].concat()).succeeded();
    // and back: floats of the codes again
    let third = place.text("third");
    run(&["convert", &again, "--out", &third]).succeeded();
    let [floats, codes] = [&third, &again].map(|model| evaluated(model, &tokenizer)["kl"].as_f64().unwrap());
    assert!((floats - codes).abs() < 1e-6, "{floats} for {codes}");
    assert!(!std::fs::read_to_string(place.path("third/config.json")).unwrap().contains("quantization_config"));
    // nothing is overwritten, nothing is half written
    run(&arguments).failed(1, &["exists"]);
    run(&["convert", TEXT, "--out", &place.text("fourth")]).failed(1, &["GGUF"]);
    assert_eq!(place.names(), ["again", "float", "third"]);
}

#[test]
fn scales_that_are_no_numbers_or_excluded_are_found() {
    let place = Place::new();
    let out = place.quantized("fp8", "modelopt", &CALIBRATION);
    let file = Path::new(&out).join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let name = "model.layers.0.mlp.down_proj.weight_scale";
    let at = {
        let (header, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        header + 8 + metadata.info(name).unwrap().data_offsets.0
    };
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&file, bytes).unwrap();
    let config = Path::new(&out).join("hf_quant_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"lm_head\"", "\"lm_head\", \"model.layers.1.mlp.*\"")).unwrap();

    let found = run(&["inspect", &out, "--json"]).succeeded().json();
    let problems: Vec<String> = found["suspicious"].as_array().unwrap().iter().map(Value::to_string).collect();
    assert!(problems.iter().any(|it| it.contains(name) && it.contains("1 of 1 not finite")), "{problems:?}");
    assert!(problems.iter().any(|it| it.contains("excluded by `model.layers.1.mlp.*`")), "{problems:?}");
}

#[test]
fn presets_are_listed_with_what_they_need_and_where_they_go() {
    let presets = run(&["presets", "--json"]).succeeded().json();
    let preset = |name: &str| presets.as_array().unwrap().iter().find(|preset| preset["name"] == name).unwrap().clone();
    let awq = preset("nvfp4_awq_lite");
    assert_eq!(awq["short_names"], serde_json::json!(["nvfp4_awq"]));
    assert_eq!((&awq["algorithm"], &awq["needs_data"]), (&"awq_lite".into(), &true.into()));
    assert_eq!(preset("int8_weight_only")["needs_data"], false);
    assert_eq!(preset("mxfp8_default")["needs_data"], false);
    let table = run(&["presets"]).succeeded().stdout;
    assert!(table.contains("nvfp4_awq") && table.contains("fp8_kv"), "{table}");
    assert_narrow(&table);
}

#[test]
fn wrong_usage_is_code_2_and_errors_are_code_1_with_causes_and_help() {
    for arguments in [
        &[][..],
        &["compress"],
        &["quantize", MODEL, "--format", "modelopt", "--out", "x"],
        &[
            "quantize",
            MODEL,
            "--recipe",
            "fp8",
            "--auto",
            "5",
            "--formats",
            "fp8",
            "--calib",
            TEXT,
            "--format",
            "modelopt",
            "--out",
            "x",
        ],
        &["quantize", MODEL, "--recipe", "fp8", "--samples", "0", "--format", "modelopt", "--out", "x"],
        &["quantize", MODEL, "--recipe", "fp8", "--format", "pickle", "--out", "x"],
        &["quantize", MODEL, "--auto", "0", "--formats", "fp8", "--calib", TEXT, "--format", "modelopt", "--out", "x"],
        &["chat", MODEL, "--json"],
        &["chat", MODEL, "--prompt", "a", "--top-p", "2"],
    ] {
        assert_eq!(run(arguments).code, 2, "{arguments:?}");
    }
    run(&["eval", "no/such/folder", "--text", TEXT])
        .failed(1, &["`no/such/folder` cannot be loaded", "cause:", "help: there is no such"]);
    let empty = Place::new();
    run(&["eval", &empty.text(""), "--text", TEXT]).failed(1, &["config.json", "folder of a Hugging Face model"]);
    run(&["quantize", MODEL, "--recipe", "nvpf4", "--format", "modelopt", "--out", &empty.text("out")])
        .failed(1, &["`nvpf4` is no recipe", "nvfp4", "burn-quant presets"]);
    run(&["eval", MODEL, "--text", TEXT, "--tokens", "100000"]).failed(1, &["is 100000", "max_position_embeddings"]);
    let int8 = ["--recipe", "int8", "--calib", TEXT, "--format", "modelopt", "--out", &empty.text("out")];
    run(&[&["quantize", MODEL, "--tokens", "300"], &int8[..]].concat())
        .failed(1, &["is 300", "max_position_embeddings"]);
    run(&["inspect", TEXT]).failed(1, &["expected a folder, a .safetensors file"]);
    run(&["eval", "no/such.gguf", "--text", TEXT]).failed(1, &["`no/such.gguf` cannot be read", "compare its path"]);
    let out = empty.text("out");
    let fp8 = ["--recipe", "fp8_pc_pt", "--format", "modelopt", "--out", &out];
    run(&[&["quantize", TEXT], &fp8[..]].concat()).failed(1, &["is a file", "burn-quant convert"]);
    run(&["diagnose", TEXT, "--recipe", "int8", "--text", TEXT]).failed(1, &["is a file", "burn-quant convert"]);
    let refused = run(&["quantize", MODEL, "--recipe", "mxint8", "--format", "compressed-tensors", "--out", &out]);
    assert!(!refused.stderr.contains(".unfinished"), "{}", refused.stderr);
    refused.failed(1, &["the format has no", "burn-quant presets"]);
}

/// Nothing but a page is written over, and where a page goes is looked at first.
#[test]
fn a_page_takes_the_place_of_a_page_only() {
    let place = Place::new();
    std::fs::write(place.path("config.json"), "{}").unwrap();
    let diagnose = |page: &str| {
        let arguments = ["diagnose", MODEL, "--recipe", "int8_wo", "--text", TEXT, "--windows", "1", "--tokens", "16"];
        run(&[&arguments[..], &["--html", &place.text(page)]].concat())
    };
    diagnose("config.json").failed(1, &["exists"]);
    assert_eq!(std::fs::read_to_string(place.path("config.json")).unwrap(), "{}");
    diagnose("no/such/page.html").failed(1, &["no/such"]);
    diagnose("page.html").succeeded();
    diagnose("page.html").succeeded();
}

#[test]
fn a_diagnosis_says_that_what_it_takes_for_float_is_quantized() {
    let place = Place::new();
    let diagnose = |folder: &str| {
        let arguments = ["--recipe", "int8_wo", "--text", TEXT, "--windows", "1", "--tokens", "16"];
        run(&[&["diagnose", folder], &arguments[..]].concat()).succeeded().stderr
    };
    let words = "is quantized itself: what is said of float is said of it";
    assert!(diagnose(&place.quantized("fp8_pc_pt", "modelopt", &[])).contains(words));
    assert!(!diagnose(MODEL).contains(words));
}

#[test]
fn a_gguf_file_is_one_whatever_it_is_called() {
    let place = Place::new();
    let out = place.quantized("int8_wo", "gguf", &[]); // its name ends in .gguf
    let other = place.text("model");
    std::fs::copy(&out, &other).unwrap();
    assert_eq!(
        run(&["inspect", &other]).succeeded().stdout.lines().count(),
        run(&["inspect", &out]).succeeded().stdout.lines().count()
    );
    evaluated(&other, &["--tokenizer", MODEL]);
}

#[test]
fn a_burnpack_holds_codes() {
    let place = Place::new();
    let out = place.quantized("int8_wo", "burnpack", &[]);
    let [folder, record] = [MODEL, &out].map(|path| {
        let file = if path == MODEL { "model.safetensors" } else { "model.bpk" };
        Path::new(path).join(file).metadata().unwrap().len()
    });
    assert!(record * 10 < folder * 7, "{record} bytes of {folder}");
    run(&["inspect", &out]).failed(1, &["a folder with a burnpack", "eval"]);
}

#[test]
fn a_device_that_is_not_built_in_says_how_to_get_it() {
    #[cfg(not(feature = "rocm"))]
    run(&["eval", MODEL, "--text", TEXT, "--device", "rocm"]).failed(1, &["without `rocm`", "--features rocm"]);
}

#[test]
fn help_has_examples_for_every_command() {
    for command in [
        &["--help"][..],
        &["quantize", "--help"],
        &["eval", "--help"],
        &["chat", "--help"],
        &["inspect", "--help"],
        &["convert", "--help"],
    ] {
        let help = run(command).succeeded().stdout;
        assert!(help.contains("Examples:\n  burn-quant "), "{help}");
    }
}

/// Fits a terminal of 80 columns.
#[track_caller]
fn assert_narrow(text: &str) {
    let long = text.lines().find(|line| line.chars().count() > 80);
    assert_eq!(long, None);
}
