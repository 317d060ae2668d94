//! The attributes of one quantizer.

use std::collections::BTreeMap;

use burn_quant_ops::numerics::{BlockScale, Format, IntFormat, IntSpan, ScaleFormat, Signedness};
use burn_quant_ops::{AxisGroups, GradientRule};
use serde_json::{Map, Value};

use super::ImportProblem;
use super::problem::{Problem, boolean, count, effective_bits, keys, number, object, problem, wrong};
use burn_quant_core::config::{
    BiasConfig, BiasMethod, BiasSource, Granularity, QuantizerConfig, RangeSource, Rotation, RotationOutput,
};
use burn_quant_core::error::InvalidConfig;

const ATTRIBUTES: [&str; 18] = [
    "enable",
    "num_bits",
    "effective_bits",
    "axis",
    "fake_quant",
    "unsigned",
    "narrow_range",
    "learn_amax",
    "type",
    "block_sizes",
    "bias",
    "trt_high_precision_dtype",
    "calibrator",
    "rotate",
    "pass_through_bwd",
    "backend",
    "use_constant_amax",
    "constant_amax",
];

/// The attributes of one quantizer; `None` if there are none.
pub(super) fn attributes(
    at: &str,
    name: &str,
    value: &Value,
    enabled: bool,
) -> Result<Option<QuantizerConfig>, Problem> {
    let attributes = object(at, value)?;
    keys(at, attributes, &[&ATTRIBUTES[..], &["backend_extra_args"]].concat())?;
    if attributes.is_empty() {
        return Ok(None);
    }
    if let (1, Some(enable)) = (attributes.len(), attributes.get("enable")) {
        let only = boolean(&format!("{at}.enable"), enable)?;
        return if only && enabled { problem(at, ImportProblem::OnlyEnable) } else { Ok(None) };
    }
    let reader = Reader { at, attributes };
    let config = reader.config(Target::of(name))?;
    config.validate().map_err(|invalid| (at.to_string(), invalid.into()))?;
    Ok(Some(config))
}

/// What a pattern names.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Target {
    Weights,
    Activations,
    Any,
}

impl Target {
    pub(super) fn of(name: &str) -> Self {
        if name.contains("weight_quantizer") {
            Target::Weights
        } else if ["input_quantizer", "output_quantizer", "bmm_quantizer", "softmax_quantizer"]
            .iter()
            .any(|part| name.contains(part))
        {
            Target::Activations
        } else {
            Target::Any
        }
    }

    fn name(self) -> &'static str {
        match self {
            Target::Weights => "weights",
            Target::Activations => "activations",
            Target::Any => "quantizers of any kind",
        }
    }
}

/// The attributes of a quantizer, by key.
pub(super) struct Reader<'a> {
    pub(super) at: &'a str,
    pub(super) attributes: &'a Map<String, Value>,
}

/// `block_sizes`, taken apart.
#[derive(Default)]
struct Blocks {
    /// By axis; `None` is the whole axis.
    sizes: BTreeMap<i64, Option<usize>>,
    dynamic: bool,
    scale: Option<(u64, u64)>,
    four_over_six: bool,
}

impl Reader<'_> {
    /// An attribute that is there and not null, with its place.
    pub(super) fn get(&self, key: &str) -> Option<(String, &Value)> {
        let value = self.attributes.get(key).filter(|value| !value.is_null())?;
        Some((format!("{}.{key}", self.at), value))
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, Problem> {
        self.get(key).map_or(Ok(default), |(at, value)| boolean(&at, value))
    }

    pub(super) fn unsupported<T>(&self, key: &'static str, value: &Value, instead: &'static str) -> Result<T, Problem> {
        problem(&format!("{}.{key}", self.at), ImportProblem::Unsupported { key, value: value.to_string(), instead })
    }

    fn config(&self, target: Target) -> Result<QuantizerConfig, Problem> {
        self.refuse_what_has_no_counterpart()?;
        let blocks = self.blocks()?;
        let format = self.format(blocks.as_ref())?;
        let mut config = QuantizerConfig::new(format).with_granularity(self.granularity(target, blocks.as_ref())?);
        config.range = self.range()?;
        if let Some(blocks) = &blocks {
            config.scale = self.scale(blocks)?;
        }
        if config.scale == ScaleFormat::E8M0 {
            config.range = RangeSource::Dynamic;
        }
        if !self.flag("pass_through_bwd", true)? {
            config.gradient = GradientRule::Clipped;
        }
        config.bias = self.bias()?;
        config.rotation = self.rotation()?;
        Ok(config)
    }

    fn refuse_what_has_no_counterpart(&self) -> Result<(), Problem> {
        if !self.flag("fake_quant", true)? {
            return self.unsupported("fake_quant", &Value::Bool(false), "pack the weights after quantizing");
        }
        if self.flag("learn_amax", false)? {
            return self.unsupported("learn_amax", &Value::Bool(true), "it is deprecated in ModelOpt");
        }
        if let Some((_, value)) = self.get("backend") {
            return self.unsupported("backend", value, "write a module of your own");
        }
        if let Some((_, value)) = self.get("calibrator").filter(|(_, value)| *value != "max") {
            return self.unsupported("calibrator", value, "name an algorithm");
        }
        if let Some((at, bits)) = self.get("effective_bits") {
            effective_bits(&at, bits)?;
        }
        match self.get("trt_high_precision_dtype") {
            Some((at, value)) if !["Float", "Half", "BFloat16"].iter().any(|name| value == name) => {
                wrong(&at, "Float, Half or BFloat16", value)
            }
            _ => Ok(()),
        }
    }

    fn format(&self, blocks: Option<&Blocks>) -> Result<Format, Problem> {
        let Some((at, value)) = self.get("num_bits") else { return self.integer(8) };
        if let Some(bits) = value.as_u64() {
            return match u8::try_from(bits) {
                Ok(bits) => self.integer(bits),
                Err(_) => wrong(&at, "2 to 16 bits", value),
            };
        }
        let format = match minifloat(value) {
            Some((4, 3)) => Format::E4M3,
            Some((5, 2)) => Format::E5M2,
            Some((3, 2)) => Format::E3M2,
            Some((2, 3)) => Format::E2M3,
            Some((2, 1)) => Format::E2M1,
            Some((1, 2)) => Format::E1M2,
            _ => return wrong(&at, "a number of bits, or [4,3], [5,2], [3,2], [2,3], [2,1] or [1,2]", value),
        };
        let dynamic = blocks.is_some_and(|blocks| blocks.dynamic);
        let static_scales = blocks.is_some_and(|blocks| blocks.scale.is_some());
        match format {
            Format::E4M3 => Ok(format),
            Format::E2M1 if dynamic || static_scales => Ok(format),
            _ if dynamic => Ok(format),
            _ => problem(&at, ImportProblem::NeedsDynamicBlocks { bits: value.to_string() }),
        }
    }

    fn integer(&self, bits: u8) -> Result<Format, Problem> {
        let signedness = if self.flag("unsigned", false)? { Signedness::Unsigned } else { Signedness::Signed };
        let span = if self.flag("narrow_range", false)? { IntSpan::Narrow } else { IntSpan::Full };
        match IntFormat::new(bits, signedness, span) {
            Ok(format) => Ok(format.into()),
            Err(_) => wrong(&format!("{}.num_bits", self.at), "2 to 16 bits", &bits.into()),
        }
    }

    fn blocks(&self) -> Result<Option<Blocks>, Problem> {
        let Some((at, value)) = self.get("block_sizes") else { return Ok(None) };
        if self.get("axis").is_some() {
            return problem(self.at, ImportProblem::Exclusive { a: "axis", b: "block_sizes" });
        }
        let mut blocks = Blocks::default();
        for (key, value) in object(&at, value)? {
            let at = format!("{at}.{key}");
            match key.as_str() {
                "type" => blocks.dynamic = kind(&at, value)?,
                "scale_bits" if value.is_null() => {}
                "scale_bits" => match minifloat(value) {
                    Some(scale @ ((4, 3) | (8, 0))) => blocks.scale = Some(scale),
                    _ if value.is_u64() => {
                        let instead = "double-quantized scales are a matter of packing";
                        return self.unsupported("block_sizes", value, instead);
                    }
                    _ => return wrong(&at, "[4, 3] or [8, 0]", value),
                },
                "scale_block_sizes" => {
                    return self.unsupported("block_sizes", value, "double-quantized scales are a matter of packing");
                }
                "four_over_six" => blocks.four_over_six = value.as_bool().unwrap_or(value != &Value::from(0)),
                axis => {
                    let Ok(axis) = axis.parse() else {
                        return problem(&at, ImportProblem::UnknownKey { key: key.clone() });
                    };
                    let size = if value.is_null() { None } else { Some(count(&at, value)?) };
                    blocks.sizes.insert(axis, size);
                }
            }
        }
        if blocks.sizes.is_empty() || (blocks.dynamic && blocks.sizes.len() != 1) {
            return wrong(&at, "a size for an axis, for exactly one if dynamic", value);
        }
        Ok(Some(blocks))
    }

    fn scale(&self, blocks: &Blocks) -> Result<ScaleFormat, Problem> {
        let at = format!("{}.block_sizes", self.at);
        match (blocks.scale, blocks.dynamic) {
            (None, true) => problem(&at, ImportProblem::DynamicBlocksWithoutScale),
            (None, false) => Ok(ScaleFormat::F32),
            (Some((8, 0)), true) => Ok(ScaleFormat::E8M0),
            (Some((8, 0)), false) => problem(&at, ImportProblem::Invalid(InvalidConfig::StaticPowersOfTwo)),
            (Some(_), true) => Ok(ScaleFormat::E4M3(BlockScale::Dynamic)),
            (Some(_), false) if blocks.four_over_six => Ok(ScaleFormat::E4M3(BlockScale::StaticFourOverSix)),
            (Some(_), false) => Ok(ScaleFormat::E4M3(BlockScale::Static)),
        }
    }

    fn granularity(&self, target: Target, blocks: Option<&Blocks>) -> Result<Granularity, Problem> {
        let axes = |axes: String| problem(self.at, ImportProblem::Axes { axes, target: target.name() });
        let Some(blocks) = blocks else {
            let Some((at, axis)) = self.get("axis") else { return Ok(Granularity::PerTensor) };
            let kept: Option<Vec<i64>> = match axis {
                Value::Array(axes) => axes.iter().map(Value::as_i64).collect(),
                axis => axis.as_i64().map(|axis| vec![axis]),
            };
            return match (kept.as_deref(), target) {
                (None, _) => wrong(&at, "an axis, a list of axes, or null", axis),
                (Some([]), _) => Ok(Granularity::PerTensor),
                // of a weight [out, in]
                (Some([0 | -2]), Target::Weights) | (Some([-1]), Target::Activations) => Ok(Granularity::PerChannel),
                _ => axes(axis.to_string()),
            };
        };
        // axes of a weight are those of [out, in], counted from either end
        let from_the_end =
            |axis: i64| if target == Target::Weights && (0..2).contains(&axis) { axis - 2 } else { axis };
        let mut sizes: Vec<(i64, Option<usize>)> =
            blocks.sizes.iter().map(|(axis, size)| (from_the_end(*axis), *size)).collect();
        sizes.sort_unstable();
        match (sizes.as_slice(), target) {
            ([(-1, Some(size))], _) => Ok(Granularity::Block { size: *size }),
            ([(-2, Some(rows)), (-1, Some(cols))], Target::Weights) => {
                Ok(Granularity::Block2d { rows: *rows, cols: *cols })
            }
            // the whole axis: what is left is the output channel of a weight, the token of an activation
            ([(-1, None)], Target::Weights) => Ok(Granularity::PerChannel),
            ([(-1, None)], Target::Activations) => Ok(Granularity::PerToken),
            _ => axes(format!("{:?}", blocks.sizes)),
        }
    }

    fn range(&self) -> Result<RangeSource, Problem> {
        let dynamic = self.get("type").map_or(Ok(false), |(at, value)| kind(&at, value))?;
        let constant = self.get("constant_amax").map(|(at, value)| number(&at, value)).transpose()?;
        match (self.flag("use_constant_amax", false)?, constant) {
            (true, Some(_)) => {
                problem(self.at, ImportProblem::Exclusive { a: "use_constant_amax", b: "constant_amax" })
            }
            (true, None) => Ok(RangeSource::Constant(448.0)),
            (false, Some(amax)) => Ok(RangeSource::Constant(amax)),
            (false, None) if dynamic => Ok(RangeSource::Dynamic),
            (false, None) => Ok(RangeSource::Static),
        }
    }

    fn bias(&self) -> Result<Option<BiasConfig>, Problem> {
        let Some((at, value)) = self.get("bias") else { return Ok(None) };
        let (mut reduced, mut source, mut method) = (Vec::new(), BiasSource::Static, BiasMethod::Mean);
        for (key, value) in object(&at, value)? {
            let at = format!("{at}.{key}");
            match key.as_str() {
                "type" if kind(&at, value)? => source = BiasSource::Dynamic,
                "type" => {}
                "method" if value == "mean" => {}
                "method" if value == "max_min" => method = BiasMethod::MaxMin,
                "method" => return wrong(&at, "mean or max_min", value),
                axis => match axis.parse::<i64>() {
                    Ok(axis) => reduced.push(axis),
                    Err(_) => return problem(&at, ImportProblem::UnknownKey { key: key.clone() }),
                },
            }
        }
        reduced.sort_unstable();
        use AxisGroups::{Each, Whole};
        let granularity = match reduced.as_slice() {
            [] => return wrong(&at, "at least one axis to reduce", value),
            [-1] => Granularity::PerToken,
            [-4, -2] => Granularity::Axes(vec![Whole, Each, Whole, Each]), // keys and values: per head and feature
            _ => {
                let axes = format!("{reduced:?}");
                return problem(&at, ImportProblem::Axes { axes, target: "a bias" });
            }
        };
        Ok(Some(BiasConfig { granularity, method, source }))
    }

    fn rotation(&self) -> Result<Option<Rotation>, Problem> {
        let Some((at, value)) = self.get("rotate") else { return Ok(None) };
        if let Some(enable) = value.as_bool() {
            return Ok(enable.then(Rotation::default));
        }
        let fields = object(&at, value)?;
        keys(&at, fields, &["enable", "mode", "rotate_fp32", "block_size"])?;
        let reader = Reader { at: &at, attributes: fields };
        reader.flag("rotate_fp32", false)?; // arithmetic is f32 in any case
        let output = match reader.get("mode") {
            None => RotationOutput::Rotated,
            Some((_, mode)) if mode == "rotate" => RotationOutput::Rotated,
            Some((_, mode)) if mode == "rotate_back" => RotationOutput::Original,
            Some((at, mode)) => return wrong(&at, "rotate or rotate_back", mode),
        };
        let block = reader.get("block_size").map(|(at, value)| count(&at, value)).transpose()?;
        let rotation = Rotation { block, signs: None, output };
        Ok(reader.flag("enable", false)?.then_some(rotation))
    }
}

/// `static` or `dynamic`; whether it is the latter.
fn kind(at: &str, value: &Value) -> Result<bool, Problem> {
    match value.as_str() {
        Some("static") => Ok(false),
        Some("dynamic") => Ok(true),
        _ => wrong(at, "static or dynamic", value),
    }
}

/// Exponent and mantissa bits: `[4, 3]` or `"e4m3"`.
fn minifloat(value: &Value) -> Option<(u64, u64)> {
    match value {
        Value::Array(parts) => match parts.as_slice() {
            [exponent, mantissa] => Some((exponent.as_u64()?, mantissa.as_u64()?)),
            _ => None,
        },
        Value::String(name) => {
            let (exponent, mantissa) = name.strip_prefix('e')?.split_once('m')?;
            Some((exponent.parse().ok()?, mantissa.parse().ok()?))
        }
        _ => None,
    }
}
