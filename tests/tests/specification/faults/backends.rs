//! What lies below: the kernels of devices, and burn's own faults.

use burn::module::Param;
use burn::nn::conv::Conv1dConfig;
use burn::nn::{LinearConfig, PaddingConfig1d};
use burn::tensor::{Device, Tensor};
use burn_quant::nn::QuantConv1d;
use burn_quant::ops::has_kernels;
use burn_quant::{presets, quantize_weights, summary};
use burn_quant_tests::{devices, processor};

use crate::{assert_close, spread, values};

/// A device that burn-quant has no kernels for computes the same, several times slower: the summary names it. Of
/// devices with kernels it says nothing.
pub(super) fn f56() {
    let table = |device: &Device| {
        let (layer, _) = quantize_weights(LinearConfig::new(8, 4).init(device), &presets::int8_weight_only()).unwrap();
        summary(&layer)
    };
    for (name, device) in devices() {
        assert!(has_kernels(&device), "{name}");
        let table = table(&device);
        assert_eq!(table.devices_without_kernels().count(), 0, "{name}");
        assert!(!table.to_string().contains("kernels"), "{name}: {table}");
    }
    let without = burn_quant_tests::device_without_kernel();
    for device in without.clone().into_iter().chain(without.map(Device::autodiff)) {
        assert!(!has_kernels(&device));
        let table = table(&device);
        assert_eq!(table.devices_without_kernels().collect::<Vec<_>>(), ["NdArray(Cpu)"]);
        let said = "no fused kernels on NdArray(Cpu), burn's own ops run there: enable its feature in burn-quant too";
        assert!(table.to_string().ends_with(said), "{table}");
    }
}

/// burn 0.22.1 computes a wrong gradient of the weight of a grouped Conv1d with a stride that does not divide
/// `length + 2·padding − kernel`. When this fails, burn has mended it: take the words about it out of `QuantConv1d` and
/// of the book.
pub(super) fn f60() {
    let device = processor().autodiff();
    // the gradient of both groups at once, and of each as a convolution of its own
    let gradients = |length: usize| {
        let (x, weight) = (spread::<3>([2, 4, length], &device), spread::<3>([4, 2, 2], &device));
        let of = |x: Tensor<3>, weight: Tensor<3>, groups: usize, first: usize| {
            let [outputs, ..] = weight.dims();
            let config = Conv1dConfig::new(2 * groups, outputs, 2).with_stride(2).with_groups(groups);
            let config = config.with_padding(PaddingConfig1d::Valid).with_bias(false);
            let mut layer: QuantConv1d = config.init(&device).into();
            layer.weight = Param::from_tensor(weight);
            let y = layer.forward(x);
            let [batch, _, len] = y.dims();
            let factors = spread::<3>([batch, 4, len], &device).narrow(1, first, outputs);
            values(layer.weight.val().grad(&(y * factors).sum().backward()).unwrap())
        };
        let whole = of(x.clone(), weight.clone(), 2, 0);
        let half = |group: usize| {
            let (x, weight) = (x.clone().narrow(1, 2 * group, 2), weight.clone().narrow(0, 2 * group, 2));
            of(x, weight, 1, 2 * group)
        };
        (whole, [half(0), half(1)].concat())
    };
    let (found, expected) = gradients(8); // (8 − 2) mod 2 = 0
    assert_close(&found, &expected, 1e-5, "where the stride divides");
    if cfg!(all(feature = "ndarray", not(feature = "flex"))) {
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| gradients(7)));
        assert!(found.is_err(), "NdArray has a gradient of this shape: it was mended");
        return;
    }
    let (found, expected) = gradients(7); // (7 − 2) mod 2 = 1
    let off = burn_quant_tests::compare::relative_error(&found, &expected);
    assert!(off > 0.1, "burn's gradient is off by {off} of it: it was mended");
}
