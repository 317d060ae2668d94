//! Names of formats, as tables print them and recipes have them.
//!
//! ```text
//! int8  uint8  int4 narrow          integers of 2 to 16 bits
//! e4m3 (fp8)  e5m2  e3m2  e2m3  e2m1  e1m2  nf4
//! mx e4m3 (mxfp8)  mx e3m2 (mxfp6)  mx e2m1 (mxfp4)  mx int8 (mxint8)      blocks of 32 under powers of two
//! nvfp4  nvfp4 static  nvfp4 4/6                                          blocks of 16 E2M1 under E4M3 scales
//! ```
//!
//! Source: our own; the names in brackets are ModelOpt's.

use burn_quant_ops::numerics::{BlockScale, Format, IntFormat, IntSpan, ScaleFormat, Signedness};

use super::QuantizerConfig;
use super::rule::near_misses;
use crate::error::QuantError;

/// Names that are told if one is unknown.
const KNOWN: [&str; 24] = [
    "int8",
    "int4",
    "int2",
    "int3",
    "int5",
    "int6",
    "int16",
    "uint8",
    "uint4",
    "e4m3",
    "e5m2",
    "e3m2",
    "e2m3",
    "e2m1",
    "e1m2",
    "nf4",
    "fp8",
    "mxfp8",
    "mxfp6",
    "mxfp4",
    "mxint8",
    "nvfp4",
    "nvfp4 static",
    "nvfp4 4/6",
];

impl QuantizerConfig {
    /// A quantizer by the name of its format, which is what [`kind`](QuantizerConfig::kind) prints: `int8`, `uint4`,
    /// `int4 narrow`, `e4m3`, `nf4`, `mx e4m3`, `nvfp4`, `nvfp4 static`, `nvfp4 4/6`; or ModelOpt's `fp8`, `mxfp8`,
    /// `mxfp6`, `mxfp4`, `mxint8`.
    ///
    /// MX formats come in blocks of 32 with a dynamic range, NVFP4 in blocks of 16; all others per tensor with a static
    /// range.
    ///
    /// # Errors
    ///
    /// [`QuantError::UnknownFormat`] with the most similar names.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant::QuantizerConfig;
    /// use burn_quant::config::Format;
    ///
    /// assert_eq!(QuantizerConfig::named("int4")?, QuantizerConfig::int(4));
    /// assert_eq!(QuantizerConfig::named("mxfp4")?, QuantizerConfig::mx(Format::E2M1));
    /// assert_eq!(QuantizerConfig::named(&QuantizerConfig::nvfp4().kind())?, QuantizerConfig::nvfp4());
    /// # Ok::<(), burn_quant::QuantError>(())
    /// ```
    pub fn named(name: &str) -> Result<Self, QuantError> {
        let plain = name.trim().to_lowercase().replace(['_', '-'], " ");
        named(&plain).ok_or_else(|| QuantError::UnknownFormat {
            name: name.into(),
            near_misses: near_misses(&plain, KNOWN.into_iter()),
        })
    }

    /// The name that stands for format, scales, granularity and range, where there is one: what a recipe leaves out
    /// then.
    pub(super) fn name(&self) -> Option<(String, QuantizerConfig)> {
        let bare = QuantizerConfig::new(self.format).with_scale(self.scale).kind();
        let named = named(&bare)?;
        (named.format == self.format && named.scale == self.scale).then_some((bare, named))
    }
}

fn named(name: &str) -> Option<QuantizerConfig> {
    let four_over_six = QuantizerConfig::nvfp4().with_scale(ScaleFormat::E4M3(BlockScale::StaticFourOverSix));
    Some(match name {
        "nvfp4" => QuantizerConfig::nvfp4(),
        "nvfp4 static" => QuantizerConfig::nvfp4_static(),
        "nvfp4 4/6" | "nvfp4 four over six" => four_over_six,
        "fp8" => QuantizerConfig::e4m3(),
        "mxfp8" => QuantizerConfig::mx(Format::E4M3),
        "mxfp6" => QuantizerConfig::mx(Format::E3M2),
        "mxfp4" => QuantizerConfig::mx(Format::E2M1),
        "mxint8" => QuantizerConfig::mxint8(),
        name => match name.strip_prefix("mx ") {
            Some(element) => QuantizerConfig::mx(element_format(element)?),
            None => QuantizerConfig::new(element_format(name)?),
        },
    })
}

/// The format of elements.
fn element_format(name: &str) -> Option<Format> {
    let format = match name {
        "e4m3" => Format::E4M3,
        "e5m2" => Format::E5M2,
        "e3m2" => Format::E3M2,
        "e2m3" => Format::E2M3,
        "e2m1" => Format::E2M1,
        "e1m2" => Format::E1M2,
        "nf4" => Format::Nf4,
        _ => {
            let (name, span) = match name.strip_suffix(" narrow") {
                Some(name) => (name, IntSpan::Narrow),
                None => (name, IntSpan::Full),
            };
            let (bits, signedness) = match name.strip_prefix("uint") {
                Some(bits) => (bits, Signedness::Unsigned),
                None => (name.strip_prefix("int")?, Signedness::Signed),
            };
            IntFormat::new(bits.parse().ok()?, signedness, span).ok()?.into()
        }
    };
    Some(format)
}
