//! Which device the command line asks for.

use burn::tensor::Device;
use clap::ValueEnum;

/// Devices; each is a feature of this crate.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Backend {
    /// The processor.
    Flex,
    /// Any graphics card.
    Wgpu,
    /// NVIDIA's.
    Cuda,
}

impl Backend {
    /// The device, without autodiff.
    ///
    /// # Errors
    ///
    /// If this build does not have it.
    pub fn device(self) -> Result<Device, String> {
        match self {
            #[cfg(feature = "flex")]
            Backend::Flex => Ok(Device::flex()),
            #[cfg(feature = "wgpu")]
            Backend::Wgpu => Ok(Device::wgpu(Default::default())),
            #[cfg(feature = "cuda")]
            Backend::Cuda => Ok(Device::cuda(0)),
            #[allow(unreachable_patterns)]
            other => {
                let name = other.to_possible_value().expect("every device has a name").get_name().to_string();
                Err(format!("this binary was built without `{name}`: add `--features {name}` to the cargo command"))
            }
        }
    }
}
