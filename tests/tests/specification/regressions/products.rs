//! What broke in the packed products of other toolkits: sums of 16 bits, tails, and batches that repeat one row.

use burn::tensor::Tensor;
use burn_quant::config::{Format, GradientRule, IntFormat, IntSpan, Signedness};
use burn_quant::ops::{Activations, FakeQuant, Groups, PackedTensor, Ranges, packed_linear};
use burn_quant_tests::device;

use crate::{assert_close, spread, values};

fn packed(weight: Tensor<2>, format: Format, groups: Groups) -> PackedTensor {
    let spec = FakeQuant { format, groups, gradient: GradientRule::PassThrough };
    PackedTensor::pack(weight, Ranges::Dynamic, spec).unwrap()
}

/// 512 products of the largest codes, 255 and 127: a sum of two does not fit 16 bits.
pub(super) fn t12() {
    let (_, device) = device();
    let unsigned = IntFormat::new(8, Signedness::Unsigned, IntSpan::Full).unwrap().into();
    let weight = Tensor::<2>::full([512, 3], 255.0, &device);
    let weight = packed(weight, unsigned, Groups::per_tensor(&[512, 3]));
    let y = packed_linear(Tensor::<2>::full([2, 512], 127.0, &device), &weight, Activations::Int8PerToken);
    let expected = 512.0 * 255.0 * 127.0; // 16,581,120, which f32 holds
    assert_close(&values(y), &[expected; 6], 3e-7, "the largest codes");
}

/// Every number of columns, inputs and rows around the sizes of tiles, and a batch that is one row repeated.
pub(super) fn t13() {
    let (name, device) = device();
    let int4: Format = IntFormat::signed(4).unwrap().into();
    let (inputs, outputs): (&[usize], &[usize]) = match name {
        "flex" => (&[1, 31, 32, 33, 100], &[1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 69]),
        _ => (&[1, 33], &[1, 16, 17]), // there are no tiles where the weight is unpacked first
    };
    for &inputs in inputs {
        for &outputs in outputs {
            let weight = packed(spread([inputs, outputs], &device), int4, Groups::blocks(&[inputs, outputs], 0, 32));
            let unpacked = weight.unpack();
            for rows in [1, 2, 3, 5, 8, 9] {
                let x = spread::<2>([rows, inputs], &device);
                let what = format!("{rows} x {inputs} x {outputs}");
                let y = packed_linear(x.clone(), &weight, Activations::Float);
                assert_close(&values(y), &values(x.matmul(unpacked.clone())), 3e-6, &what);
            }
            let row = spread::<2>([1, inputs], &device);
            let once = values(packed_linear(row.clone(), &weight, Activations::Int8PerToken));
            let repeated = packed_linear(row.expand([4, inputs]), &weight, Activations::Int8PerToken);
            assert_close(&values(repeated), &once.repeat(4), 1e-6, "one row four times");
        }
    }
}
