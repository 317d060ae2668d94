//! The reference's quantizer attributes in burn-quant's terms.

use burn_quant::{
    AxisGroups, Format, GradientRule, Granularity, IntFormat, IntSpan, QuantConfig, QuantizerConfig, Range, Rule,
    Signedness,
};
use serde_json::Value;

/// Attributes that burn-quant does not have yet.
pub(crate) fn not_yet(attributes: &Value) -> Option<String> {
    if attributes.is_array() {
        return Some("chains of quantizers".into());
    }
    for (key, what) in [("bias", "affine"), ("rotate", "rotation")] {
        if attributes.get(key).is_some_and(|value| !value.is_null() && *value != Value::Bool(false)) {
            return Some(what.into());
        }
    }
    let blocks = attributes.get("block_sizes");
    if blocks.is_some_and(|blocks| blocks.get("scale_bits").is_some() || blocks["type"] == "dynamic") {
        return Some("block scale formats (MX, NVFP4)".into());
    }
    match attributes.get("num_bits") {
        Some(Value::Array(bits)) if bits.as_slice() != [4, 3] => Some("minifloats other than E4M3".into()),
        _ => None,
    }
}

fn format(attributes: &Value) -> Format {
    let bits = match &attributes["num_bits"] {
        Value::Array(_) => return Format::E4M3,
        Value::Null => 8,
        bits => bits.as_u64().expect("a number of bits") as u8,
    };
    let signedness = if attributes["unsigned"] == true { Signedness::Unsigned } else { Signedness::Signed };
    let span = if attributes["narrow_range"] == true { IntSpan::Narrow } else { IntSpan::Full };
    IntFormat::new(bits, signedness, span).expect("a width of the reference").into()
}

fn with_granularity(attributes: &Value, granularity: Granularity) -> QuantizerConfig {
    let mut config = QuantizerConfig::new(format(attributes)).with_granularity(granularity);
    if attributes["type"] == "dynamic" {
        config.range = Range::Dynamic;
    }
    if attributes["pass_through_bwd"] == false {
        config.gradient = GradientRule::Clipped;
    }
    config
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
    with_granularity(attributes, Granularity::Axes(axes))
}

/// The configuration of a layer's quantizer, by roles.
fn by_role(attributes: &Value) -> Result<QuantizerConfig, String> {
    if let Some(why) = not_yet(attributes) {
        return Err(why);
    }
    let blocks = &attributes["block_sizes"];
    let size = |key: &str| blocks.get(key).and_then(Value::as_u64).map(|size| size as usize);
    let granularity = match (size("-1"), size("-2")) {
        (Some(size), None) => Granularity::Block { size },
        (Some(cols), Some(rows)) => Granularity::Block2d { rows, cols },
        _ if blocks.is_object() => Granularity::PerToken,
        _ if attributes["axis"] == 0 => Granularity::PerChannel,
        _ => Granularity::PerTensor,
    };
    Ok(with_granularity(attributes, granularity))
}

/// A model configuration, or why it cannot be expressed yet.
pub(crate) fn model(config: &Value) -> Result<QuantConfig, String> {
    if config["algorithm"] != "max" {
        let name = config["algorithm"].get("method").unwrap_or(&config["algorithm"]);
        return Err(format!("algorithm {}", name.as_str().unwrap_or("none")));
    }
    let mut quant = QuantConfig::new();
    for entry in config["quant_cfg"].as_array().expect("a list of entries") {
        let pattern = entry["quantizer_name"].as_str().expect("a pattern");
        let rule = match entry.get("cfg").filter(|cfg| !cfg.is_null()) {
            Some(attributes) => Rule::set(pattern, by_role(attributes)?),
            None if entry["enable"] == false => Rule::disable(pattern),
            None => Rule::enable(pattern),
        };
        let rule = match entry.get("parent_class").and_then(Value::as_str) {
            Some(class) => rule.within(class.trim_start_matches("nn.")),
            None => rule,
        };
        quant = quant.with_rule(rule.optional());
    }
    Ok(quant)
}
