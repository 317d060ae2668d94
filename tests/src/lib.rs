//! What the test binaries share: the devices of this build, and how numbers are compared.

pub mod compare;

use burn::tensor::Device;

/// The device under test of this build, without autodiff, and its name.
///
/// A build tests one backend: `cuda` or `wgpu` if the feature is on, else `flex`.
pub fn device() -> (&'static str, Device) {
    #[cfg(feature = "cuda")]
    return ("cuda", Device::cuda(0));
    #[cfg(all(feature = "wgpu", not(feature = "cuda")))]
    return ("wgpu", Device::wgpu(Default::default()));
    #[cfg(all(feature = "flex", not(any(feature = "wgpu", feature = "cuda"))))]
    return ("flex", Device::flex());
    #[cfg(not(any(feature = "flex", feature = "wgpu", feature = "cuda")))]
    compile_error!("enable the backend to test: flex, wgpu or cuda");
}

/// The processor, where this build has a backend for it: for what does not depend on the device, and takes long on one.
#[allow(deprecated)] // burn's word for NdArray
pub fn processor() -> Device {
    #[cfg(feature = "flex")]
    return Device::flex();
    #[cfg(all(feature = "ndarray", not(feature = "flex")))]
    return Device::ndarray();
    #[cfg(not(any(feature = "flex", feature = "ndarray")))]
    return device().1;
}

/// A backend that burn-quant has no kernel for, where this build has one: burn deprecates it, and no other can be had
/// without a library.
#[allow(deprecated)]
pub fn device_without_kernel() -> Option<Device> {
    #[cfg(feature = "ndarray")]
    return Some(Device::ndarray());
    #[cfg(not(feature = "ndarray"))]
    None
}

/// The device under test: plain, with autodiff, and with autodiff and gradient checkpointing.
pub fn devices() -> Vec<(String, Device)> {
    let (name, device) = device();
    let autodiff = device.clone().autodiff();
    vec![
        (name.to_string(), device),
        (format!("autodiff<{name}>"), autodiff.clone()),
        (format!("checkpointed autodiff<{name}>"), autodiff.gradient_checkpointing()),
    ]
}
