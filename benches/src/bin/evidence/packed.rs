//! Packed models beside their float selves, and packed layers beside those with burn's own quantized tensors.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use burn_quant::compress::memory;
use burn_quant::fold::fold_to_burn_scheme;
use burn_quant::nn::{LinearConfig, QuantLinear};
use burn_quant::{QuantConfig, QuantizerConfig, Rule, compress, presets, quantize, quantize_weights};
use burn_quant_benches::{device, moby_dick, shortest};
use fashion_mnist::model::Cnn;
use pretrained::minilm::{MiniLm, Sentences};

use crate::tables::{Evidence, Made};

/// Rounds of which the shortest counts.
const ROUNDS: usize = 9;

/// The network of the first example and the published sentence encoder, whole.
pub(crate) fn models(models: &Path) -> Made {
    let device = device();
    let mut rows = network(&device)?;
    rows.extend(encoder(models, &device)?);
    let header = ["model", "recipe", "input", "KiB in float", "KiB packed", "time in float / packed"];
    Ok(Evidence { header: header.map(String::from).to_vec(), rows })
}

fn row<M: Module>(names: [&str; 3], float: &M, packed: &M, times: &[Duration]) -> Vec<String> {
    let size = |model: &M| format!("{:.0}", memory(model).bytes() as f64 / 1024.0);
    let mut row = names.map(String::from).to_vec();
    row.extend([size(float), size(packed), format!("{:.2}", times[1].as_secs_f64() / times[0].as_secs_f64())]);
    row
}

fn network(device: &Device) -> Result<Vec<Vec<String>>, Box<dyn std::error::Error>> {
    let float = Cnn::new(device);
    let images = |n: usize| Tensor::<4>::random([n, 1, 28, 28], Distribution::Default, device);
    let calibration = images(64);
    let (quantized, _) =
        quantize(float.clone(), &presets::int8_default(), |model: &Cnn| drop(model.forward(calibration.clone())))?;
    let (packed, _) = compress(quantized)?;
    let of_batch = |batch: usize| {
        let x = images(batch);
        let many = |model: &Cnn| (0..20).for_each(|_| drop(black_box(model.forward(x.clone()))));
        let times = shortest(ROUNDS, &mut [&mut || many(&packed), &mut || many(&float)]);
        let input = format!("{batch} {}", if batch == 1 { "image" } else { "images" });
        row(["network of the first example", "`int8_default`", &input], &float, &packed, &times)
    };
    Ok([1, 32].map(of_batch).into())
}

fn encoder(models: &Path, device: &Device) -> Result<Vec<Vec<String>>, Box<dyn std::error::Error>> {
    let (float, task) = pretrained::minilm::published(models, &moby_dick(), device)?;
    let calibrate = |model: &MiniLm| task.calibration.iter().for_each(|batch| drop(model.forward(batch)));
    let Sentences { words, padding } = task.calibration[0].clone();
    let sentences = words.dims()[0].min(32);
    let batch = Sentences { words: words.narrow(0, 0, sentences), padding: padding.narrow(0, 0, sentences) };
    let [sentences, tokens] = batch.words.dims();
    let input = format!("{sentences} sentences of up to {tokens} tokens");
    let mut rows = Vec::new();
    let int4 = QuantConfig::new()
        .with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(4).per_block(32)))
        .with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(8).per_token().dynamic()));
    for (name, config) in
        [("`int8_smoothquant`", presets::int8_smoothquant()), ("INT4 in blocks of 32, INT8 tokens", int4)]
    {
        let (quantized, _) = quantize(float.clone(), &config, calibrate)?;
        let (packed, _) = compress(quantized)?;
        let run = |model: &MiniLm| drop(black_box(model.forward(&batch)));
        let times = shortest(ROUNDS, &mut [&mut || run(&packed), &mut || run(&float)]);
        rows.push(row(["all-MiniLM-L6-v2", name, &input], &float, &packed, &times));
    }
    Ok(rows)
}

/// A layer of 4096 · 4096 with weights of INT8 and INT4, in milliseconds.
pub(crate) fn burns_own() -> Made {
    const SIDE: usize = 4096;
    let device = device();
    let float: QuantLinear = LinearConfig::new(SIDE, SIDE).with_bias(false).init(&device);
    let mut rows = Vec::new();
    for (name, weight) in
        [("INT8, one scale", QuantizerConfig::int(8)), ("INT4, blocks of 32", QuantizerConfig::int(4).per_block(32))]
    {
        let config = QuantConfig::new().with_rule(Rule::set("weight_quantizer", weight));
        let (quantized, _) = quantize_weights(float.clone(), &config)?;
        let (packed, _) = compress(quantized.clone())?;
        let handed = fold_to_burn_scheme(quantized)?;
        for batch in [1, 32] {
            let x = Tensor::<2>::random([batch, SIDE], Distribution::Normal(0.0, 1.0), &device);
            let run = |layer: &QuantLinear| drop(black_box(layer.forward(x.clone())));
            let times = shortest(
                ROUNDS,
                &mut [
                    &mut || run(&float),
                    &mut || run(&handed),
                    &mut || drop(black_box(x.clone().matmul(handed.weight.val()))),
                    &mut || run(&packed),
                ],
            );
            let mut row = vec![name.to_string(), batch.to_string()];
            row.extend(times.iter().map(|time| format!("{:.2}", time.as_secs_f64() * 1e3)));
            rows.push(row);
        }
    }
    let header = ["weight", "batch", "f32", "handed over, by burn's layer", "by `matmul`", "packed"];
    Ok(Evidence { header: header.map(String::from).to_vec(), rows })
}
