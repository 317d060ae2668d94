//! Configurations with the fields of burn's, so that only the import changes where a layer is made.

/// A configuration with the fields, defaults and builders of burn's; `init` makes the quantized layer.
///
/// The fields are written once more because a derived configuration can be neither inherited nor re-exported with
/// another `init`; the conversions name every field, so a change in burn does not compile here.
macro_rules! config_like_burns {
    (
        $burn:ident, $config:ident => $layer:ident ($($device:ident)?) {
            $($(#[$attribute:meta])* $field:ident: $type:ty,)*
        }
    ) => {
        #[doc = concat!("The configuration of a [`", stringify!($layer), "`], field by field that of burn's: [`",
            stringify!($burn), "`].")]
        #[derive(Config, Debug)]
        pub struct $config {
            $(
                $(#[$attribute])*
                pub $field: $type,
            )*
        }

        config_conversions! { $burn, $config => $layer ($($device)?) { $($field),* } }
    };
}

/// What [`config_like_burns`] adds to the fields; by itself for those whose default is another field, which a macro
/// cannot name.
macro_rules! config_conversions {
    ($burn:ident, $config:ident => $layer:ident ($($device:ident)?) { $($field:ident),* }) => {
        impl $config {
            /// Creates a layer with fresh parameters and disabled activation quantizers.
            ///
            /// It computes what burn's layer does until rules enable its quantizers.
            pub fn init(&self $(, $device: &Device)?) -> $layer {
                $burn::from(self.clone()).init($($device)?).into()
            }
        }

        impl From<$config> for $burn {
            fn from(config: $config) -> Self {
                Self { $($field: config.$field,)* }
            }
        }

        impl From<$burn> for $config {
            fn from(config: $burn) -> Self {
                Self { $($field: config.$field,)* }
            }
        }
    };
}
