//! ONNX of single operations: the nodes that each becomes, and that they compute what burn does.

use burn::module::Module;
use burn::nn::conv::{DeformConv2d, DeformConv2dConfig};
use burn::nn::interpolate::{Interpolate1dConfig, Interpolate2dConfig, InterpolateMode as Mode};
use burn::tensor::module::{attention, interpolate, max_pool1d_with_indices, max_pool2d_with_indices, unfold4d};
use burn::tensor::ops::{
    AttentionModuleOptions, GridSampleOptions, GridSamplePaddingMode, InterpolateMode, InterpolateOptions,
    MaxPoolOptions, PadMode, UnfoldOptions,
};
use burn::tensor::{Bool, DType, Device, IndexingUpdateOp as Update, Int, Tensor, activation, s};
use burn_quant_graph::Values;
use burn_quant_onnx::{OnnxModel, export};
use burn_quant_tests::device;

use crate::onnx_runtime::{Files, Nothing, Read};
use crate::spread;

/// The operators of a file but that of its outputs: `Gather 2, Mul`.
fn nodes(onnx: &OnnxModel) -> String {
    let counted = onnx.operators().into_iter().filter(|(operator, _)| *operator != "Identity");
    let words = counted.map(|(operator, count)| match count {
        1 => operator.to_string(),
        count => format!("{operator} {count}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// Operations one after the other.
struct Operations {
    files: Files,
    unlike: Vec<String>,
}

impl Operations {
    fn new() -> Self {
        Self { files: Files::new(), unlike: Vec::new() }
    }

    fn add<I: Values + Read + Clone, O: Values + Read>(
        &mut self,
        name: &str,
        expected: &str,
        inputs: I,
        forward: impl Fn(I) -> O,
    ) {
        self.add_layer(name, expected, &Nothing, inputs, |_, x| forward(x));
    }

    fn add_layer<M: Module, I: Values + Read + Clone, O: Values + Read>(
        &mut self,
        name: &str,
        expected: &str,
        layer: &M,
        inputs: I,
        forward: impl Fn(&M, I) -> O,
    ) {
        let onnx = export(layer, inputs.clone(), &forward).unwrap_or_else(|error| panic!("{name}: {error}"));
        if nodes(&onnx) != expected {
            self.unlike.push(format!("{name} is {}, expected {expected}", nodes(&onnx)));
        }
        let outputs = forward(layer, inputs.clone());
        self.files.add(name, &onnx, inputs, outputs);
    }

    fn check(self) {
        assert!(self.unlike.is_empty(), "{}", self.unlike.join("\n"));
        self.files.check();
    }
}

fn ids<const D: usize>(values: &[i64], shape: [usize; D], device: &Device) -> Tensor<D, Int> {
    Tensor::<1, Int>::from_data(values, device).reshape(shape)
}

#[test]
fn elementwise_operations() {
    let (_, device) = device();
    let mut to = Operations::new();
    let x = spread::<2>([4, 6], &device);
    let (y, unit) = (x.clone().flip([0, 1]) + 0.1, x.clone() / 2.1);
    to.add("acos", "Acos", unit.clone(), Tensor::acos);
    to.add("acosh", "Acosh", x.clone().abs() + 1.0, Tensor::acosh);
    to.add("asin", "Asin", unit.clone(), Tensor::asin);
    to.add("asinh", "Asinh", x.clone(), Tensor::asinh);
    to.add("atan", "Atan", x.clone(), Tensor::atan);
    to.add("atanh", "Atanh", unit, Tensor::atanh);
    to.add("trigonometry", "Cos, Cosh, Sin, Sinh, Tan, Tanh", x.clone(), |x: Tensor<2>| {
        vec![x.clone().cos(), x.clone().cosh(), x.clone().sin(), x.clone().sinh(), x.clone().tan(), x.tanh()]
    });
    // halves too, which are rounded to even numbers
    let halves = Tensor::<2>::from_data([[-2.5, -1.5, -0.5, 0.5], [1.5, 2.5, -0.2, 3.0]], &device);
    to.add("rounding", "Abs, Ceil, Floor 2, Mul, Round, Sign 2", halves, |x: Tensor<2>| {
        vec![x.clone().ceil(), x.clone().floor(), x.clone().round(), x.clone().trunc(), x.sign()]
    });
    let remainder = "Add, And, Equal, Less 2, Mod, Not, Where, Xor";
    to.add("remainder", remainder, (x.clone(), y.clone()), |(x, y)| x.remainder(y));
    to.add("remainder_of_scalar", remainder, x.clone() * 3.0, |x: Tensor<2>| x.remainder_scalar(-0.75));
    let whole = (ids(&[7, -7, 8, -8], [4], &device), ids(&[3, 3, -3, -3], [4], &device));
    to.add("remainder_of_integers", "Mod", whole.clone(), |(x, y): (Tensor<1, Int>, _)| x.remainder(y));
    to.add("quotient_of_integers", "Div", whole.clone(), |(x, y): (Tensor<1, Int>, _)| x / y);
    let fmod = "Abs 2, And, Div, Equal 2, Floor, Mul 3, Sign, Sub, Where";
    to.add("fmod", fmod, (x.clone(), y.clone()), |(x, y)| x.fmod(y));
    let powers = (x.clone().abs() + 0.1, y.clone());
    to.add("powers", "Mul 2, Pow 2, Reciprocal, Sqrt", powers, |(x, y): (Tensor<2>, _)| {
        vec![
            x.clone().powf(y),
            x.clone().powf_scalar(1.7),
            x.clone().powi_scalar(2),
            x.clone().sqrt(),
            x.recip().square(),
        ]
    });
    let bits = "BitwiseAnd, BitwiseNot, BitwiseOr 2, BitwiseXor";
    to.add("bits", bits, whole, |(x, y): (Tensor<1, Int>, Tensor<1, Int>)| {
        vec![
            x.clone().bitwise_and(y.clone()),
            x.clone().bitwise_or(y.clone()),
            x.clone().bitwise_xor(y),
            x.clone().bitwise_not(),
            x.bitwise_or_scalar(5),
        ]
    });
    let whole = ids(&[7, -7, 1 << 27, -9, 0, -(1 << 28)], [6], &device);
    to.add("shifts", "Div, Mod, Mul, Sub", whole, |x: Tensor<1, Int>| {
        vec![x.clone().bitwise_left_shift_scalar(3), x.bitwise_right_shift_scalar(2)]
    });
    let unsigned = |x: Tensor<1, Int>| {
        let x = x.cast(DType::U32);
        vec![x.clone().bitwise_left_shift_scalar(3), x.bitwise_right_shift_scalar(2)]
            .into_iter()
            .map(|x: Tensor<1, Int>| x.cast(DType::I64))
            .collect::<Vec<_>>()
    };
    to.add("shifts_of_unsigned", "BitShift 2, Cast 3", ids(&[7, 8, 250, 1 << 30], [4], &device), unsigned);
    let by = (ids(&[7, -7, 1 << 27, -9, 0, -(1 << 28)], [6], &device), ids(&[3, 1, 0, 4, 20, 2], [6], &device));
    to.add(
        "shifts_by_tensors",
        "Div, Mod, Mul, Pow 2, Sub",
        by.clone(),
        |(x, by): (Tensor<1, Int>, Tensor<1, Int>)| {
            vec![x.clone().bitwise_left_shift(by.clone()), x.bitwise_right_shift(by)]
        },
    );
    let unsigned = |(x, by): (Tensor<1, Int>, Tensor<1, Int>)| {
        let (x, by) = (x.abs().cast(DType::U32), by.cast(DType::U32));
        vec![x.clone().bitwise_left_shift(by.clone()), x.bitwise_right_shift(by)]
            .into_iter()
            .map(|x: Tensor<1, Int>| x.cast(DType::I64))
            .collect::<Vec<_>>()
    };
    to.add("shifts_of_unsigned_by_tensors", "Abs, BitShift 2, Cast 4", by, unsigned);
    // in each quarter, and on the axes
    let sides = Tensor::<2>::from_data([[1.5, 1.5, -1.5, -1.5, 1e30, 0.0], [0.0, 2.0, -2.0, 0.0, -3.0, 4.0]], &device);
    let other = Tensor::<2>::from_data([[0.5, -0.5, -0.5, 0.5, 1.0, 0.0], [2.0, 0.0, 0.0, -2.0, 1e-9, -1e30]], &device);
    let angle = "Add, Atan, Div, Equal, Less 2, Mul, Neg, Sign, Where 3";
    to.add("atan2", angle, (sides, other), |(y, x): (Tensor<2>, Tensor<2>)| y.atan2(x));
    to.add("hypot", "Add, Cast 3, Mul 2, Sqrt", (x.clone() * 1e25, y.clone() * 1e25), |(x, y): (Tensor<2>, _)| {
        x.hypot(y)
    });
    let vectors = (spread::<2>([3, 4], &device), y.clone().slice([0..3, 0..4]));
    to.add("cross", "Gather 4, Mul 2, Sub", vectors, |(x, y)| x.cross(y, 0));
    let composed = "Abs 3, Add 5, Clip 2, Div 4, Exp 5, Greater 2, GreaterOrEqual, HardSigmoid, LessOrEqual 6, Log 2, \
                    Mul 14, Pow, Sigmoid, Sign, Sub 5, Tanh 3, Where 11";
    to.add("activations", composed, x, |x: Tensor<2>| {
        vec![
            activation::celu(x.clone(), 1.5),
            activation::elu(x.clone(), 0.7),
            activation::gelu_approximate(x.clone()),
            activation::hard_shrink(x.clone(), 0.5),
            activation::hard_swish(x.clone()),
            activation::hardtanh(x.clone(), -0.5, 0.8),
            activation::mish(x.clone()),
            activation::relu6(x.clone()),
            activation::selu(x.clone()),
            activation::silu(x.clone()),
            activation::soft_shrink(x.clone(), 0.5),
            activation::softplus(x.clone(), 1.3),
            activation::softsign(x.clone()),
            activation::tanhshrink(x.clone()),
            activation::threshold(x.clone(), 0.1, 0.3),
            activation::thresholded_relu(x, 0.4),
        ]
    });
    to.check();
}

#[test]
fn reductions_and_orders() {
    let (_, device) = device();
    let mut to = Operations::new();
    let x = spread::<3>([2, 5, 7], &device);
    to.add("sort", "TopK", x.clone(), |x: Tensor<3>| x.sort(1));
    to.add("sort_descending", "TopK", x.clone(), |x: Tensor<3>| x.sort_descending(2));
    to.add("argsort", "TopK", x.clone(), |x: Tensor<3>| x.argsort(2));
    to.add("sort_with_indices", "TopK", x.clone(), |x: Tensor<3>| x.sort_with_indices(0));
    to.add("topk", "TopK", x.clone(), |x: Tensor<3>| x.topk(3, 2));
    to.add("argtopk", "TopK", x.clone(), |x: Tensor<3>| x.argtopk(3, 1));
    to.add("topk_with_indices", "TopK", x.clone(), |x: Tensor<3>| x.topk_with_indices(2, 1));
    let whole = (x.clone() * 100.0).int();
    to.add("topk_of_integers", "TopK", whole, |x: Tensor<3, Int>| x.topk(3, 2));
    // equal elements: the first of them is found
    let equal = Tensor::<2>::from_data([[1.0, 3.0, 3.0], [2.0, 2.0, -1.0]], &device);
    to.add("max_with_indices", "ArgMax, ReduceMax", equal.clone(), |x: Tensor<2>| x.max_dim_with_indices(1));
    to.add("min_with_indices", "ArgMin, ReduceMin", x.clone(), |x: Tensor<3>| x.min_dim_with_indices(2));
    to.add("arguments", "ArgMax, ArgMin", equal, |x: Tensor<2>| (x.clone().argmax(1), x.argmin(1)));
    to.add("max_abs", "Abs, ReduceMax, Reshape", x.clone(), |x: Tensor<3>| x.max_abs());
    to.add("max_abs_dim", "Abs, ReduceMax", x.clone(), |x: Tensor<3>| x.max_abs_dim(1));
    let some = Tensor::<2>::from_data([[0.0, 0.5, 0.0], [0.0, 0.0, 0.0], [-1.0, 2.0, 0.3]], &device);
    to.add("any_and_all", "Cast 12, ReduceMax 2, ReduceMin 2, Reshape 2", some.clone(), |x: Tensor<2>| {
        ((x.clone().any(), x.clone().all()), x.clone().any_dim(1), x.all_dim(1))
    });
    let mask = some.greater_elem(0.1);
    to.add("any_and_all_of_booleans", "Cast 4, ReduceMax, ReduceMin", mask, |x: Tensor<2, Bool>| {
        (x.clone().any_dim(0), x.all_dim(1))
    });
    to.add("cumsum", "CumSum", x.clone(), |x: Tensor<3>| x.cumsum(1));
    to.add("cumulative", "Expand, Gather 3, Scan 3, Shape", x.clone(), |x: Tensor<3>| {
        vec![x.clone().cumprod(1), x.clone().cummin(2), x.cummax(0)]
    });
    let whole = ids(&[3, -1, 4, 1, -5, 9], [2, 3], &device);
    to.add("cumulative_integers", "Expand, Gather 3, Scan 3, Shape", whole, |x: Tensor<2, Int>| {
        vec![x.clone().cumprod(1), x.clone().cummin(1), x.cummax(0)]
    });
    to.add("moments", "Div, Mul, ReduceMean, ReduceProd, ReduceSum, Slice, Sub, TopK", x, |x: Tensor<3>| {
        let (variance, mean) = x.clone().var_mean(2);
        vec![variance, mean, x.clone().median(1), x.prod_dim(2)]
    });
    to.check();
}

#[test]
fn parts_of_tensors() {
    let (_, device) = device();
    let mut to = Operations::new();
    let x = spread::<2>([5, 6], &device);
    let pad = |mode: PadMode| move |x: Tensor<2>| x.pad([(1, 2), (3, 0)], mode);
    to.add("pad", "Pad", x.clone(), pad(PadMode::Constant(-1.5)));
    to.add("pad_reflect", "Pad", x.clone(), pad(PadMode::Reflect));
    to.add("pad_edge", "Pad", x.clone(), pad(PadMode::Edge));
    to.add("flip", "Slice", x.clone(), |x: Tensor<2>| x.flip([0, 1]));
    to.add("roll", "Concat 2, Slice 4", x.clone(), |x: Tensor<2>| x.roll(&[2, -1], &[0, 1]));
    to.add("slices", "Slice 3", x.clone(), |x: Tensor<2>| {
        (x.clone().slice(s![1..4, ..;2]), x.clone().slice(s![..;-1, 1..5;-2]), x.slice(s![2, -3..]))
    });
    to.add("repeat_and_expand", "Expand, Slice, Tile 2", x.clone(), |x: Tensor<2>| {
        (x.clone().repeat(&[2, 3]), x.slice(s![0..1]).expand([4, 6]))
    });
    to.add("unfold", "Gather, Transpose", x.clone(), |x: Tensor<2>| -> Tensor<3> { x.unfold(1, 3, 2) });
    to.add("unfold_first", "Gather, Transpose", x.clone(), |x: Tensor<2>| -> Tensor<3> { x.unfold(0, 2, 1) });
    let of_rows = (x.clone(), spread::<2>([2, 6], &device) * 10.0);
    to.add("assign_rows", "Concat, Slice 2", of_rows.clone(), |(x, y)| x.slice_assign(s![1..3, ..], y));
    to.add("assign_first_rows", "Concat, Slice", of_rows.clone(), |(x, y)| x.slice_assign(s![0..2], y));
    to.add("assign_all", "Slice", of_rows.clone(), |(x, y): (Tensor<2>, Tensor<2>)| {
        y.slice_assign(s![0..2, ..], x.slice(s![3..5]))
    });
    to.add("assign_steps", "ScatterND", of_rows, |(x, y)| x.slice_assign(s![0..4;2, ..], y));
    let of_block = (x.clone(), spread::<2>([2, 3], &device) * 10.0);
    to.add("assign_block", "ScatterND", of_block.clone(), |(x, y)| x.slice_assign(s![1..3, 2..5], y));
    to.add("assign_backwards", "ScatterND", of_block, |(x, y)| x.slice_assign(s![1..3;-1, 0..6;-2], y));
    let places = ids(&[4, 0, 2], [3], &device);
    let columns = (x.clone(), spread::<2>([5, 3], &device) * 3.0, places.clone());
    let twice = (x.clone(), spread::<2>([3, 6], &device) * 3.0, ids(&[4, 0, 4], [3], &device));
    let select = "Expand, Reshape, ScatterElements";
    to.add("select_assign", select, columns, |(x, y, at)| x.select_assign(1, at, y, Update::Assign));
    to.add("select_add", select, twice, |(x, y, at)| x.select_assign(0, at, y, Update::Add));
    let unique = ids(&[2, 0, 1, 4, 3, 0], [1, 6], &device);
    let elements = (x.clone(), spread::<2>([1, 6], &device) * 2.0, unique.clone());
    for (name, update) in [
        ("scatter_assign", Update::Assign),
        ("scatter_add", Update::Add),
        ("scatter_mul", Update::Mul),
        ("scatter_min", Update::Min),
        ("scatter_max", Update::Max),
    ] {
        to.add(name, "ScatterElements", elements.clone(), |(x, y, at)| x.scatter(0, at, y, update));
    }
    let mask = (x.clone().greater_elem(1.0), x.clone().slice(s![0..1]).lower_elem(0.0), unique.clone());
    to.add("scatter_or", "Cast 3, ScatterElements", mask, |(x, y, at): (Tensor<2, Bool>, _, _)| {
        x.scatter(0, at, y, Update::Add)
    });
    let pairs = ids(&[0, 1, 4, 5, 2, 2], [3, 2], &device);
    let points = (x.clone(), spread::<1>([3], &device) * 4.0, pairs.clone());
    to.add("scatter_nd", "Cast, ScatterND", points, |(x, y, at)| x.scatter_nd(at, y, Update::Add));
    to.add("gather_nd", "Cast, GatherND", (x.clone(), pairs), |(x, at)| -> Tensor<1> { x.gather_nd(at) });
    to.add("gather", "GatherElements", (x.clone(), unique), |(x, at)| x.gather(0, at));
    to.add("select", "Gather", (x.clone(), places), |(x, at)| x.select(1, at));
    to.add("triangles", "Greater, Less, Sub 4, Where 2", x, |x: Tensor<2>| (x.clone().triu(1), x.tril(0)));
    to.check();
}

#[test]
fn images_are_resized_cut_and_sampled() {
    let (_, device) = device();
    let mut to = Operations::new();
    let x = spread::<4>([2, 3, 5, 7], &device);
    for (name, mode) in [
        ("nearest", InterpolateMode::Nearest),
        ("bilinear", InterpolateMode::Bilinear),
        ("bicubic", InterpolateMode::Bicubic),
    ] {
        // larger, smaller, one pixel, and a factor that is no whole number
        for [height, width] in [[10, 14], [3, 4], [1, 9], [8, 5]] {
            for align in [false, true] {
                let options = || {
                    InterpolateOptions::new(mode.clone()).with_output_size([height, width]).with_align_corners(align)
                };
                let name = format!("{name}_{height}_{width}_{align}");
                to.add(&name, "Resize", x.clone(), |x| interpolate(x, options()));
            }
        }
    }
    // ONNX Runtime takes another pixel in the place 49
    let options = || InterpolateOptions::new(InterpolateMode::Nearest).with_output_size([2, 147]);
    to.add("nearest_3_147", "Gather 2", spread::<4>([1, 1, 2, 3], &device), |x| interpolate(x, options()));
    let twice = Interpolate2dConfig::new().with_scale_factor(Some([2.0, 2.0])).with_mode(Mode::Linear).init();
    to.add("layer_2d", "Resize", x.clone(), |x| twice.forward(x));
    let line = Interpolate1dConfig::new().with_output_size(Some(9)).with_mode(Mode::Cubic).init();
    let sequence = spread::<3>([2, 3, 4], &device);
    to.add("layer_1d", "Reshape 2, Resize", sequence.clone(), |x| line.forward(x));

    let windows = || UnfoldOptions::new([2, 1], [1, 0], [1, 2]);
    to.add("unfold4d", "Gather 2, Pad, Reshape, Transpose", x.clone(), |x| unfold4d(x, [2, 3], windows()));
    let pool = || MaxPoolOptions::new([2, 3]).with_stride([2, 2]).with_padding([1, 1]);
    to.add("max_pool2d_with_places", "MaxPool, Mod", x.clone(), |x| max_pool2d_with_indices(x, pool()));
    let pool = || MaxPoolOptions::new([2]).with_stride([1]);
    to.add("max_pool1d_with_places", "MaxPool, Mod", sequence, |x| max_pool1d_with_indices(x, pool()));

    let grid = spread::<4>([2, 4, 6, 2], &device) * 0.7;
    for (name, mode) in [("nearest", InterpolateMode::Nearest), ("bilinear", InterpolateMode::Bilinear)] {
        for (padding, padding_mode) in [
            ("zeros", GridSamplePaddingMode::Zeros),
            ("border", GridSamplePaddingMode::Border),
            ("reflection", GridSamplePaddingMode::Reflection),
        ] {
            for align in [false, true] {
                let options =
                    || GridSampleOptions::new(mode.clone()).with_padding_mode(padding_mode).with_align_corners(align);
                let name = format!("grid_{name}_{padding}_{align}");
                to.add(&name, "GridSample", (x.clone(), grid.clone()), |(x, grid)| x.grid_sample_2d(grid, options()));
            }
        }
    }
    let deformed = DeformConv2dConfig::new([3, 4], [3, 3]).init(&device);
    let inputs = (x, spread::<4>([2, 18, 3, 5], &device), spread::<4>([2, 9, 3, 5], &device).abs());
    let forward = |layer: &DeformConv2d, (x, offset, mask)| layer.forward(x, offset, Some(mask));
    to.add_layer("deformable", "DeformConv", &deformed, inputs, forward);
    to.check();
}

#[test]
fn attention_of_one_operation() {
    let (_, device) = device();
    let mut to = Operations::new();
    let qkv = |keys: usize| {
        let of = |len: usize, at: usize| spread::<4>([2, 3, 9, 8], &device).slice([0..2, 0..3, at..at + len]);
        (of(4, 0), of(keys, 1), of(keys, 2))
    };
    let plain = "MatMul 2, Mul, Softmax, Transpose";
    let options = AttentionModuleOptions::default;
    to.add("plain", plain, qkv(6), |(q, k, v)| attention(q, k, v, None, None, options()));
    let causal = || AttentionModuleOptions { is_causal: true, scale: Some(0.3), ..options() };
    let masked = "MatMul 2, Mul, Softmax, Transpose, Where";
    to.add("causal", masked, qkv(6), |(q, k, v)| attention(q, k, v, None, None, causal()));
    let rows = "Div, Exp, MatMul 2, Max 2, Mul, ReduceMax, ReduceSum, Sub, Transpose, Where";
    // the first query sees no key
    to.add("causal_of_fewer_keys", rows, qkv(3), |(q, k, v)| attention(q, k, v, None, None, causal()));
    // and here by its mask, which is whole in the first row
    let mask = Tensor::<1, Int>::arange(0..144, &device).reshape([2, 3, 4, 6]);
    let mask = mask.clone().remainder_scalar(5).equal_elem(0).bool_or(mask.lower_elem(6));
    let inputs = (qkv(6), mask);
    let forward = |((q, k, v), mask)| attention(q, k, v, Some(mask), None, options());
    to.add("masked", rows, inputs, forward);
    let capped = || AttentionModuleOptions { softcap: Some(1.5), ..options() };
    let bias = spread::<4>([2, 3, 4, 6], &device);
    let forward = |((q, k, v), bias)| attention(q, k, v, None, Some(bias), capped());
    let expected = "Add, Div 2, Exp, MatMul 2, Max 2, Mul 2, ReduceMax, ReduceSum, Sub, Tanh, Transpose";
    to.add("capped_with_bias", expected, (qkv(6), bias), forward);
    // heads that share keys and values
    let (q, k, v) = qkv(6);
    let one_head = |x: Tensor<4>| x.slice([0..2, 0..1, 0..6, 0..8]);
    let forward = |(q, k, v)| attention(q, k, v, None, None, options());
    let expected = "Expand 2, MatMul 2, Mul, Reshape 2, Softmax, Transpose, Unsqueeze 2";
    to.add("shared", expected, (q, one_head(k), one_head(v)), forward);
    to.check();
}

/// Nothing of these is written for one size alone.
#[test]
fn operations_of_any_size() {
    let (_, device) = device();
    let mut files = Files::new();
    let rows = |batch: usize| spread::<2>([batch, 6], &device);
    let images = |batch: usize| spread::<4>([batch, 3, 5, 7], &device);
    type Rows = fn(&Nothing, Tensor<2>) -> Tensor<2>;
    let of_rows: [(&str, Rows); 10] = [
        ("pad", |_, x| x.pad([(0, 0), (1, 2)], 0.5)),
        ("flip", |_, x| x.flip([0])),
        ("sort", |_, x| x.sort(0)),
        ("topk", |_, x| x.topk(2, 1)),
        ("cumsum", |_, x| x.cumsum(0)),
        ("cumprod", |_, x| x.cumprod(0)),
        ("remainder", |_, x| x.remainder_scalar(0.3)),
        ("any", |_, x| x.greater_elem(1.0).any_dim(0).float()),
        ("assign", |_, x| x.clone().slice_assign(s![.., 2..4], x.slice(s![.., 0..2]))),
        ("select_add", |_, x| {
            let at = Tensor::<1, Int>::from_data([1, 3], &x.device());
            x.clone().select_assign(1, at, x.slice(s![.., 4..6]), Update::Add)
        }),
    ];
    for (name, forward) in of_rows {
        files.add_any_size(name, &Nothing, rows, forward);
    }
    type Images = fn(&Nothing, Tensor<4>) -> Tensor<4>;
    let of_images: [(&str, Images); 2] = [
        ("resize", |_, x| interpolate(x, InterpolateOptions::new(InterpolateMode::Bilinear).with_output_size([4, 9]))),
        ("unfold4d", |_, x| unfold4d(x, [2, 2], UnfoldOptions::new([1, 1], [0, 0], [1, 1])).unsqueeze()),
    ];
    for (name, forward) in of_images {
        files.add_any_size(name, &Nothing, images, forward);
    }
    let heads = |batch: usize| spread::<4>([batch, 2, 4, 6], &device);
    let forward = |_: &Nothing, x: Tensor<4>| {
        let causal = AttentionModuleOptions { is_causal: true, ..Default::default() };
        attention(x.clone(), x.clone(), x, None, None, causal)
    };
    files.add_any_size("attention", &Nothing, heads, forward);
    files.check();
}

/// What is left says what there is instead.
#[test]
fn operations_without_a_form_are_named() {
    let (_, device) = device();
    let lanczos = |_: &Nothing, x: Tensor<4>| {
        interpolate(x, InterpolateOptions::new(InterpolateMode::Lanczos3).with_output_size([8, 8]))
    };
    let error = export(&Nothing, spread::<4>([1, 1, 4, 4], &device), lanczos).unwrap_err().to_string();
    assert_eq!(
        error,
        "`Interpolate` has no form in ONNX here: Lanczos3 is not written; resize by Nearest, Bilinear or Bicubic"
    );
}
