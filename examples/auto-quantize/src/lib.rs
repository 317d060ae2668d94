//! The best format of each layer under a budget of bits, against uniform formats and the rule that first and last
//! layers get more.
//!
//! * [`cnn`] a small network on Fashion-MNIST, by its accuracy
//! * [`gpt`] a character-level language model, by its bits per character
//! * [`minilm`] a published sentence encoder, by the cosine to its float embeddings; see the example `pretrained` for
//!   its files
//!
//! Every model is scored with training or calibration data and evaluated on other data.

pub mod cnn;
pub mod comparison;
pub mod gpt;
pub mod minilm;

pub use comparison::{Comparison, Row};

use burn_quant::search::SearchFormat;
use burn_quant::{QuantConfig, QuantizerConfig, Rule};
use indicatif::{ProgressBar, ProgressStyle};

/// Integer weights of some bits per channel, and inputs of some bits per tensor.
pub fn integers(weight: u8, input: u8) -> SearchFormat {
    let config = QuantConfig::new()
        .with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(weight).per_channel()))
        .with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(input)))
        .with_rule(Rule::disable("*weight_quantizer").within("Embedding").optional())
        .with_rule(Rule::disable("*norm*").optional())
        .with_rule(Rule::disable("*pool*").optional());
    SearchFormat::new(format!("w{weight}a{input}"), config)
}

/// A bar for the scoring of a search; hidden unless `shown`.
pub fn bar(name: &str, shown: bool) -> ProgressBar {
    if !shown {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix:10} {wide_bar} {pos}/{len} {msg}").expect("a valid template");
    ProgressBar::new(0).with_style(style).with_prefix(name.to_string())
}
