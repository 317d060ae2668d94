//! A transposed convolution whose kernel is codes and scales, and whose input is INT8.
//!
//! ```text
//! x [n, in, z, y, x] ──► · W [in / groups, out·k] of each pixel ──► each product added where its element falls
//! ```
//!
//! The product is a convolution of single pixels, [`packed_conv`](crate::packed_conv()), in integers on the CPU; `flex`
//! adds its outputs up. A pixel times an offset that all inputs of a column share is the sum of the pixel's channels,
//! times the offset. Channels with kernels of their own have nothing to sum: their values are multiplied in f32.
//! Elsewhere, and under autodiff, the input is rounded and the kernel unpacked, and burn's transposed convolution runs.
//! A device that captures records one node.
//!
//! Source: Dumoulin and Visin 2016, arXiv:1603.07285, §4: the gradient of a convolution with respect to its input.

#[cfg(feature = "capture")]
pub(crate) mod capture;
#[cfg(feature = "flex")]
mod flex;

use burn::backend::ops::ConvTransposeOptions;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::module::{conv_transpose2d, conv_transpose3d};
use burn::tensor::{DType, Tensor};

use crate::packed_conv::{convolves_integers, rounded, three};
use crate::packed_linear::int8_rounding;
use crate::{Activations, Call, PackedLayout, PackedScales, PackedTensor};

/// The geometry of a transposed convolution over one, two or three axes.
///
/// Axes that an image does not have count as one of length 1 before the others.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedConvTranspose {
    axes: usize,
    kernel: [usize; 3],
    options: ConvTransposeOptions<3>,
}

impl PackedConvTranspose {
    /// Creates the geometry of a kernel with a stride of 1, no padding, and one group.
    ///
    /// # Panics
    ///
    /// If there are no axes or more than three.
    pub fn new(kernel: &[usize]) -> Self {
        let options = ConvTransposeOptions::new([1; 3], [0; 3], [0; 3], [1; 3], 1);
        Self { axes: kernel.len(), kernel: three(kernel, 1), options }
    }

    /// Sets the distance in the result between neighbours of the input.
    ///
    /// As many as the kernel has axes; none is zero.
    pub fn with_stride(mut self, stride: &[usize]) -> Self {
        self.options.stride = three(stride, 1);
        self
    }

    /// Sets what is cut off before and after each axis of the result.
    ///
    /// The padding of the convolution that this one is the transpose of.
    pub fn with_padding(mut self, padding: &[usize]) -> Self {
        self.options.padding = three(padding, 0);
        self
    }

    /// Sets what is added after each axis of the result.
    ///
    /// Nothing but the bias falls there, unless the padding cut it off.
    pub fn with_padding_out(mut self, padding_out: &[usize]) -> Self {
        self.options.padding_out = three(padding_out, 0);
        self
    }

    /// Sets the distance between elements of the kernel.
    ///
    /// 1 for neighbours; none is zero.
    pub fn with_dilation(mut self, dilation: &[usize]) -> Self {
        self.options.dilation = three(dilation, 1);
        self
    }

    /// Sets the number of groups of channels.
    ///
    /// Outputs of a group take its channels only.
    pub fn with_groups(mut self, groups: usize) -> Self {
        self.options.groups = groups;
        self
    }

    /// Returns the elements of the kernel along each axis.
    ///
    /// One number for each axis.
    pub fn kernel(&self) -> &[usize] {
        &self.kernel[3 - self.axes..]
    }

    /// Returns the distance in the result between neighbours of the input.
    ///
    /// One number for each axis.
    pub fn stride(&self) -> &[usize] {
        &self.options.stride[3 - self.axes..]
    }

    /// Returns what is cut off before and after each axis.
    ///
    /// One number for each axis.
    pub fn padding(&self) -> &[usize] {
        &self.options.padding[3 - self.axes..]
    }

    /// Returns what is added after each axis.
    ///
    /// One number for each axis.
    pub fn padding_out(&self) -> &[usize] {
        &self.options.padding_out[3 - self.axes..]
    }

    /// Returns the distance between elements of the kernel.
    ///
    /// One number for each axis.
    pub fn dilation(&self) -> &[usize] {
        &self.options.dilation[3 - self.axes..]
    }

    /// Returns the number of groups of channels.
    ///
    /// One unless it was set.
    pub fn groups(&self) -> usize {
        self.options.groups
    }

    /// The lengths of the axes of the result; `None` if more is cut off than there is.
    fn output(&self, input: [usize; 3]) -> Option<[usize; 3]> {
        let ConvTransposeOptions { stride, padding, padding_out, dilation, .. } = &self.options;
        let mut output = [0; 3];
        for (axis, output) in output.iter_mut().enumerate() {
            let reach = input[axis].checked_sub(1)? * stride[axis] + dilation[axis] * (self.kernel[axis] - 1) + 1;
            *output = (reach + padding_out[axis]).checked_sub(2 * padding[axis])?;
        }
        Some(output)
    }
}

/// What the kernel is told besides its tensors.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(not(feature = "flex"), allow(dead_code))]
pub struct PackedConvTransposeCall {
    /// What the words mean.
    pub layout: PackedLayout,
    /// The geometry.
    pub conv: PackedConvTranspose,
    /// Whether a bias is added.
    pub has_bias: bool,
    /// Whether each column of the matrix lies around an offset.
    pub has_offsets: bool,
}

impl PackedConvTransposeCall {
    /// Returns how an image of a shape is rounded before it meets the kernel.
    ///
    /// To INT8 with one range.
    pub fn rounding(&self, shape: &[usize]) -> Call {
        int8_rounding(shape)
    }
}

/// The backend side of [`packed_conv_transpose()`]; call that.
#[backend_extension(Flex: cfg(feature = "flex"), Capture: cfg(feature = "capture"))]
pub trait PackedConvTransposeOps: Backend {
    /// The result for f32 `[batch, in, …]`; `range` is f32 `[1]`, `bias` and `offsets` placeholders if there are none.
    #[allow(unused_variables)] // by the generated dispatch of a build without backends
    fn packed_conv_transpose(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        range: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        offsets: FloatTensor<Self>,
        call: PackedConvTransposeCall,
    ) -> FloatTensor<Self>;
}

/// Runs a transposed convolution on an image that is rounded to INT8, with a packed kernel.
///
/// `y = Q(x) ⋆ᵀ W + bias`: products are sums of integers with f32 scales, which are added up in f32 and rounded once to
/// the dtype of `x`; those of a channel with a kernel of its own are in f32. It is the transposed convolution of the
/// values of fake quantization, but for the order of f32 sums and the rounding of scales.
///
/// # Shapes and units
///
/// `x`: `[batch, in, …]` with one to three axes after the channels; `weight`: the matrix `[in / groups, out · k…]`,
/// whose columns are ordered by outputs, group by group, and elements of the kernel within them; `bias`: `[out]`; the
/// result: `[batch, out, …]`.
///
/// # Gradient
///
/// To `x`, straight through the rounding, clipped at a given range, and to `bias`. The kernel has none.
///
/// # Panics
///
/// If shapes do not fit, or `activations` has a range for each token: pixels have none of their own.
///
/// # Source
///
/// Jacob et al. 2018, arXiv:1712.05877, §2.2.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Tensor};
/// use burn_quant_ops::numerics::IntFormat;
/// use burn_quant_ops::{
///     Activations, FakeQuant, GradientRule, Groups, PackedConvTranspose, PackedTensor, packed_conv_transpose,
/// };
///
/// let device = Device::flex();
/// let kernel = Tensor::<2>::from_data([[1.0, 2.0]], &device); // one channel in and out, two elements
/// let int8 = IntFormat::signed(8).unwrap().into();
/// let spec = FakeQuant { format: int8, groups: Groups::per_tensor(&[1, 2]), gradient: GradientRule::PassThrough };
/// let weight = PackedTensor::pack(kernel, Tensor::<1>::from_data([127.0], &device), spec).unwrap();
/// let x = Tensor::<3>::from_data([[[3.0, 4.0]]], &device);
/// let range = Activations::Int8(Tensor::from_data([127.0], &device)); // steps of one
/// let y = packed_conv_transpose(x, &weight, None, &PackedConvTranspose::new(&[2]), range);
/// assert_eq!(y.into_data().try_into_vec::<f32>().unwrap(), [3.0, 2.0 * 3.0 + 4.0, 2.0 * 4.0]);
/// # }
/// ```
pub fn packed_conv_transpose<const D: usize>(
    x: Tensor<D>,
    weight: &PackedTensor,
    bias: Option<Tensor<1>>,
    conv: &PackedConvTranspose,
    activations: Activations,
) -> Tensor<D> {
    let (dtype, mut shape) = (x.dtype(), x.dims());
    let (groups, elements) = (conv.options.groups, conv.kernel.iter().product::<usize>());
    let (inputs, columns) = (weight.layout.inputs() * groups, weight.layout.outputs());
    assert_eq!(shape[1], inputs, "packed_conv_transpose: the kernel is for {inputs} channels");
    assert!(
        groups > 0 && elements > 0 && columns.is_multiple_of(elements * groups),
        "packed_conv_transpose: {elements} elements of outputs in {groups} groups divide {columns} columns"
    );
    let ConvTransposeOptions { stride, dilation, .. } = &conv.options;
    let nonzero = stride.iter().chain(dilation).all(|step| *step > 0);
    assert!(nonzero, "packed_conv_transpose: stride and dilation are not zero");
    let axes: [usize; 3] = three(&shape[2..], 1);
    let output = conv.output(axes).unwrap_or_else(|| {
        panic!(
            "packed_conv_transpose: {axes:?} elements have no result of which {:?} are cut off",
            conv.options.padding
        )
    });
    let outputs = columns / elements;
    if let Some(bias) = &bias {
        assert_eq!(bias.dims(), [outputs], "packed_conv_transpose: one bias for each output");
    }
    let device = x.device();
    shape[1] = outputs;
    shape[2..].copy_from_slice(&output[5 - D..]);
    if shape.contains(&0) || inputs == 0 {
        let zeros = Tensor::<D>::zeros(shape, (&device, dtype));
        return match bias {
            Some(bias) if !shape.contains(&0) => {
                let mut channels = [1; D];
                channels[1] = outputs;
                zeros + bias.cast(dtype).reshape(channels)
            }
            _ => zeros,
        };
    }
    let (x, bias) = (x.cast(DType::F32), bias.map(|bias| bias.cast(DType::F32)));
    let y = match (activations, &weight.scales) {
        (Activations::Int8(range), PackedScales::Ranges(ranges))
            if convolves_integers(&device, weight.layout) && weight.has_shared_offsets() =>
        {
            let (has_bias, has_offsets) = (bias.is_some(), weight.offsets.is_some());
            let call = PackedConvTransposeCall { layout: weight.layout, conv: conv.clone(), has_bias, has_offsets };
            let none = || range.clone();
            let offsets = weight.offsets.as_ref().map_or_else(none, |offsets| offsets.values().flatten(0, 1));
            Tensor::<D>::from_dispatch(<Dispatch as PackedConvTransposeOps>::packed_conv_transpose(
                x.into_dispatch(),
                weight.words.clone().into_dispatch(),
                ranges.clone().into_dispatch(),
                range.clone().into_dispatch(),
                bias.unwrap_or_else(none).into_dispatch(),
                offsets.into_dispatch(),
                call,
            ))
        }
        (activations, _) => {
            let x = x.reshape([shape[0], inputs, axes[0], axes[1], axes[2]]);
            composed(x, weight, bias, conv, activations).reshape(shape)
        }
    };
    y.cast(dtype)
}

/// The same with burn's own ops.
fn composed(
    x: Tensor<5>,
    weight: &PackedTensor,
    bias: Option<Tensor<1>>,
    conv: &PackedConvTranspose,
    activations: Activations,
) -> Tensor<5> {
    let [depth, height, width] = conv.kernel;
    let (inputs, columns, groups) = (weight.layout.inputs(), weight.layout.outputs(), conv.options.groups);
    let outputs = columns / (depth * height * width * groups);
    let kernel = weight.unpack().reshape([inputs, groups, columns / groups]).swap_dims(0, 1);
    let kernel = kernel.reshape([groups * inputs, outputs, depth, height, width]);
    let x = rounded(x, activations);
    if conv.axes < 3 {
        let [x, kernel] = [x, kernel].map(|tensor| tensor.squeeze_dim::<4>(2));
        let ConvTransposeOptions { stride, padding, padding_out, dilation, groups } = &conv.options;
        let [stride, padding, padding_out, dilation] =
            [stride, padding, padding_out, dilation].map(|of| [of[1], of[2]]);
        let options = ConvTransposeOptions::new(stride, padding, padding_out, dilation, *groups);
        return conv_transpose2d(x, kernel, bias, options).unsqueeze_dim(2);
    }
    conv_transpose3d(x, kernel, bias, conv.options.clone())
}
