//! Values that take the place of a parameter's.

use burn::tensor::Tensor;

/// Returns what takes the place of a parameter's value: in its dtype, on its device, trained if it was.
pub fn in_place_of<const D: usize>(old: &Tensor<D>, value: Tensor<D>) -> Tensor<D> {
    let device = old.device();
    let value = value.without_autodiff().cast(old.dtype());
    if !device.is_autodiff() {
        return value.to_device(&device);
    }
    // a tensor made on the device has its strategy of gradient checkpointing, which one that is moved there has not
    let whole = value.dims().map(|len| 0..len);
    let made = Tensor::zeros(value.shape(), (&device, value.dtype())).slice_assign(whole, value);
    made.detach().set_require_grad(old.is_require_grad())
}
