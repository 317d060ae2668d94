//! Which device the command line asks for.

use burn::tensor::Device;
use clap::ValueEnum;

use crate::error::CliError;

/// Devices; each is a feature of this crate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// The processor.
    #[default]
    Flex,
    /// Any graphics card.
    Wgpu,
    /// Any graphics card, by Vulkan.
    Vulkan,
    /// Apple's.
    Metal,
    /// NVIDIA's.
    Cuda,
    /// AMD's.
    Rocm,
}

impl Backend {
    /// Returns the device, without autodiff.
    ///
    /// # Errors
    ///
    /// [`CliError::Device`] if this build does not have it.
    pub(crate) fn device(self) -> Result<Device, CliError> {
        match self {
            #[cfg(feature = "flex")]
            Backend::Flex => Ok(Device::flex()),
            #[cfg(feature = "wgpu")]
            Backend::Wgpu => Ok(Device::wgpu(Default::default())),
            #[cfg(feature = "vulkan")]
            Backend::Vulkan => Ok(Device::vulkan(Default::default())),
            #[cfg(feature = "metal")]
            Backend::Metal => Ok(Device::metal(Default::default())),
            #[cfg(feature = "cuda")]
            Backend::Cuda => Ok(Device::cuda(0)),
            #[cfg(feature = "rocm")]
            Backend::Rocm => Ok(Device::rocm(0)),
            #[allow(unreachable_patterns)]
            other => Err(CliError::Device { name: other.name() }),
        }
    }

    /// The name on the command line, and of the feature.
    fn name(self) -> &'static str {
        match self {
            Backend::Flex => "flex",
            Backend::Wgpu => "wgpu",
            Backend::Vulkan => "vulkan",
            Backend::Metal => "metal",
            Backend::Cuda => "cuda",
            Backend::Rocm => "rocm",
        }
    }
}
