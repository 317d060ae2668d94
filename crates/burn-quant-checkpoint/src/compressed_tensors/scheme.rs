//! Schemes: what `config.json` says about the numbers of a group of layers.
//!
//! Source: compressed-tensors 0.20.0, `QuantizationArgs` and `QuantizationScheme`.

use burn_quant_numerics::Minifloat;
use serde_json::{Map, Value, json};

use crate::{CheckpointError, Element};

/// How the tensors of a layer are stored: compressed-tensors' `format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Integers, a byte each, with float scales.
    IntQuantized,
    /// E4M3 numbers with float scales.
    FloatQuantized,
    /// Integers or E4M3 numbers, a byte each, with float scales: the package's choice for FP8 weights of float inputs.
    NaiveQuantized,
    /// Integers of 2 to 8 bits without gaps in 32-bit words, with float scales.
    PackQuantized,
    /// E2M1 numbers in blocks of 16 under E4M3 scales, under a scale of the tensor.
    Nvfp4PackQuantized,
    /// E2M1 numbers in blocks under powers of two.
    Mxfp4PackQuantized,
    /// E2M3 numbers in blocks under powers of two.
    Mxfp6PackQuantized,
    /// E4M3 numbers in blocks under powers of two.
    Mxfp8Quantized,
}

impl Format {
    const ALL: [Self; 8] = [
        Format::IntQuantized,
        Format::FloatQuantized,
        Format::NaiveQuantized,
        Format::PackQuantized,
        Format::Nvfp4PackQuantized,
        Format::Mxfp4PackQuantized,
        Format::Mxfp6PackQuantized,
        Format::Mxfp8Quantized,
    ];

    /// Returns the name in `config.json`.
    ///
    /// For example `pack-quantized`.
    pub const fn name(self) -> &'static str {
        match self {
            Format::IntQuantized => "int-quantized",
            Format::FloatQuantized => "float-quantized",
            Format::NaiveQuantized => "naive-quantized",
            Format::PackQuantized => "pack-quantized",
            Format::Nvfp4PackQuantized => "nvfp4-pack-quantized",
            Format::Mxfp4PackQuantized => "mxfp4-pack-quantized",
            Format::Mxfp6PackQuantized => "mxfp6-pack-quantized",
            Format::Mxfp8Quantized => "mxfp8-quantized",
        }
    }

    /// Whether scales are powers of two.
    pub(super) const fn is_mx(self) -> bool {
        matches!(self, Format::Mxfp4PackQuantized | Format::Mxfp6PackQuantized | Format::Mxfp8Quantized)
    }

    pub(super) fn parse(what: &str, name: &str) -> Result<Self, CheckpointError> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| CheckpointError::Unknown {
            what: what.into(),
            found: name.into(),
            known: "int-quantized, float-quantized, naive-quantized, pack-quantized, nvfp4-pack-quantized, \
                    mxfp4-pack-quantized, mxfp6-pack-quantized, mxfp8-quantized",
        })
    }
}

/// Which elements share a scale: compressed-tensors' `strategy`, with `group_size` and `block_structure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// All of a tensor.
    Tensor,
    /// A row of a weight.
    Channel,
    /// So many consecutive elements of a row.
    Group(usize),
    /// So many consecutive elements of a row, under a scale of the tensor.
    TensorGroup(usize),
    /// A rectangle of `[rows, columns]`.
    Block([usize; 2]),
    /// A token of the inputs.
    Token,
}

/// When scales are made: compressed-tensors' `dynamic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dynamic {
    /// Before: scales are stored.
    Static,
    /// From the values, at inference.
    Dynamic,
    /// From the values, under a stored scale of the tensor: `local`.
    Local,
}

/// How scales are stored: compressed-tensors' `scale_dtype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaleType {
    /// As floats, or not said.
    Float,
    /// As powers of two: `torch.uint8`.
    E8M0,
    /// As E4M3 numbers: `torch.float8_e4m3fn`.
    E4M3,
}

/// How one tensor is quantized: compressed-tensors' `QuantizationArgs`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Args {
    /// To what: `num_bits` and `type`.
    pub element: Element,
    /// Whether zero is the middle of the codes; otherwise there are zero points.
    pub symmetric: bool,
    /// Which elements share a scale.
    pub strategy: Strategy,
    /// When scales are made.
    pub dynamic: Dynamic,
    /// How scales are stored.
    pub scale: ScaleType,
}

/// How layers are quantized and stored: compressed-tensors' `QuantizationScheme`, without its targets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scheme {
    /// How the tensors are stored.
    pub format: Format,
    /// How weights are quantized.
    pub weights: Args,
    /// How inputs are quantized.
    pub inputs: Option<Args>,
    /// How outputs are quantized; such layers are not read.
    pub outputs: Option<Args>,
}

impl Args {
    /// Reads `QuantizationArgs`; `at` is their key, for errors.
    ///
    /// Absent keys and nulls have the package's defaults: 8-bit symmetric static integers, and the strategy that the
    /// group size says.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Value`] and [`CheckpointError::Unknown`] with the key.
    pub(super) fn parse(at: &str, json: &Value) -> Result<Self, CheckpointError> {
        let Value::Object(map) = json else {
            return Err(value(at, "an object", json));
        };
        let key = |key: &str| format!("{at}.{key}");
        let get = |key: &str| map.get(key).filter(|value| !value.is_null());
        let text = |name: &str| match get(name) {
            Some(Value::String(text)) => Ok(Some(text.to_lowercase())),
            Some(other) => Err(value(&key(name), "a string", other)),
            None => Ok(None),
        };
        let unknown = |name: &str, found: &str, known| CheckpointError::Unknown {
            what: key(name),
            found: found.to_string(),
            known,
        };
        let symmetric = match get("symmetric") {
            None => true,
            Some(Value::Bool(symmetric)) => *symmetric,
            Some(other) => return Err(value(&key("symmetric"), "true or false", other)),
        };
        let dynamic = match get("dynamic") {
            None | Some(Value::Bool(false)) => Dynamic::Static,
            Some(Value::Bool(true)) => Dynamic::Dynamic,
            Some(Value::String(text)) if text == "local" => Dynamic::Local,
            Some(other) => return Err(value(&key("dynamic"), "true, false or \"local\"", other)),
        };
        let scale = match text("scale_dtype")?.as_deref() {
            Some("torch.uint8" | "uint8") => ScaleType::E8M0,
            Some("torch.float8_e4m3fn" | "float8_e4m3fn") => ScaleType::E4M3,
            None | Some("torch.float32" | "torch.bfloat16" | "torch.float16" | "float32" | "bfloat16" | "float16") => {
                ScaleType::Float
            }
            Some(other) => return Err(unknown("scale_dtype", other, "torch.uint8, torch.float8_e4m3fn and floats")),
        };
        let kind = text("type")?.unwrap_or("int".into());
        let bits = get("num_bits")
            .map_or(Ok(8), |bits| bits.as_u64().ok_or_else(|| value(&key("num_bits"), "a number of bits", bits)))?;
        let element = match (kind.as_str(), bits) {
            ("int", 2..=8) => Element::Int(bits as u8),
            ("float", 8) => Element::Float(Minifloat::E4M3),
            ("float", 6) => Element::Float(Minifloat::E2M3),
            ("float", 4) => Element::Float(Minifloat::E2M1),
            (kind, bits) => {
                return Err(unknown("num_bits", &format!("{kind} of {bits}"), "int of 2 to 8, float of 4, 6 and 8"));
            }
        };
        let strategy = strategy(at, &get, text("strategy")?)?;
        Ok(Self { element, symmetric, strategy, dynamic, scale })
    }

    /// Returns the JSON that the package writes.
    pub(super) fn to_json(self) -> Value {
        let mut map = Map::new();
        let (name, size) = match self.strategy {
            Strategy::Tensor => ("tensor", None),
            Strategy::Channel => ("channel", None),
            Strategy::Group(size) => ("group", Some(size)),
            Strategy::TensorGroup(size) => ("tensor_group", Some(size)),
            Strategy::Block(shape) => {
                map.insert("block_structure".into(), json!(shape));
                ("block", None)
            }
            Strategy::Token => ("token", None),
        };
        let dynamic = match self.dynamic {
            Dynamic::Static => json!(false),
            Dynamic::Dynamic => json!(true),
            Dynamic::Local => json!("local"),
        };
        map.insert("dynamic".into(), dynamic);
        map.insert("group_size".into(), json!(size));
        map.insert("num_bits".into(), json!(self.element.bits()));
        match self.scale {
            ScaleType::Float => None,
            ScaleType::E8M0 => map.insert("scale_dtype".into(), json!("torch.uint8")),
            ScaleType::E4M3 => map.insert("scale_dtype".into(), json!("torch.float8_e4m3fn")),
        };
        map.insert("strategy".into(), json!(name));
        map.insert("symmetric".into(), json!(self.symmetric));
        let is_float = matches!(self.element, Element::Float(_));
        map.insert("type".into(), json!(if is_float { "float" } else { "int" }));
        Value::Object(map)
    }
}

/// The strategy, given or following from the group size.
fn strategy<'a>(
    at: &str,
    get: &impl Fn(&str) -> Option<&'a Value>,
    name: Option<String>,
) -> Result<Strategy, CheckpointError> {
    let size = match get("group_size") {
        None => None,
        Some(size) => {
            let size = size.as_i64().ok_or_else(|| value(&format!("{at}.group_size"), "an integer", size))?;
            Some(size)
        }
    };
    let group = || {
        let size = size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
        size.ok_or_else(|| value(&format!("{at}.group_size"), "at least 1", get("group_size").unwrap_or(&Value::Null)))
    };
    let name = name.unwrap_or_else(|| match size {
        None => "tensor".into(),
        Some(-1) => "channel".into(),
        Some(_) => "group".into(),
    });
    Ok(match name.as_str() {
        "tensor" => Strategy::Tensor,
        "channel" => Strategy::Channel,
        "token" => Strategy::Token,
        "group" => Strategy::Group(group()?),
        "tensor_group" => Strategy::TensorGroup(group()?),
        "block" => {
            let found = get("block_structure").unwrap_or(&Value::Null);
            let shape: Option<Vec<usize>> = match found {
                Value::String(text) => text.split('x').map(|n| n.parse().ok()).collect(),
                found => serde_json::from_value(found.clone()).ok(),
            };
            match shape.as_deref() {
                Some([rows, columns]) if *rows > 0 && *columns > 0 => Strategy::Block([*rows, *columns]),
                _ => return Err(value(&format!("{at}.block_structure"), "two sizes of at least 1", found)),
            }
        }
        _ => {
            return Err(CheckpointError::Unknown {
                what: format!("{at}.strategy"),
                found: name,
                known: "tensor, channel, group, tensor_group, block, token",
            });
        }
    })
}

/// A value of another kind than expected.
pub(super) fn value(key: &str, expected: &'static str, found: &Value) -> CheckpointError {
    let found = if found.is_null() { "missing".into() } else { found.to_string().chars().take(80).collect() };
    CheckpointError::Value { key: key.into(), expected, found }
}
