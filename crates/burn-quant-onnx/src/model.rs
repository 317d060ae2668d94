//! Nodes, initializers, and their bytes in a file. Field numbers are those of `onnx.proto`, which are frozen.

use std::fmt;
use std::path::Path;

use burn::tensor::DType;

use crate::OnnxError;
use crate::proto::Message;

/// The version of the format of files: that of opset 21, or of 23.
const IR: [i64; 2] = [10, 11];
/// Files with more bytes of values have them in a second file: a message has at most 2 GiB.
const LARGE: usize = 1 << 30;

/// The type of elements of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
#[allow(missing_docs)] // the names of ONNX
pub enum ElementType {
    Float = 1,
    Uint8 = 2,
    Int8 = 3,
    Uint16 = 4,
    Int16 = 5,
    Int32 = 6,
    Int64 = 7,
    Bool = 9,
    Float16 = 10,
    Double = 11,
    Uint32 = 12,
    Uint64 = 13,
    Bfloat16 = 16,
    Float8E4M3FN = 17,
    Float8E5M2 = 19,
    Uint4 = 21,
    Int4 = 22,
    Float4E2M1 = 23,
    Float8E8M0 = 24,
}

impl ElementType {
    /// That of a tensor of burn.
    pub(crate) fn of(dtype: DType) -> Option<Self> {
        Some(match dtype {
            DType::F64 => Self::Double,
            DType::F32 | DType::Flex32 => Self::Float,
            DType::F16 => Self::Float16,
            DType::BF16 => Self::Bfloat16,
            DType::I64 => Self::Int64,
            DType::I32 => Self::Int32,
            DType::I16 => Self::Int16,
            DType::I8 => Self::Int8,
            DType::U64 => Self::Uint64,
            DType::U32 => Self::Uint32,
            DType::U16 => Self::Uint16,
            DType::U8 => Self::Uint8,
            DType::Bool(_) => Self::Bool,
            _ => return None,
        })
    }
}

/// A node: an operation with its attributes.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) operator: &'static str,
    pub(crate) name: String,
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    pub(crate) attributes: Vec<(&'static str, Attribute)>,
}

/// A parameter of a node.
#[derive(Clone, Debug)]
pub(crate) enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
    Text(&'static str),
    /// A step of a loop: the next state, which is also its result, is an operator of the state and an element.
    Step {
        operator: &'static str,
        element: ElementType,
    },
}

/// A value that is there from the beginning.
#[derive(Clone, Debug)]
pub(crate) struct Initializer {
    pub(crate) name: String,
    pub(crate) element: ElementType,
    pub(crate) dims: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// An input or an output.
#[derive(Clone, Debug)]
pub(crate) struct Boundary {
    pub(crate) name: String,
    pub(crate) element: ElementType,
    pub(crate) dims: Vec<Dim>,
}

/// The size of an axis of an input or an output.
#[derive(Clone, Debug)]
pub(crate) enum Dim {
    Fixed(usize),
    /// Any, which has this name.
    Free(String),
}

/// A model in ONNX.
#[derive(Clone, Debug, Default)]
pub struct OnnxModel {
    pub(crate) opset: i64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) initializers: Vec<Initializer>,
    pub(crate) inputs: Vec<Boundary>,
    pub(crate) outputs: Vec<Boundary>,
}

/// One line for each input, node and output: `RESULT = Operator(inputs) [attributes]`.
impl fmt::Display for OnnxModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let boundary = |f: &mut fmt::Formatter<'_>, kind: &str, of: &Boundary| {
            let dim = |dim: &Dim| match dim {
                Dim::Fixed(len) => len.to_string(),
                Dim::Free(name) => name.clone(),
            };
            let dims: Vec<String> = of.dims.iter().map(dim).collect();
            writeln!(f, "{kind} {}: {:?} [{}]", of.name, of.element, dims.join(", "))
        };
        self.inputs.iter().try_for_each(|input| boundary(f, "input", input))?;
        for node in &self.nodes {
            write!(f, "{} = {}({})", node.outputs.join(", "), node.operator, node.inputs.join(", "))?;
            let attribute = |(name, value): &(&str, Attribute)| match value {
                Attribute::Int(value) => format!("{name}={value}"),
                Attribute::Float(value) => format!("{name}={value}"),
                Attribute::Ints(values) => format!("{name}={values:?}"),
                Attribute::Text(text) => format!("{name}={text}"),
                Attribute::Step { operator, .. } => format!("{name}={operator}"),
            };
            let attributes: Vec<String> = node.attributes.iter().map(attribute).collect();
            match attributes.is_empty() {
                true => writeln!(f)?,
                false => writeln!(f, " [{}]", attributes.join(", "))?,
            }
        }
        self.outputs.iter().try_for_each(|output| boundary(f, "output", output))
    }
}

impl OnnxModel {
    /// Returns the version of the operators.
    ///
    /// 21 or what was asked for, or what the model needs: 22 for bf16, 23 for FP4, 24 for scales in E8M0.
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// Returns the names of the inputs, in their order.
    ///
    /// What a runtime is given.
    pub fn input_names(&self) -> Vec<&str> {
        self.inputs.iter().map(|input| input.name.as_str()).collect()
    }

    /// Returns the names of the outputs, in their order.
    ///
    /// What a runtime gives back.
    pub fn output_names(&self) -> Vec<&str> {
        self.outputs.iter().map(|output| output.name.as_str()).collect()
    }

    /// Returns the operators with how many nodes each has, in alphabetical order.
    ///
    /// A look at what was written.
    pub fn operators(&self) -> Vec<(&'static str, usize)> {
        let mut counts = std::collections::BTreeMap::new();
        self.nodes.iter().for_each(|node| *counts.entry(node.operator).or_insert(0) += 1);
        counts.into_iter().collect()
    }

    /// Returns the types and shapes of stored values by their names, in the order of their use.
    ///
    /// Codes of weights are among them, with scales beside.
    pub fn stored(&self) -> impl Iterator<Item = (&str, ElementType, &[usize])> {
        self.initializers.iter().map(|stored| (stored.name.as_str(), stored.element, stored.dims.as_slice()))
    }

    /// Returns the bytes of a file that holds everything.
    ///
    /// Readers refuse one of 2 GiB; [`save`](OnnxModel::save) divides it.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.message(None).into_bytes()
    }

    /// Writes a file, and beside it `FILE.data` with the values of a model that has more than 1 GiB of them.
    ///
    /// # Errors
    ///
    /// [`OnnxError::Io`] with the path.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), OnnxError> {
        let path = path.as_ref();
        let io = |path: &Path| {
            let path = path.display().to_string();
            move |source| OnnxError::Io { path, source }
        };
        let bytes: usize = self.initializers.iter().map(|stored| stored.bytes.len()).sum();
        if bytes <= LARGE {
            return std::fs::write(path, self.to_bytes()).map_err(io(path));
        }
        let name = path.file_name().map_or_else(|| "model.onnx".into(), |name| name.to_string_lossy().into_owned());
        let name = format!("{name}.data");
        let beside = path.with_file_name(&name);
        let mut data = std::io::BufWriter::new(std::fs::File::create(&beside).map_err(io(&beside))?);
        for stored in &self.initializers {
            std::io::Write::write_all(&mut data, &stored.bytes).map_err(io(&beside))?;
        }
        std::io::Write::flush(&mut data).map_err(io(&beside))?;
        std::fs::write(path, self.message(Some(&name)).into_bytes()).map_err(io(path))
    }

    fn message(&self, data: Option<&str>) -> Message {
        let mut offset = 0;
        let initializers = self.initializers.iter().map(|stored| {
            let place = data.map(|file| (file, offset));
            offset += stored.bytes.len();
            stored.message(place)
        });
        let graph = Message::default()
            .messages(1, self.nodes.iter().map(Node::message))
            .text(2, "model")
            .messages(5, initializers)
            .messages(11, self.inputs.iter().map(Boundary::message))
            .messages(12, self.outputs.iter().map(Boundary::message));
        Message::default()
            .int(1, IR[usize::from(self.opset > 22)])
            .text(2, "burn-quant")
            .text(3, env!("CARGO_PKG_VERSION"))
            .message(7, graph)
            .message(8, Message::default().text(1, "").int(2, self.opset))
    }
}

impl Node {
    fn message(&self) -> Message {
        Message::default()
            .texts(1, &self.inputs)
            .texts(2, &self.outputs)
            .text(3, &self.name)
            .text(4, self.operator)
            .messages(5, self.attributes.iter().map(|(name, value)| value.message(name)))
    }
}

impl Attribute {
    fn message(&self, name: &str) -> Message {
        let message = Message::default().text(1, name);
        match self {
            Attribute::Float(value) => message.float(2, *value).int(20, 1),
            Attribute::Int(value) => message.int(3, *value).int(20, 2),
            Attribute::Text(value) => message.text(4, value).int(20, 3),
            Attribute::Ints(values) => message.ints(8, values.iter().copied()).int(20, 7),
            Attribute::Step { operator, element } => message.message(6, step(operator, *element)).int(20, 5),
        }
    }
}

/// The graph of a step of a loop.
fn step(operator: &'static str, element: ElementType) -> Message {
    let node = |operator: &'static str, inputs: &[&str], output: &str| {
        let inputs = inputs.iter().map(|input| input.to_string()).collect();
        Node { operator, name: output.into(), inputs, outputs: vec![output.into()], attributes: vec![] }.message()
    };
    let value = |name: &str| {
        let tensor = Message::default().message(1, Message::default().int(1, element as i64));
        Message::default().text(1, name).message(2, tensor)
    };
    Message::default()
        .messages(1, [node(operator, &["state", "element"], "next"), node("Identity", &["next"], "result")])
        .text(2, "step")
        .messages(11, ["state", "element"].map(value))
        .messages(12, ["next", "result"].map(value))
}

impl Initializer {
    /// The tensor, or where it is in another file.
    fn message(&self, place: Option<(&str, usize)>) -> Message {
        let message = Message::default().ints(1, self.dims.iter().map(|dim| *dim as i64)).int(2, self.element as i64);
        let message = message.text(8, &self.name);
        let Some((file, offset)) = place else { return message.bytes(9, &self.bytes) };
        let entry = |key: &str, value: &str| Message::default().text(1, key).text(2, value);
        let entries = [
            entry("location", file),
            entry("offset", &offset.to_string()),
            entry("length", &self.bytes.len().to_string()),
        ];
        message.messages(13, entries).int(14, 1)
    }
}

impl Boundary {
    fn message(&self) -> Message {
        let dim = |dim: &Dim| match dim {
            Dim::Fixed(size) => Message::default().int(1, *size as i64),
            Dim::Free(name) => Message::default().text(2, name),
        };
        let shape = Message::default().messages(1, self.dims.iter().map(dim));
        let tensor = Message::default().int(1, self.element as i64).message(2, shape);
        Message::default().text(1, &self.name).message(2, Message::default().message(1, tensor))
    }
}
