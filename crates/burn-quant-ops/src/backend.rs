//! Which backends burn's dispatch can route our ops to, and which one a device is.

use burn::backend::{DispatchDevice, DispatchTensorKind};
use burn::tensor::Device;

/// Whether this crate implements its ops for the backend of a tensor.
///
/// Dispatch panics on a backend that an extension does not list. burn's features are additive, so an application may
/// hold a tensor of a backend that it enabled in burn but not here; such a tensor takes the reference body instead.
pub(crate) fn has_kernel(kind: &DispatchTensorKind) -> bool {
    match kind {
        #[cfg(feature = "cube")]
        DispatchTensorKind::Cube(_) => true,
        #[cfg(feature = "capture")]
        DispatchTensorKind::Capture(_) => true,
        #[cfg(feature = "flex")]
        DispatchTensorKind::Flex(_) => true,
        #[cfg(feature = "autodiff")]
        DispatchTensorKind::Autodiff(inner) => has_kernel(inner),
        #[allow(unreachable_patterns)]
        _ => false,
    }
}

/// Returns whether the ops of this crate run as fused kernels on a device; elsewhere they are composed of burn's own
/// ops, which give the same numbers several times slower.
///
/// A device of burn has no kernels here if the feature of its name is on in burn and off in this crate.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::Device;
/// use burn_quant_ops::has_kernels;
///
/// assert!(has_kernels(&Device::flex()));
/// # }
/// ```
pub fn has_kernels(device: &Device) -> bool {
    fn of(device: &DispatchDevice) -> bool {
        match device {
            #[cfg(feature = "cube")]
            DispatchDevice::Cube(_) => true,
            #[cfg(feature = "capture")]
            DispatchDevice::Capture(_) => true,
            #[cfg(feature = "flex")]
            DispatchDevice::Flex(_) => true,
            #[cfg(feature = "autodiff")]
            DispatchDevice::Autodiff(device) => of(device),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }
    of(device.as_dispatch())
}

/// Whether a device is the CPU, with autodiff or without.
pub(crate) fn is_cpu(device: &Device) -> bool {
    fn of(device: &DispatchDevice) -> bool {
        match device {
            #[cfg(feature = "flex")]
            DispatchDevice::Flex(_) => true,
            #[cfg(feature = "autodiff")]
            DispatchDevice::Autodiff(device) => of(device),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }
    of(device.as_dispatch())
}

/// Returns whether a device is burn's CPU backend Flex, without autodiff.
///
/// What is faster there, and not elsewhere, asks this.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::Device;
/// use burn_quant_ops::is_flex;
///
/// assert!(is_flex(&Device::flex()));
/// # }
/// ```
pub fn is_flex(device: &Device) -> bool {
    match device.as_dispatch() {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => true,
        #[allow(unreachable_patterns)]
        _ => false,
    }
}

/// Returns whether a device records what runs on it, and computes nothing: `Device::capture()`.
///
/// What is recorded is run by another device later: code that asks where it runs records the general form, or that of
/// the CPU.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::Device;
/// use burn_quant_ops::is_capture;
///
/// assert!(!is_capture(&Device::flex()));
/// # }
/// ```
pub fn is_capture(device: &Device) -> bool {
    match device.as_dispatch() {
        #[cfg(feature = "capture")]
        DispatchDevice::Capture(_) => true,
        #[allow(unreachable_patterns)]
        _ => false,
    }
}
