//! Configurations of layers: burn's own, whose `init` makes the quantized layer.

use std::fmt;
use std::ops::{Deref, DerefMut};

use burn::config::{Config, config_to_json};
use burn::serde::{Deserialize, Serialize};

/// burn's configuration `C` of a layer, whose `init` makes the layer of this crate.
///
/// It has the builders of burn's, and its fields are reached through it. Defaults are burn's; files and the text form
/// are those of burn's configuration too, so one is read as the other.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::Device;
/// use burn_quant::nn::LinearConfig; // a LayerConfig<burn::nn::LinearConfig>
///
/// let config = LinearConfig::new(3, 2).with_bias(false);
/// assert_eq!((config.d_input, config.bias), (3, false));
/// let layer = config.init(&Device::flex());
/// assert!(layer.bias.is_none() && !layer.input_quantizer.is_enabled());
/// # }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent, crate = "burn::serde")]
pub struct LayerConfig<C>(pub(crate) C);

impl<C: Config> Config for LayerConfig<C> {}

impl<C: Config> fmt::Display for LayerConfig<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&config_to_json(&self.0))
    }
}

impl<C> From<C> for LayerConfig<C> {
    fn from(config: C) -> Self {
        Self(config)
    }
}

impl<C> Deref for LayerConfig<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.0
    }
}

impl<C> DerefMut for LayerConfig<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.0
    }
}

/// A [`LayerConfig`] with the builders of burn's configuration, which are named, and `init`.
///
/// The last line destructures burn's configuration: a field that it gains, loses or renames does not compile here.
macro_rules! layer_config {
    (
        $config:ident = $burn:ident => $layer:ident ($($device:ident)?);
        new($($required:ident: $required_type:ty),*);
        $($(#[$attribute:meta])* $with:ident($field:ident: $type:ty);)*
    ) => {
        layer_config! {
            @builders $config = $burn => $layer;
            new($($required: $required_type),*);
            $($(#[$attribute])* $with($field: $type);)*
        }

        impl crate::config::LayerConfig<$burn> {
            /// Creates a layer with fresh parameters and disabled activation quantizers.
            ///
            /// It computes what burn's layer does until rules enable its quantizers.
            pub fn init(&self $(, $device: &Device)?) -> $layer {
                self.0.init($($device)?).into()
            }
        }
    };
    (
        @builders $config:ident = $burn:ident => $layer:ident;
        new($($required:ident: $required_type:ty),*);
        $($(#[$attribute:meta])* $with:ident($field:ident: $type:ty);)*
    ) => {
        #[doc = concat!("burn's [`", stringify!($burn), "`], whose `init` makes a [`", stringify!($layer), "`].")]
        pub type $config = crate::config::LayerConfig<$burn>;

        impl crate::config::LayerConfig<$burn> {
            /// Creates a configuration with burn's defaults.
            ///
            /// What is required is what burn requires.
            #[allow(clippy::too_many_arguments, clippy::new_without_default)] // as burn's
            pub fn new($($required: $required_type),*) -> Self {
                Self($burn::new($($required),*))
            }

            $(
                $(#[$attribute])*
                ///
                /// The default is burn's.
                pub fn $with(self, $field: $type) -> Self {
                    Self(self.0.$with($field))
                }
            )*
        }

        impl From<crate::config::LayerConfig<$burn>> for $burn {
            fn from(config: crate::config::LayerConfig<$burn>) -> Self {
                config.0
            }
        }

        const _: fn($burn) = |$burn { $($required: _,)* $($field: _,)* }| ();
    };
}
