//! Writes networks in ONNX: `NETWORK-PRESET.onnx`, and beside it `NETWORK-PRESET.safetensors` with an input and what
//! the quantized network computes of it here, `input.NAME` and `output.NAME`.
//!
//! ```sh
//! cargo run --release -p export-onnx -- --out onnx
//! ```
//!
//! `python examples/export-onnx/check.py onnx` runs the files in ONNX Runtime and compares. The network of convolutions
//! is written with burn's own layers, and its batch norm is folded: a graph of it becomes the model that is quantized.

mod case;
mod models;
mod networks;

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_quant::{QuantConfig, QuantError, presets, quantize};
use burn_quant_graph::{GraphModel, capture_with_free_axis};
use burn_quant_onnx::{Exporter, OnnxError, OnnxModel};
use clap::Parser;

use case::Case;
use networks::{Block, Cnn, Recurrent};

/// Writes three small networks in ONNX, in every preset.
#[derive(Parser)]
struct Options {
    /// The folder to write to.
    #[arg(long)]
    out: PathBuf,
    /// Only presets of this name.
    #[arg(long)]
    preset: Option<String>,
    /// The folder that `examples/pretrained/fetch.sh` made: MiniLM and SmolLM2, in place of the small networks.
    #[arg(long)]
    models: Option<PathBuf>,
    /// Trains the network of the first example and the language model of characters, in place of the small networks.
    #[arg(long)]
    trained: bool,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    std::fs::create_dir_all(&options.out)?;
    let device = Device::flex();
    if options.trained || options.models.is_some() {
        let mut written = Vec::new();
        if let Some(models) = &options.models {
            written.extend(models::minilm(models, &options.out, &device)?);
            written.extend(models::smollm2(models, &options.out, &device)?);
        }
        if options.trained {
            written.extend(models::images(&options.out, &device)?);
            written.extend(models::characters(&options.out, &device)?);
        }
        println!("{} in {}", written.join(", "), options.out.display());
        return Ok(());
    }
    device.seed(7);
    let cnn = Cnn::new(&device);
    let sizes = [3, 5].map(|batch| Tensor::zeros([batch, 1, 14, 14], &device));
    let (cnn, _) = GraphModel::new(capture_with_free_axis(&cnn, sizes, Cnn::forward)?, &device)?.fold_batch_norms()?;
    let block = Block::new(&device);
    let recurrent = Recurrent::new(&device);
    let images = networks::spread([4, 1, 14, 14], &device);
    let tokens = networks::spread([4, 6, 32], &device);
    let (mut written, mut refused) = (0, Vec::new());
    let float = [("float", QuantConfig::new())];
    let presets = presets::all().iter().map(|preset| (preset.name, (preset.config)()));
    for (preset, config) in float.into_iter().chain(presets) {
        if options.preset.as_deref().is_some_and(|wanted| wanted != preset) {
            continue;
        }
        let mut count = |network: &str, outcome: Result<Outcome, Failure>| -> Result<(), Failure> {
            match outcome? {
                Outcome::Written => written += 1,
                Outcome::Refused(error) => refused.push(format!("{network}-{preset}: {error}")),
                Outcome::OfOthers => {}
            }
            Ok(())
        };
        let out = options.out.as_path();
        let name = |network: &str| format!("{network}-{preset}");
        let (x, of_graph) = (images.clone(), |cnn: &GraphModel| Exporter::new().graph(&cnn.graph()?));
        count("cnn", write(&cnn, &config, x, GraphModel::forward::<_, Tensor<2>>, of_graph, out, &name("cnn")))?;
        let sizes = || [3, 5].map(|batch| Tensor::zeros([batch, 6, 32], &device));
        let any_size = |block: &Block| Exporter::new().export_any_size(block, sizes(), Block::forward);
        count("block", write(&block, &config, tokens.clone(), Block::forward, any_size, out, &name("block")))?;
        // what is unrolled assigns to parts of its result, whose size is fixed
        let fixed = |lstm: &Recurrent| Exporter::new().export(lstm, tokens.clone(), Recurrent::forward);
        count("lstm", write(&recurrent, &config, tokens.clone(), Recurrent::forward, fixed, out, &name("lstm")))?;
    }
    println!("{written} files in {}", options.out.display());
    refused.iter().for_each(|refused| println!("not written: {refused}"));
    Ok(())
}

enum Outcome {
    Written,
    /// ONNX does not have what the preset asks for.
    Refused(OnnxError),
    /// The preset is for layers that the network does not have.
    OfOthers,
}

fn write<M: Module, const I: usize, const O: usize>(
    model: &M,
    config: &QuantConfig,
    x: Tensor<I>,
    forward: impl Fn(&M, Tensor<I>) -> Tensor<O>,
    to_onnx: impl Fn(&M) -> Result<OnnxModel, OnnxError>,
    out: &Path,
    name: &str,
) -> Result<Outcome, Failure> {
    let calibrate = |model: &M| drop(forward(model, x.clone()));
    let model = match quantize(model.clone(), config, calibrate) {
        Ok((model, _)) => model,
        Err(QuantError::NoMatch { .. } | QuantError::NoneMatched { .. }) => return Ok(Outcome::OfOthers),
        Err(error) => return Err(error.into()),
    };
    let onnx = match to_onnx(&model) {
        Ok(onnx) => onnx,
        Err(error @ OnnxError::NoLowering { .. }) => return Ok(Outcome::Refused(error)),
        Err(error) => return Err(error.into()),
    };
    onnx.save(out.join(format!("{name}.onnx")))?;
    let y = forward(&model, x.clone());
    let case = Case::new().floats("input.input", x).floats("output.output", y);
    case.save(&out.join(format!("{name}.safetensors")))?;
    Ok(Outcome::Written)
}
