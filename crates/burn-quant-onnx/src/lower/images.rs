//! Images: resized, cut into windows, sampled.

use burn_quant_graph::ir::{
    DeformConv2dOpIr, GridSample2dOpIr, GridSamplePaddingModeIr, InterpolateModeIr, InterpolateOpIr, TensorIr,
    Unfold4dOpIr,
};

use super::modules::{Window, both};
use super::{Lowering, ints};
use crate::OnnxError;
use crate::model::Attribute;

impl Lowering<'_> {
    pub(super) fn interpolate(&mut self, op: &InterpolateOpIr) -> Result<(), OnnxError> {
        for length in &self.graph.lengths(&op.x)[2..] {
            self.fixed(length, "it is resized")?;
        }
        let coordinates = if op.options.align_corners { "align_corners" } else { "half_pixel" };
        let (mode, coordinates, rounding) = match &op.options.mode {
            InterpolateModeIr::Nearest => {
                let sizes: Vec<(usize, usize)> = op.x.shape[2..].iter().copied().zip(op.output_size).collect();
                if sizes.iter().any(|(input, output)| nearest(*input, *output) != resized(*input, *output)) {
                    return self.nearest_by_places(op, &sizes);
                }
                ("nearest", "asymmetric", Some("floor"))
            }
            InterpolateModeIr::Bilinear => ("linear", coordinates, None),
            InterpolateModeIr::Bicubic => ("cubic", coordinates, None),
            mode @ (InterpolateModeIr::NearestExact | InterpolateModeIr::Lanczos3) => {
                return Err(self.refused(format!("{mode:?} is not written; resize by Nearest, Bilinear or Bicubic")));
            }
        };
        let (x, sizes) = (self.value(&op.x)?, self.shape_of(&op.out)?);
        let mut attributes =
            vec![("mode", Attribute::Text(mode)), ("coordinate_transformation_mode", Attribute::Text(coordinates))];
        attributes.extend(rounding.map(|rounding| ("nearest_mode", Attribute::Text(rounding))));
        if mode == "cubic" {
            attributes.push(("cubic_coeff_a", Attribute::Float(-0.75))); // burn's
        }
        // no region, no scales
        self.emit_as(&op.out, "Resize", vec![x, String::new(), String::new(), sizes], attributes);
        Ok(())
    }

    /// Reads the places of the nearest pixels where those of runtimes are others.
    fn nearest_by_places(&mut self, op: &InterpolateOpIr, sizes: &[(usize, usize)]) -> Result<(), OnnxError> {
        let mut value = self.value(&op.x)?;
        for (axis, (input, output)) in sizes.iter().enumerate() {
            let places: Vec<i64> = nearest(*input, *output).into_iter().map(|place| place as i64).collect();
            let places = self.integers("places", &places);
            value = self.emit("Gather", vec![value, places], vec![("axis", Attribute::Int(axis as i64 + 2))]);
        }
        self.names.insert(op.out.id, value);
        Ok(())
    }

    /// Windows of an image as columns `[batch, channels · height · width of a window, windows]`.
    pub(super) fn unfold4d(&mut self, op: &Unfold4dOpIr) -> Result<(), OnnxError> {
        for length in &self.graph.lengths(&op.x)[2..] {
            self.fixed(length, "windows are taken of it")?;
        }
        let (mut value, options) = (self.value(&op.x)?, &op.options);
        if options.padding != [0, 0] {
            let [height, width] = options.padding.map(|padding| padding as i64);
            let pads = self.integers("pads", &[0, 0, height, width, 0, 0, height, width]);
            value = self.emit("Pad", vec![value, pads], vec![]);
        }
        // [batch, channels, kernel, windows] of rows, then the same of columns
        for (i, axis) in [(0, 2), (1, 4)] {
            let reach = options.dilation[i] * (op.kernel_size[i] - 1) + 1;
            let windows = (op.x.shape[i + 2] + 2 * options.padding[i] - reach) / options.stride[i] + 1;
            let place = |tap: usize, window: usize| (tap * options.dilation[i] + window * options.stride[i]) as i64;
            let places: Vec<i64> =
                (0..op.kernel_size[i]).flat_map(|tap| (0..windows).map(move |window| place(tap, window))).collect();
            let places = self.table_of_places("windows", &[op.kernel_size[i], windows], &places);
            value = self.emit("Gather", vec![value, places], vec![("axis", Attribute::Int(axis))]);
        }
        value = self.emit("Transpose", vec![value], vec![("perm", ints([0, 1, 2, 4, 3, 5]))]);
        let shape = self.target(&[], &self.graph.lengths(&op.out))?;
        self.emit_as(&op.out, "Reshape", vec![value, shape], vec![]);
        Ok(())
    }

    pub(super) fn grid_sample(&mut self, op: &GridSample2dOpIr) -> Result<(), OnnxError> {
        let mode = match &op.options.mode {
            InterpolateModeIr::Bilinear => "linear",
            InterpolateModeIr::Nearest => "nearest",
            mode => return Err(self.refused(format!("{mode:?} is not written; sample by Nearest or Bilinear"))),
        };
        let padding = match &op.options.padding_mode {
            GridSamplePaddingModeIr::Zeros => "zeros",
            GridSamplePaddingModeIr::Border => "border",
            GridSamplePaddingModeIr::Reflection => "reflection",
        };
        let inputs = vec![self.value(&op.tensor)?, self.value(&op.grid)?];
        let attributes = vec![
            ("mode", Attribute::Text(mode)),
            ("padding_mode", Attribute::Text(padding)),
            ("align_corners", Attribute::Int(op.options.align_corners.into())),
        ];
        self.emit_as(&op.out, "GridSample", inputs, attributes);
        Ok(())
    }

    pub(super) fn deformable(&mut self, op: &DeformConv2dOpIr) -> Result<(), OnnxError> {
        let mut inputs = vec![self.value(&op.x)?, self.value(&op.weight)?, self.value(&op.offset)?];
        for tensor in [&op.bias, &op.mask] {
            inputs.push(match tensor {
                Some(tensor) => self.value(tensor)?,
                None => String::new(),
            });
        }
        while inputs.last().is_some_and(String::is_empty) {
            inputs.pop();
        }
        let window = Window {
            kernel: op.weight.shape[2..].to_vec(),
            stride: op.options.stride.to_vec(),
            padding: both(&op.options.padding),
            dilation: op.options.dilation.to_vec(),
        };
        let mut attributes = window.attributes();
        attributes.push(("group", Attribute::Int(op.options.weight_groups as i64)));
        attributes.push(("offset_group", Attribute::Int(op.options.offset_groups as i64)));
        self.emit_as(&op.out, "DeformConv", inputs, attributes);
        Ok(())
    }

    /// Maxima, and where they are in their plane: ONNX counts from the beginning of the batch.
    pub(super) fn max_pool_with_places(
        &mut self,
        x: &TensorIr,
        [out, out_places]: [&TensorIr; 2],
        window: &Window,
        ceil: bool,
    ) -> Result<(), OnnxError> {
        for length in &self.graph.lengths(x)[2..] {
            self.fixed(length, "places are counted in it")?;
        }
        let value = self.value(x)?;
        let (maxima, places) = (self.fresh("MaxPool"), self.fresh("MaxPool.indices"));
        let mut attributes = window.attributes();
        attributes.push(("ceil_mode", Attribute::Int(ceil.into())));
        self.node("MaxPool", vec![value], vec![maxima.clone(), places.clone()], attributes);
        self.names.insert(out.id, maxima);
        let plane = self.integers("plane", &[x.shape[2..].iter().product::<usize>() as i64]);
        let places = self.emit("Mod", vec![places, plane], vec![]);
        self.places(places, out_places)
    }
}

/// The pixels that burn takes, which multiplies with a ratio in f64.
fn nearest(input: usize, output: usize) -> Vec<usize> {
    let ratio = input as f64 / output as f64;
    (0..output).map(|place| ((place as f64 * ratio) as usize).min(input - 1)).collect()
}

/// Those that runtimes take, which divide by a scale in f32: of 3 pixels resized to 147 they take other ones.
fn resized(input: usize, output: usize) -> Vec<usize> {
    let scale = output as f32 / input as f32;
    (0..output).map(|place| ((place as f32 / scale) as usize).min(input - 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_pixels_are_burns() {
        assert_eq!(nearest(2, 5), [0, 0, 0, 1, 1]);
        assert_eq!(nearest(5, 2), [0, 2]);
        assert_eq!(nearest(7, 14), resized(7, 14));
        // 49 · 3 / 147 is 1, and a little less as a product with a ratio in f64
        assert_eq!((nearest(3, 147)[49], resized(3, 147)[49]), (0, 1));
    }
}
