//! Why a configuration of ModelOpt could not be read.

use thiserror::Error;

use super::InvalidConfig;

/// Why a configuration of ModelOpt could not be read.
#[derive(Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ImportProblem {
    /// The text is not JSON.
    #[error("not JSON: {reason}")]
    NotJson {
        /// What the parser says.
        reason: String,
    },
    /// The text is not YAML.
    #[error("not YAML: {reason}")]
    NotYaml {
        /// What the parser says.
        reason: String,
    },
    /// A recipe imports what is not there, or itself.
    #[error("`{name}` cannot be imported: {reason}")]
    Import {
        /// The name, as it stands in the recipe.
        name: String,
        /// Why.
        reason: String,
    },
    /// A key that ModelOpt does not have.
    #[error("unknown key `{key}`")]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A value of another type, or outside its range.
    #[error("expected {expected}, found {found}")]
    Value {
        /// What would be right.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// An entry lacks a key.
    #[error("`{key}` is missing")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// An entry says neither what to configure nor whether to enable.
    #[error("an entry needs `cfg` or `enable`")]
    NothingSaid,
    /// An enabled entry with an empty configuration.
    #[error("an enabled entry has an empty `cfg`: leave it out to keep the attributes")]
    EmptyConfig,
    /// Attributes that only enable.
    #[error("attributes cannot be only {{\"enable\": true}}: use the entry's `enable`")]
    OnlyEnable,
    /// Two attributes that exclude each other.
    #[error("`{a}` and `{b}` exclude each other")]
    Exclusive {
        /// One.
        a: &'static str,
        /// The other.
        b: &'static str,
    },
    /// An axis that means nothing for the tensors that the pattern names.
    #[error("axes {axes} have no meaning for {target}: see the table of `QuantConfig::from_modelopt_json`")]
    Axes {
        /// As they are written.
        axes: String,
        /// Weights, activations, or quantizers of any kind.
        target: &'static str,
    },
    /// A dynamic block without scale bits, which ModelOpt's own documentation shows and its code refuses.
    #[error("dynamic `block_sizes` need `scale_bits`, [4, 3] or [8, 0]")]
    DynamicBlocksWithoutScale,
    /// A format that needs dynamic block scales.
    #[error("`num_bits` {bits} needs dynamic `block_sizes`")]
    NeedsDynamicBlocks {
        /// As it is written.
        bits: String,
    },
    /// A class of PyTorch without a counterpart in burn.
    #[error("the class `{class}` has no counterpart among burn's layers")]
    Class {
        /// The class.
        class: String,
    },
    /// An attribute of ModelOpt that has no counterpart.
    #[error("`{key}` = {value} has no counterpart: {instead}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What to do.
        instead: &'static str,
    },
    /// The attributes do not fit each other.
    #[error("{0}")]
    Invalid(#[from] InvalidConfig),
}

crate::debug_is_display!(ImportProblem);
