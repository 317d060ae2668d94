//! A convolution whose kernel is codes and scales, and whose input is INT8.
//!
//! ```text
//! x, float ──► INT8 with one range ──► y = s_x · s_o · Σ (q · i) + bias     sums of integers, exact
//! ```
//!
//! A packed kernel is the matrix `[k…, in / groups] × [out]`, the last axis of the inputs being the channels: windows
//! of an image whose channels lie side by side are then runs of bytes.
//!
//! A window times an offset that all inputs of an output share is the sum of the window, times the offset.
//!
//! The CPU kernel is in [`packed_linear`](crate::packed_linear()): it is the same product. Elsewhere, and under
//! autodiff, the input is rounded and the kernel unpacked, and burn's convolution runs. A device that captures records
//! one node.

#[cfg(feature = "capture")]
pub(crate) mod capture;
#[cfg(feature = "flex")]
mod flex;

use burn::backend::ops::ConvOptions;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::module::{conv2d, conv3d};
use burn::tensor::{DType, Device, Tensor};
use burn_quant_numerics::{Format, ScaleFormat};

use crate::backend::{is_capture, is_flex};
use crate::packed_linear::{PackedScales, activation_format, int8_rounding};
use crate::{Activations, Call, FakeQuant, GradientRule, Groups, PackedLayout, PackedTensor, fake_quant};

/// The geometry of a convolution over one, two or three axes.
///
/// Axes that an image does not have count as one of length 1 before the others.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedConv {
    axes: usize,
    kernel: [usize; 3],
    options: ConvOptions<3>,
}

impl PackedConv {
    /// Creates the geometry of a kernel with a stride of 1, no padding, and one group.
    ///
    /// # Panics
    ///
    /// If there are no axes or more than three.
    pub fn new(kernel: &[usize]) -> Self {
        let options = ConvOptions::new_with_padding([1; 3], [(0, 0); 3], [1; 3], 1);
        Self { axes: kernel.len(), kernel: three(kernel, 1), options }
    }

    /// Sets the stride of each axis.
    ///
    /// As many as the kernel has axes; none is zero.
    pub fn with_stride(mut self, stride: &[usize]) -> Self {
        self.options.stride = three(stride, 1);
        self
    }

    /// Sets the zeros before and after each axis.
    ///
    /// The two may differ.
    pub fn with_padding(mut self, padding: &[(usize, usize)]) -> Self {
        self.options.padding = three(padding, (0, 0));
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
    /// As many as channels: each has kernels of its own.
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

    /// Returns the stride of each axis.
    ///
    /// One number for each axis.
    pub fn stride(&self) -> &[usize] {
        &self.options.stride[3 - self.axes..]
    }

    /// Returns the zeros before and after each axis.
    ///
    /// One pair for each axis.
    pub fn padding(&self) -> &[(usize, usize)] {
        &self.options.padding[3 - self.axes..]
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

    /// The lengths of the axes of the result.
    #[cfg(any(feature = "flex", feature = "capture"))]
    fn output(&self, input: [usize; 3]) -> [usize; 3] {
        let ConvOptions { stride, padding, dilation, .. } = &self.options;
        std::array::from_fn(|axis| {
            let (before, after) = padding[axis];
            let window = dilation[axis] * (self.kernel[axis] - 1) + 1;
            (before + input[axis] + after).checked_sub(window).map_or(0, |free| free / stride[axis] + 1)
        })
    }
}

/// Values of up to three axes as those of three.
pub(crate) fn three<T: Copy>(of: &[T], missing: T) -> [T; 3] {
    assert!((1..=3).contains(&of.len()), "PackedConv: one to three axes, found {}", of.len());
    let absent = 3 - of.len();
    std::array::from_fn(|axis| if axis < absent { missing } else { of[axis - absent] })
}

/// What the kernel is told besides its tensors.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(not(feature = "flex"), allow(dead_code))]
pub struct PackedConvCall {
    /// What the words mean.
    pub layout: PackedLayout,
    /// The geometry.
    pub conv: PackedConv,
    /// Whether a bias is added.
    pub has_bias: bool,
    /// Whether each output of the kernel lies around an offset.
    pub has_offsets: bool,
}

impl PackedConvCall {
    /// Returns how an image of a shape is rounded before it is convolved.
    ///
    /// To INT8 with one range.
    pub fn rounding(&self, shape: &[usize]) -> Call {
        int8_rounding(shape)
    }
}

/// The backend side of [`packed_conv()`]; call that.
#[backend_extension(Flex: cfg(feature = "flex"), Capture: cfg(feature = "capture"))]
pub trait PackedConvOps: Backend {
    /// The convolution of f32 `[batch, in, …]`; `range` is f32 `[1]`, `bias` and `offsets` placeholders if there are
    /// none.
    #[allow(unused_variables)] // by the generated dispatch of a build without backends
    fn packed_conv(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        range: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        offsets: FloatTensor<Self>,
        call: PackedConvCall,
    ) -> FloatTensor<Self>;
}

/// Returns whether a convolution with a packed kernel runs in integers on a device, or is recorded as one that does.
///
/// It does on the CPU, with codes of integers up to 127, and an f32 scale for each output or for all. Otherwise
/// [`packed_conv()`] unpacks the kernel at every call, and so it does if an output has several offsets.
pub fn convolves_integers(device: &Device, layout: PackedLayout) -> bool {
    (is_flex(device) || is_capture(device))
        && layout.has_integer_products()
        && layout.scale() == ScaleFormat::F32
        && layout.tiles().blocks() == 1
        && matches!(layout.format(), Format::Int(int) if int.grid().hi() <= i8::MAX.into()) // codes are signed bytes
}

/// Convolves an image that is rounded to INT8 with a packed kernel.
///
/// `y = Q(x) ⋆ W + bias`, in sums of integers with f32 scales, rounded once to the dtype of `x`. It is the convolution
/// of the values of fake quantization, but for the order of f32 sums and the rounding of scales.
///
/// # Shapes and units
///
/// `x`: `[batch, in, …]` with one to three axes after the channels; `weight`: the matrix `[k… · in / groups, out]`
/// whose inputs are ordered by the elements of the kernel, and channels within them; `bias`: `[out]`; the result:
/// `[batch, out, …]`.
///
/// # Gradient
///
/// To `x`, straight through the rounding, clipped at a given range, and to `bias`. The kernel has none.
///
/// # Panics
///
/// If shapes do not fit, or `activations` has a range for each token: a window has none.
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
/// use burn_quant_ops::{Activations, FakeQuant, GradientRule, Groups, PackedConv, PackedTensor, packed_conv};
///
/// let device = Device::flex();
/// let kernel = Tensor::<2>::from_data([[1.0], [2.0]], &device); // two elements, one channel in and out
/// let int8 = IntFormat::signed(8).unwrap().into();
/// let spec = FakeQuant { format: int8, groups: Groups::per_tensor(&[2, 1]), gradient: GradientRule::PassThrough };
/// let weight = PackedTensor::pack(kernel, Tensor::<1>::from_data([127.0], &device), spec).unwrap();
/// let x = Tensor::<3>::from_data([[[3.0, 4.0, 5.0]]], &device);
/// let range = Activations::Int8(Tensor::from_data([127.0], &device)); // steps of one
/// let y = packed_conv(x, &weight, None, &PackedConv::new(&[2]), range);
/// assert_eq!(y.into_data().try_into_vec::<f32>().unwrap(), [3.0 + 2.0 * 4.0, 4.0 + 2.0 * 5.0]);
/// # }
/// ```
pub fn packed_conv<const D: usize>(
    x: Tensor<D>,
    weight: &PackedTensor,
    bias: Option<Tensor<1>>,
    conv: &PackedConv,
    activations: Activations,
) -> Tensor<D> {
    let (layout, dtype, shape, device) = (weight.layout, x.dtype(), x.dims(), x.device());
    let (groups, elements) = (conv.options.groups, conv.kernel.iter().product::<usize>());
    let axes: [usize; 3] = three(&shape[2..], 1);
    assert_eq!(
        shape[1] * elements,
        layout.inputs() * groups,
        "packed_conv: the kernel is for {} channels, the input has {}",
        layout.inputs() * groups / elements.max(1),
        shape[1]
    );
    assert!(
        groups > 0 && shape[1].is_multiple_of(groups) && layout.outputs().is_multiple_of(groups),
        "packed_conv: {groups} groups divide {} channels and {} outputs",
        shape[1],
        layout.outputs()
    );
    let ConvOptions { stride, padding, dilation, .. } = &conv.options;
    for (axis, len) in axes.into_iter().enumerate() {
        assert!(stride[axis] > 0 && dilation[axis] > 0, "packed_conv: stride and dilation are not zero");
        let (window, padded) = (dilation[axis] * (conv.kernel[axis] - 1) + 1, len + padding[axis].0 + padding[axis].1);
        assert!(window <= padded, "packed_conv: a kernel that extends over {window} does not fit into {padded}");
    }
    let (x, bias) = (x.cast(DType::F32), bias.map(|bias| bias.cast(DType::F32)));
    let y = match (activations, &weight.scales) {
        (Activations::Int8(range), PackedScales::Ranges(ranges))
            if convolves_integers(&device, layout) && weight.has_shared_offsets() =>
        {
            let (has_bias, has_offsets) = (bias.is_some(), weight.offsets.is_some());
            let call = PackedConvCall { layout, conv: conv.clone(), has_bias, has_offsets };
            let none = || range.clone();
            let offsets = weight.offsets.as_ref().map_or_else(none, |offsets| offsets.values().flatten(0, 1));
            Tensor::<D>::from_dispatch(<Dispatch as PackedConvOps>::packed_conv(
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
            let x = x.reshape([shape[0], shape[1], axes[0], axes[1], axes[2]]);
            let y = composed(x, weight, bias, conv, activations);
            let mut shape = shape;
            shape[1] = layout.outputs();
            shape[2..].copy_from_slice(&y.dims()[5 - (D - 2)..]);
            y.reshape(shape)
        }
    };
    y.cast(dtype)
}

/// The same with burn's own ops.
fn composed(
    x: Tensor<5>,
    weight: &PackedTensor,
    bias: Option<Tensor<1>>,
    conv: &PackedConv,
    activations: Activations,
) -> Tensor<5> {
    let shape = x.dims();
    let x = rounded(x, activations);
    let ([depth, height, width], outputs) = (conv.kernel, weight.layout.outputs());
    let channels = shape[1] / conv.options.groups;
    let kernel = weight.unpack().transpose().reshape([outputs, depth, height, width, channels]);
    let kernel = kernel.permute([0, 4, 1, 2, 3]);
    let ConvOptions { stride, dilation, padding, groups } = conv.options.clone();
    if conv.axes < 3 {
        let [x, kernel] = [x, kernel].map(|tensor| tensor.squeeze_dim::<4>(2));
        let ([_, rows, columns], [_, before, after]) = (stride, padding);
        let options =
            ConvOptions::new_with_padding([rows, columns], [before, after], [dilation[1], dilation[2]], groups);
        return conv2d(x, kernel, bias, options).unsqueeze_dim(2);
    }
    // burn pads three axes by the same on both sides only
    let padded = |x: Tensor<5>| {
        let len = |axis: usize| shape[2 + axis] + padding[axis].0 + padding[axis].1;
        let zeros = Tensor::<5>::zeros([shape[0], shape[1], len(0), len(1), len(2)], (&x.device(), x.dtype()));
        let within = |axis: usize| padding[axis].0..padding[axis].0 + shape[2 + axis];
        zeros.slice_assign([0..shape[0], 0..shape[1], within(0), within(1), within(2)], x)
    };
    conv3d(padded(x), kernel, bias, ConvOptions::new(stride, [0; 3], dilation, groups))
}

/// An image after rounding, with the straight-through gradient.
pub(crate) fn rounded(x: Tensor<5>, activations: Activations) -> Tensor<5> {
    match activations {
        Activations::Float => x,
        Activations::Int8PerToken | Activations::Int15PerToken => {
            panic!("packed_conv: a window has no range of its own")
        }
        Activations::Int8(range) => {
            let (groups, format) = (Groups::per_tensor(&x.dims()), activation_format().into());
            fake_quant(x, range, FakeQuant { format, groups, gradient: GradientRule::Clipped })
        }
    }
}
