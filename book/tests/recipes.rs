//! What the chapter "Choosing a recipe" says of each preset is what happens.

use burn::module::Module;
use burn::tensor::Device;
use burn_quant::nn::attention::{MultiHeadAttention, MultiHeadAttentionConfig};
use burn_quant::nn::{Linear, LinearConfig};
use burn_quant::{QuantConfig, QuantError, quantize_weights};

/// A model with what presets look for.
#[derive(Module, Debug)]
struct Net {
    attention: MultiHeadAttention,
    mlp: Linear,
}

#[test]
fn presets_need_data_where_the_table_says_so() {
    let device = Device::flex();
    let net = Net {
        attention: MultiHeadAttentionConfig::new(128, 2).init(&device),
        mlp: LinearConfig::new(128, 128).init(&device),
    };
    let chapter = include_str!("../src/choosing-a-recipe.md");
    let rows = chapter.lines().filter(|line| line.starts_with('|') && line.contains('`'));
    let mut checked = 0;
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let says = match cells[3] {
            "yes" => true,
            "no" => false,
            other => panic!("needs data: {other}"),
        };
        for name in cells[2].split('`').skip(1).step_by(2) {
            let config = QuantConfig::preset(name).expect("a preset");
            let needs = match quantize_weights(net.clone(), &config) {
                Ok(_) => false,
                Err(QuantError::NeedsData { .. } | QuantError::NeedsForwardLoop { .. }) => true,
                Err(other) => panic!("{name}: {other}"),
            };
            assert_eq!(needs, says, "{name}");
            checked += 1;
        }
    }
    assert!(checked > 15, "{checked} presets");
}
