//! The reference's quantizer attributes in burn-quant's terms, for tensors whose rank is known.
//!
//! Configurations of models go through burn-quant's own import; the cases of single tensors divide axes that have no
//! role.

use burn_quant::config::{
    AxisGroups, BiasConfig, BlockScale, Format, GradientRule, Granularity, Identity, IncludeMax, IntFormat, IntSpan,
    RangeSearch, RangeSource, Rotation, RotationOutput, ScaleFormat, Signedness,
};
use burn_quant::{Algorithm, QuantConfig, QuantizerConfig};
use serde_json::Value;

fn format(attributes: &Value) -> Format {
    let bits = match &attributes["num_bits"] {
        Value::Array(parts) => {
            let parts: Vec<u64> = parts.iter().map(|part| part.as_u64().expect("bits")).collect();
            return match parts.as_slice() {
                [4, 3] => Format::E4M3,
                [5, 2] => Format::E5M2,
                [3, 2] => Format::E3M2,
                [2, 3] => Format::E2M3,
                [2, 1] => Format::E2M1,
                [1, 2] => Format::E1M2,
                other => panic!("a format of the reference, found {other:?}"),
            };
        }
        Value::Null => 8,
        bits => bits.as_u64().expect("a number of bits") as u8,
    };
    let signedness = if attributes["unsigned"] == true { Signedness::Unsigned } else { Signedness::Signed };
    let span = if attributes["narrow_range"] == true { IntSpan::Narrow } else { IntSpan::Full };
    IntFormat::new(bits, signedness, span).expect("a width of the reference").into()
}

fn scale(blocks: &Value) -> ScaleFormat {
    let dynamic = blocks["type"] == "dynamic";
    match blocks["scale_bits"].as_array().map(|bits| bits[0].as_u64()) {
        None => ScaleFormat::F32,
        Some(Some(8)) => ScaleFormat::E8M0,
        Some(_) if dynamic => ScaleFormat::E4M3(BlockScale::Dynamic),
        Some(_) if blocks["four_over_six"] == true => ScaleFormat::E4M3(BlockScale::StaticFourOverSix),
        Some(_) => ScaleFormat::E4M3(BlockScale::Static),
    }
}

fn bias(value: &Value, index: &dyn Fn(i64) -> usize, rank: usize) -> Option<BiasConfig> {
    let keys = value.as_object()?.keys().filter_map(|key| key.parse().ok());
    let mut axes = vec![AxisGroups::Each; rank];
    keys.for_each(|axis| axes[index(axis)] = AxisGroups::Whole);
    let config = BiasConfig::new(Granularity::Axes(axes));
    let config = if value["method"] == "max_min" { config.max_min() } else { config };
    Some(if value["type"] == "dynamic" { config.dynamic() } else { config })
}

fn rotation(value: &Value) -> Option<Rotation> {
    let after = if value["mode"] == "rotate_back" { RotationOutput::Original } else { RotationOutput::Rotated };
    let block = value["block_size"].as_u64().map(|block| block as usize);
    (*value == Value::Bool(true) || value["enable"] == true).then_some(Rotation { block, signs: None, output: after })
}

/// The configuration for a tensor of this rank, axis by axis as the reference writes them.
pub(crate) fn by_axes(attributes: &Value, rank: usize) -> QuantizerConfig {
    let index = |axis: i64| if axis < 0 { (axis + rank as i64) as usize } else { axis as usize };
    let mut axes = vec![AxisGroups::Whole; rank];
    match &attributes["axis"] {
        Value::Null => {}
        Value::Array(kept) => kept.iter().for_each(|axis| axes[index(axis.as_i64().unwrap())] = AxisGroups::Each),
        axis => axes[index(axis.as_i64().unwrap())] = AxisGroups::Each,
    }
    if let Some(blocks) = attributes.get("block_sizes").and_then(Value::as_object) {
        let sizes = blocks.iter().filter_map(|(key, size)| Some((index(key.parse().ok()?), size)));
        let sizes: Vec<(usize, &Value)> = sizes.collect();
        let all_whole = sizes.iter().all(|(_, size)| size.is_null());
        axes.fill(AxisGroups::Each);
        for (axis, size) in sizes {
            axes[axis] = match size.as_u64() {
                Some(size) => AxisGroups::Blocks(size as usize),
                None if all_whole => AxisGroups::Whole,
                None => AxisGroups::Each, // a None beside a sized block is treated like an unlisted axis
            };
        }
    }
    let mut config = QuantizerConfig::new(format(attributes)).with_granularity(Granularity::Axes(axes));
    config.scale = scale(&attributes["block_sizes"]);
    if attributes["type"] == "dynamic" || config.scale == ScaleFormat::E8M0 {
        config.range = RangeSource::Dynamic;
    }
    if attributes["pass_through_bwd"] == false {
        config.gradient = GradientRule::Clipped;
    }
    config.bias = bias(&attributes["bias"], &index, rank);
    config.rotation = rotation(&attributes["rotate"]);
    config
}

/// A model configuration, or why it cannot be run yet.
///
/// The reference's NVFP4 kernel takes blocks of 16 whatever the configuration says, and the expected data are those;
/// burn-quant takes the blocks it is told, so here it is told 16.
pub(crate) fn model(config: &Value) -> Result<QuantConfig, String> {
    let mut config = config.clone();
    let entries = config["quant_cfg"].as_array_mut().expect("a list of entries");
    for blocks in entries.iter_mut().filter_map(|entry| entry.get_mut("cfg")?.get_mut("block_sizes")) {
        if scale(blocks) == ScaleFormat::E4M3(BlockScale::Dynamic) {
            blocks["-1"] = 16.into();
        }
    }
    let fields = config.as_object_mut().expect("a configuration is an object");
    fields.retain(|key, _| ["quant_cfg", "algorithm"].contains(&key.as_str())); // QAT cases also say how they train
    let mut config = QuantConfig::from_modelopt_json(&config.to_string()).map_err(|e| e.to_string())?;
    match &mut config.algorithm {
        Algorithm::Mse(search) | Algorithm::LocalHessian { search, .. } => as_the_reference(search),
        Algorithm::AwqLite { identity, .. } | Algorithm::AwqFull { identity, .. } => *identity = Identity::NotTried,
        _ => {}
    }
    Ok(config)
}

/// The reference's steps miss the multiplier one, which burn-quant tries too: here it does not.
pub(crate) fn as_the_reference(search: &mut RangeSearch) {
    if let RangeSearch::Multipliers { include_max, .. } = search {
        *include_max = IncludeMax::OnGrid;
    }
}
