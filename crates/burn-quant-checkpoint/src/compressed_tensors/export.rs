//! What a layer is to compressed-tensors: its scheme, or why it has none.

use burn_quant_numerics::Minifloat;

use super::scheme::{Args, Dynamic, Format, ScaleType, Scheme, Strategy};
use crate::error::shape;
use crate::{CheckpointError, Element, Inputs, NotExportable, Offset, QuantizedLayer, QuantizedMatrix, ScaleKind};

impl Format {
    /// Returns the format that the package itself would choose for a layer.
    ///
    /// Integers are packed, unless inputs are rounded to integers too; E4M3 is `float-quantized`, also of float inputs.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant_checkpoint::compressed_tensors::Format;
    /// use burn_quant_checkpoint::{Dtype, Element, Inputs, Offset, QuantizedLayer, QuantizedMatrix, ScaleKind};
    ///
    /// let weight = QuantizedMatrix {
    ///     outputs: 1,
    ///     inputs: 2,
    ///     element: Element::Int(4),
    ///     codes: vec![7, 0xf8], // 7, −8
    ///     block_outputs: 1,
    ///     block_inputs: 2,
    ///     scales: vec![0.5],
    ///     scale_kind: ScaleKind::Float,
    ///     offset: Offset::None,
    ///     then_e4m3: None,
    ///     dtype: Dtype::F32,
    /// };
    /// let layer = QuantizedLayer { weight, inputs: Inputs::Float, pre_quant_scale: None, low_rank: None };
    /// assert_eq!(Format::for_layer(&layer), Format::PackQuantized);
    /// ```
    pub fn for_layer(layer: &QuantizedLayer) -> Self {
        let inputs = match layer.inputs {
            Inputs::Static { element, .. } | Inputs::PerToken { element } => Some(element),
            _ => None,
        };
        match (&layer.weight.scale_kind, layer.weight.element) {
            (ScaleKind::E8M0(_), Element::Float(Minifloat::E2M1)) => Format::Mxfp4PackQuantized,
            (ScaleKind::E8M0(_), Element::Float(Minifloat::E2M3)) => Format::Mxfp6PackQuantized,
            (ScaleKind::E8M0(_), Element::Float(_)) => Format::Mxfp8Quantized,
            (ScaleKind::E4M3 { .. }, _) | (_, Element::Float(Minifloat::E2M1)) => Format::Nvfp4PackQuantized,
            (_, Element::Float(_)) => Format::FloatQuantized,
            _ if matches!(inputs, Some(Element::Int(_))) => Format::IntQuantized,
            _ => Format::PackQuantized,
        }
    }
}

impl Scheme {
    /// Returns the scheme that a layer is written with in a format.
    ///
    /// Codes and scales are never changed, so a layer has a scheme only if the format holds them as they are.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::NotExportable`] with the layer and the reason, [`CheckpointError::Shape`] for a matrix whose
    /// codes or scales are not as many as its shape and blocks say, [`CheckpointError::Element`] for codes of too many
    /// bits.
    pub fn of(name: &str, layer: &QuantizedLayer, format: Format) -> Result<Self, CheckpointError> {
        consistent(name, &layer.weight)?;
        let refuse = |reason| CheckpointError::NotExportable { name: name.into(), format: format.name(), reason };
        if layer.pre_quant_scale.is_some() {
            return Err(refuse(NotExportable::PreQuantScale));
        }
        if layer.low_rank.is_some() {
            return Err(refuse(NotExportable::LowRank));
        }
        let weights = weights(&layer.weight, format).map_err(refuse)?;
        let inputs = inputs(&layer.inputs).map_err(refuse)?;
        Ok(Self { format, weights, inputs, outputs: None })
    }
}

/// As many codes, scales and zero points as the shape and the blocks say.
fn consistent(name: &str, matrix: &QuantizedMatrix) -> Result<(), CheckpointError> {
    let wanted = |count: [usize; 2]| count[0].checked_mul(count[1]);
    let scales = wanted(matrix.blocks());
    let stored = match &matrix.scale_kind {
        ScaleKind::Float => scales,
        ScaleKind::E8M0(codes) | ScaleKind::E4M3 { codes, .. } => Some(codes.len()),
    };
    let offsets = match &matrix.offset {
        Offset::None => scales,
        Offset::ZeroPoints(values) | Offset::Minima(values) => Some(values.len()),
    };
    let is_consistent = matrix.outputs > 0
        && matrix.inputs > 0
        && wanted([matrix.outputs, matrix.inputs]) == Some(matrix.codes.len())
        && scales == Some(matrix.scales.len())
        && stored == scales
        && offsets == scales;
    if is_consistent {
        return codes_fit(name, matrix);
    }
    let expected = format!(
        "codes of [{}, {}] and a scale for each block of [{}, {}]",
        matrix.outputs, matrix.inputs, matrix.block_outputs, matrix.block_inputs
    );
    Err(shape(name, expected, &[matrix.codes.len(), matrix.scales.len()]))
}

/// Whether codes have no more bits than their element.
fn codes_fit(name: &str, matrix: &QuantizedMatrix) -> Result<(), CheckpointError> {
    let bits = u32::from(matrix.element.bits()).clamp(1, 8);
    let fits = |code: &u8| match matrix.element {
        Element::Int(_) => (*code as i8) >> (bits - 1) == (*code as i8) >> 7,
        _ => u32::from(*code) >> bits == 0,
    };
    match matrix.codes.iter().find(|code| !fits(code)) {
        None => Ok(()),
        Some(code) => Err(CheckpointError::Element {
            name: name.into(),
            expected: format!("codes of {bits} bits"),
            found: if matches!(matrix.element, Element::Int(_)) { (*code as i8).into() } else { (*code).into() },
        }),
    }
}

/// How the weight is quantized.
fn weights(matrix: &QuantizedMatrix, format: Format) -> Result<Args, NotExportable> {
    if matrix.then_e4m3.is_some() {
        let found = "second rounding to E4M3".into();
        return Err(NotExportable::Format { found, known: "one rounding" });
    }
    if matches!(matrix.offset, Offset::Minima(_)) {
        return Err(NotExportable::Format { found: "minima".into(), known: "zero points" });
    }
    if let Some(found) = matrix.scales.iter().find(|scale| !scale.is_finite()) {
        return Err(NotExportable::NotANumber { what: "a scale", found: *found });
    }
    let (kind, element) = (&matrix.scale_kind, matrix.element);
    let wrong = |known| {
        let scales = match kind {
            ScaleKind::Float => "floats",
            ScaleKind::E8M0(_) => "powers of two",
            ScaleKind::E4M3 { .. } => "E4M3 numbers",
        };
        Err(NotExportable::Format { found: format!("{element:?} under {scales}"), known })
    };
    let is_integer = matches!(element, Element::Int(2..=8) | Element::Uint(2..=8));
    let is_e4m3 = element == Element::Float(Minifloat::E4M3);
    let is_float = matches!(kind, ScaleKind::Float);
    let mx = |wanted: Minifloat| matches!(kind, ScaleKind::E8M0(_)) && element == Element::Float(wanted);
    let scale = match format {
        Format::IntQuantized | Format::PackQuantized if is_integer && is_float => ScaleType::Float,
        Format::FloatQuantized if is_e4m3 && is_float => ScaleType::Float,
        Format::NaiveQuantized if (is_integer || is_e4m3) && is_float => ScaleType::Float,
        Format::Nvfp4PackQuantized
            if matches!(kind, ScaleKind::E4M3 { .. }) && element == Element::Float(Minifloat::E2M1) =>
        {
            ScaleType::E4M3
        }
        Format::Mxfp4PackQuantized if mx(Minifloat::E2M1) => ScaleType::E8M0,
        Format::Mxfp6PackQuantized if mx(Minifloat::E2M3) => ScaleType::E8M0,
        Format::Mxfp8Quantized if mx(Minifloat::E4M3) => ScaleType::E8M0,
        Format::IntQuantized | Format::PackQuantized => return wrong("integers of 2 to 8 bits under floats"),
        Format::FloatQuantized => return wrong("E4M3 under floats"),
        Format::NaiveQuantized => return wrong("integers and E4M3 under floats"),
        Format::Nvfp4PackQuantized => return wrong("E2M1 under E4M3 numbers"),
        Format::Mxfp4PackQuantized => return wrong("E2M1 under powers of two"),
        Format::Mxfp6PackQuantized => return wrong("E2M3 under powers of two"),
        Format::Mxfp8Quantized => return wrong("E4M3 under powers of two"),
    };
    let has_zeros = matches!(matrix.offset, Offset::ZeroPoints(_)) || matches!(element, Element::Uint(_));
    let symmetric = !has_zeros;
    if has_zeros && !is_integer {
        return Err(NotExportable::Format { found: "floats around zero points".into(), known: "symmetric floats" });
    }
    let strategy = strategy(matrix, format)?;
    let element = if let Element::Uint(bits) = element { Element::Int(bits) } else { element };
    Ok(Args { element, symmetric, strategy, dynamic: Dynamic::Static, scale })
}

/// Which elements share a scale.
fn strategy(matrix: &QuantizedMatrix, format: Format) -> Result<Strategy, NotExportable> {
    let (rows, columns) = (matrix.block_outputs.max(1), matrix.block_inputs.max(1));
    let found = columns;
    let ragged = !matrix.inputs.is_multiple_of(columns);
    let is_row = columns >= matrix.inputs;
    let ragged =
        NotExportable::Ragged { axis: "inputs", len: matrix.inputs, block: columns }.some_if(ragged && !is_row);
    match format {
        Format::Nvfp4PackQuantized
        | Format::Mxfp4PackQuantized
        | Format::Mxfp6PackQuantized
        | Format::Mxfp8Quantized => {
            let is_nvfp4 = format == Format::Nvfp4PackQuantized;
            let (size, expected) = if is_nvfp4 { (16, "16 in a row") } else { (32, "32 in a row") };
            match ragged {
                _ if rows > 1 => Err(NotExportable::Block { found: rows.saturating_mul(columns), expected }),
                _ if columns != size => Err(NotExportable::Block { found, expected }),
                // a single block that is not full
                None if !matrix.inputs.is_multiple_of(size) => {
                    Err(NotExportable::Ragged { axis: "inputs", len: matrix.inputs, block: size })
                }
                Some(ragged) => Err(ragged),
                None if is_nvfp4 => Ok(Strategy::TensorGroup(size)),
                None => Ok(Strategy::Group(size)),
            }
        }
        _ if rows == 1 && is_row => Ok(Strategy::Channel),
        _ if rows >= matrix.outputs && is_row => Ok(Strategy::Tensor),
        Format::PackQuantized if rows > 1 => {
            let found = rows.saturating_mul(columns);
            Err(NotExportable::Block { found, expected: "one row, or all of the matrix" })
        }
        _ if rows > 1 => Ok(Strategy::Block([rows, columns])),
        _ => ragged.map_or(Ok(Strategy::Group(columns)), Err),
    }
}

impl NotExportable {
    fn some_if(self, is_so: bool) -> Option<Self> {
        is_so.then_some(self)
    }
}

/// How inputs are quantized.
fn inputs(inputs: &Inputs) -> Result<Option<Args>, NotExportable> {
    let known = |element: Element| match element {
        Element::Int(2..=8) | Element::Float(Minifloat::E4M3 | Minifloat::E2M3 | Minifloat::E2M1) => Ok(element),
        _ => {
            let found = format!("inputs in {element:?}");
            Err(NotExportable::Format { found, known: "integers of 2 to 8 bits, E4M3, E2M3, E2M1" })
        }
    };
    let number = |what, found: f32| {
        if found.is_finite() { Ok(()) } else { Err(NotExportable::NotANumber { what, found }) }
    };
    let args = |element, strategy, dynamic, scale| Some(Args { element, symmetric: true, strategy, dynamic, scale });
    Ok(match *inputs {
        Inputs::Float => None,
        Inputs::Static { element, scale } => {
            number("the scale of its inputs", scale)?;
            args(known(element)?, Strategy::Tensor, Dynamic::Static, ScaleType::Float)
        }
        Inputs::Dynamic { .. } => {
            let found = "inputs under one scale that is taken from all of them".into();
            return Err(NotExportable::Format { found, known: "static scales, scales of tokens, and blocks" });
        }
        Inputs::PerToken { element } => args(known(element)?, Strategy::Token, Dynamic::Dynamic, ScaleType::Float),
        Inputs::Mx { element, block } => {
            args(known(element)?, Strategy::Group(block), Dynamic::Dynamic, ScaleType::E8M0)
        }
        Inputs::Nvfp4 { tensor_scale } => {
            number("the reciprocal scale of its inputs", tensor_scale.recip())?;
            let element = Element::Float(Minifloat::E2M1);
            args(element, Strategy::TensorGroup(16), Dynamic::Local, ScaleType::E4M3)
        }
    })
}
