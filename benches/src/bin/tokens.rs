//! Times a packed language model as `llama-bench` does: tokens per second of a prompt, and of what is written.
//!
//! ```text
//! tokens FOLDER [--weights 4] [--prompt 512] [--written 64] [--rounds 3]
//! ```
//!
//! Weights are INT4 in blocks of 32, as Q4_0, or INT8 per channel; inputs are INT8 tokens, which llama.cpp has, too;
//! the table of embeddings, which is the head of small models, is INT8. `peers/llama.sh` runs both in turn. Threads are
//! rayon's: `RAYON_NUM_THREADS=1`. The best of the rounds counts.

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use burn::tensor::Device;
use burn_quant::compress::compress;
use burn_quant::{QuantConfig, QuantizerConfig, Rule, quantize_weights};
use burn_quant_checkpoint::Folder;
use burn_quant_llm::{Decoder, Generator, Sampling};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Time a packed language model: tokens per second of a prompt, and of what is written.
#[derive(Parser)]
struct Arguments {
    /// A Hugging Face folder in float.
    folder: PathBuf,
    /// Bits of the weights: 4 in blocks of 32, or 8 per channel.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=8))]
    weights: u8,
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 512)]
    prompt: usize,
    /// Tokens that are written.
    #[arg(long, default_value_t = 64)]
    written: usize,
    /// How often each is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { folder, weights, prompt, written, rounds } = Arguments::parse();
    let device = Device::flex();
    let weight = match weights {
        8 => QuantizerConfig::int(8).per_channel(),
        bits => QuantizerConfig::int(bits).per_block(32),
    };
    let table = QuantizerConfig::int(8).per_channel();
    let config = QuantConfig::new()
        .with_rule(Rule::set("model.layers.*.weight_quantizer", weight))
        .with_rule(Rule::set("model.layers.*_proj.input_quantizer", QuantizerConfig::int(8).per_token().dynamic()))
        .with_rule(Rule::set("lm_head.weight_quantizer", table.clone()).optional())
        .with_rule(Rule::set("model.embed_tokens.weight_quantizer", table));
    let decoder = Decoder::load(&Folder::open(&folder)?, &device)?;
    let (decoder, _) = compress(quantize_weights(decoder, &config)?.0)?;

    let vocabulary = decoder.config().vocabulary as u32;
    let tokens: Vec<u32> = (0..prompt as u32).map(|i| (i * 7919 + 1) % vocabulary).collect();
    let [mut read, mut wrote] = [0f64; 2];
    for _ in 0..rounds {
        let start = Instant::now();
        let mut generator = Generator::new(&decoder, &tokens, &Sampling::greedy(1))?;
        generator.next();
        read = read.max(prompt as f64 / start.elapsed().as_secs_f64());
        // as `llama-bench`: from an empty cache on
        let mut generator = Generator::new(&decoder, &tokens[..1], &Sampling::greedy(written + 1))?;
        generator.next();
        let start = Instant::now();
        let count = generator.count();
        wrote = wrote.max(count as f64 / start.elapsed().as_secs_f64());
    }
    println!("prompt of {prompt}\t{read:.1} tokens/s");
    println!("{written} written\t{wrote:.1} tokens/s");
    Ok(())
}
