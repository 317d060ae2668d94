//! Packed tensors: codes, scales, and what they are unpacked to, bit for bit.

use burn::tensor::DType;
use burn_quant::config::{AxisGroups, Format};
use burn_quant::ops::Groups;
use burn_quant::ops::numerics::packed::{fp8, int4, int8, mx, nvfp4};
use half::bf16;

use crate::index::{Case, Golden, Outcome, bitwise};

/// A case of one tensor.
pub(crate) fn run(golden: &Golden, case: &Case) -> Outcome {
    let Some(format) = case.config["format"].as_str() else {
        return Outcome::NotYet("a packed tensor without a format".into());
    };
    if let Err(why) = case.expects_only(&["packed", "scale", "double_scale", "dequantized"]) {
        return Outcome::Failed(why);
    }
    let source = Source::new(golden, case);
    let checked = match format {
        "int8" | "fp8_e4m3" => source.bytes(format),
        "int4" => source.int4(),
        "nvfp4" => source.nvfp4(),
        "mxfp4" => source.mxfp4(),
        "mxfp8" => source.mxfp8(),
        other => Err(format!("packed {other} is not known")),
    };
    checked.into()
}

/// Values that the reference packed.
pub(crate) struct Source<'a> {
    pub(crate) golden: &'a Golden,
    pub(crate) case: &'a Case,
    /// The layer of a model, with a slash before it; empty for a tensor.
    pub(crate) layer: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) x: Vec<f32>,
    pub(crate) bf16: bool,
    /// How its groups are cut, of a model.
    pub(crate) axes: Option<[AxisGroups; 2]>,
}

pub(crate) type Checked = Result<(), String>;
type Mx = (Vec<u8>, Vec<u8>, Vec<f32>);

impl<'a> Source<'a> {
    fn new(golden: &'a Golden, case: &'a Case) -> Self {
        let data = golden.data(case, case.input("x"));
        let (shape, bf16) = (data.shape().to_vec(), data.dtype() == DType::BF16);
        let x = golden.values(case, case.input("x"));
        Self { golden, case, layer: String::new(), shape, x, bf16, axes: None }
    }

    /// The reference computes scales, quotients and products of bf16 tensors in bf16; burn-quant has f32, and is handed
    /// those.
    fn narrow(&self, x: f32) -> f32 {
        if self.bf16 { bf16::from_f32(x).to_f32() } else { x }
    }

    fn block(&self, axis: &str) -> Option<usize> {
        if let Some(axes) = &self.axes {
            let axis = if axis == "-1" { &axes[1] } else { &axes[0] };
            return if let AxisGroups::Blocks(size) = axis { Some(*size) } else { None };
        }
        self.case.config["block_sizes"].get(axis)?.as_u64().map(|size| size as usize)
    }

    /// What is expected under a name, if it is: of the layers of a model nothing is unpacked.
    fn key(&self, name: &str) -> Option<&str> {
        let key = self.case.expected.get(&format!("{name}{}", self.layer));
        assert!(key.is_some() || name == "dequantized" && self.axes.is_some(), "{}: no {name}", self.case.name);
        key.map(String::as_str)
    }

    fn expect(&self, name: &str, found: &[f32]) -> Checked {
        let Some(key) = self.key(name) else { return Ok(()) };
        bitwise(name, found, &self.golden.values(self.case, key))
    }

    /// Bytes as they are expected.
    pub(crate) fn expected_bytes(&self, name: &str) -> Vec<u8> {
        let key = self.key(name).expect("bytes of this name");
        self.golden.data(self.case, key).as_bytes().to_vec()
    }

    fn expect_bytes(&self, name: &str, found: &[u8]) -> Checked {
        let expected = self.expected_bytes(name);
        let others = expected.iter().zip(found).filter(|(expected, found)| expected != found).count();
        match (expected.len() == found.len(), others) {
            (true, 0) => Ok(()),
            (true, others) => Err(format!("{name}{}: {others} of {} bytes are others", self.layer, found.len())),
            (false, _) => Err(format!("{name}{}: {} bytes, expected {}", self.layer, found.len(), expected.len())),
        }
    }

    /// Formats of a byte a code and a scale per tensor, row, block or rectangle.
    pub(crate) fn bytes(&self, format: &str) -> Checked {
        use burn_quant::config::AxisGroups::{Blocks, Each, Whole};
        let axes = match (self.block("-1"), self.block("-2")) {
            _ if self.axes.is_some() => self.axes.expect("axes of a model"),
            (Some(columns), Some(rows)) => [Blocks(rows), Blocks(columns)],
            (Some(columns), None) => [Each, Blocks(columns)],
            _ if self.case.config["axis"] == 0 => [Each, Whole],
            _ => [Whole, Whole],
        };
        let groups = Groups::new(&self.shape, &axes);
        let of: Vec<usize> = (0..self.x.len()).map(|i| groups.of_element(i)).collect();
        let mut scales = vec![0f32; groups.len()];
        self.x.iter().zip(&of).for_each(|(x, &group)| scales[group] = scales[group].max(x.abs()));
        let scale = if format == "int8" { int8::scale } else { fp8::scale };
        scales.iter_mut().for_each(|amax| *amax = self.narrow(scale(*amax)));
        self.expect("scale", &scales)?;

        let (mut packed, mut y) = (vec![0u8; self.x.len()], vec![0f32; self.x.len()]);
        for (i, (x, &group)) in self.x.iter().zip(&of).enumerate() {
            let scale = scales[group];
            // the quotient is rounded to bf16 before it is rounded to a code
            let (x, unit) = if self.bf16 { (self.narrow(x / scale), 1.0) } else { (*x, scale) };
            let error = |e: burn_quant::ops::numerics::packed::PackError| e.to_string();
            if format == "int8" {
                let mut code = [0i8];
                int8::pack(&[x], unit, &mut code).map_err(error)?;
                int8::unpack(&code, scale, &mut y[i..=i]).map_err(error)?;
                packed[i] = code[0] as u8;
            } else {
                fp8::pack(&[x], unit, &mut packed[i..=i]).map_err(error)?;
                fp8::unpack(&packed[i..=i], scale, &mut y[i..=i]).map_err(error)?;
            }
            y[i] = self.narrow(y[i]);
        }
        self.expect_bytes("packed", &packed)?;
        self.expect("dequantized", &y)
    }

    pub(crate) fn int4(&self) -> Checked {
        let block = self.block("-1").expect("a block");
        let mut scales = vec![0f32; self.x.len().div_ceil(block)];
        let error = |e: burn_quant::ops::numerics::packed::PackError| e.to_string();
        int4::scales(&self.x, block, &mut scales).map_err(error)?;
        if self.bf16 {
            let amax = self.x.chunks(block).map(|x| x.iter().fold(0f32, |amax, x| amax.max(x.abs())));
            scales = amax.map(|amax| self.narrow(7.0 * self.narrow(1.0 / amax))).collect();
        }
        self.expect("scale", &scales)?;
        let (mut packed, mut y) = (vec![0u8; self.x.len() / 2], vec![0f32; self.x.len()]);
        let units: Vec<f32> = self.x.iter().enumerate().map(|(i, x)| self.narrow(x * scales[i / block])).collect();
        let ones = vec![1.0; scales.len()];
        let (x, of_x) = if self.bf16 { (&units, &ones) } else { (&self.x, &scales) };
        int4::pack(x, block, of_x, &mut packed).map_err(error)?;
        int4::unpack(&packed, block, &scales, &mut y).map_err(error)?;
        self.expect_bytes("packed", &packed)?;
        self.expect("dequantized", &y.iter().map(|y| self.narrow(*y)).collect::<Vec<_>>())
    }

    pub(crate) fn nvfp4(&self) -> Checked {
        let block = self.block("-1").expect("a block");
        let error = |e: burn_quant::ops::numerics::packed::PackError| e.to_string();
        let tensor = nvfp4::tensor_scale(self.x.iter().fold(0f32, |amax, x| amax.max(x.abs())));
        self.expect("double_scale", &[tensor])?;
        let mut scales = vec![0u8; self.x.len() / block];
        nvfp4::scales(&self.x, block, tensor, &mut scales).map_err(error)?;
        self.expect_bytes("scale", &scales)?;
        let (mut packed, mut y) = (vec![0u8; self.x.len() / 2], vec![0f32; self.x.len()]);
        nvfp4::pack(&self.x, block, &scales, tensor, &mut packed).map_err(error)?;
        nvfp4::unpack(&packed, block, &scales, tensor, &mut y).map_err(error)?;
        self.expect_bytes("packed", &packed)?;
        self.expect("dequantized", &y.iter().map(|y| self.narrow(*y)).collect::<Vec<_>>())
    }

    pub(crate) fn mxfp8(&self) -> Checked {
        let (scales, codes, y) = self.mx(Format::E4M3)?;
        self.expect_bytes("scale", &scales)?;
        // the reference keeps the sign of zero, which is equal to zero
        let signless = |bytes: &[u8]| bytes.iter().map(|b| if *b == 0x80 { 0 } else { *b }).collect::<Vec<u8>>();
        if signless(&self.expected_bytes("packed")) != codes {
            return Err(format!("packed{}: other bytes", self.layer));
        }
        self.expect("dequantized", &y)
    }

    /// The reference packs a value halfway between two codes as the one nearer zero, and zero with a negative sign; its
    /// own fake quantization, and burn-quant's packing, take the even code. Everything else is equal.
    pub(crate) fn mxfp4(&self) -> Checked {
        let (scales, codes, y) = self.mx(Format::E2M1)?;
        self.expect_bytes("scale", &scales)?;
        let error = |e: burn_quant::ops::numerics::packed::PackError| e.to_string();
        let mut theirs = vec![0u8; codes.len()];
        mx::unpack_nibbles(&self.expected_bytes("packed"), &mut theirs).map_err(error)?;
        let mut dequantized = vec![0f32; codes.len()];
        let block = self.block("-1").expect("a block");
        mx::decode(Format::E2M1, &theirs, block, &scales, &mut dequantized).map_err(error)?;
        self.expect("dequantized", &dequantized)?;
        for (i, (ours, theirs)) in codes.iter().zip(&theirs).enumerate() {
            let same = ours == theirs || (*ours == 0 && *theirs == 8);
            // halfway: as far from one as from the other
            let tie = (self.x[i] - y[i]).abs() == (self.x[i] - dequantized[i]).abs();
            if !same && !tie {
                return Err(format!("packed: code {ours} at {i}, expected {theirs}"));
            }
            if same && y[i] != dequantized[i] {
                return Err(format!("dequantized: {} at {i}, expected {}", y[i], dequantized[i]));
            }
        }
        Ok(())
    }

    /// Scales, codes, and the values they stand for.
    fn mx(&self, format: Format) -> Result<Mx, String> {
        let error = |e: burn_quant::ops::numerics::packed::PackError| e.to_string();
        let block = self.block("-1").expect("a block");
        let mut scales = vec![0u8; self.x.len() / block];
        let (mut codes, mut y) = (vec![0u8; self.x.len()], vec![0f32; self.x.len()]);
        mx::scales(format, &self.x, block, &mut scales).map_err(error)?;
        mx::encode(format, &self.x, block, &scales, &mut codes).map_err(error)?;
        mx::decode(format, &codes, block, &scales, &mut y).map_err(error)?;
        Ok((scales, codes, y))
    }
}
