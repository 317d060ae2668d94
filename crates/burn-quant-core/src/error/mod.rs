//! Why a model could not be quantized.

mod import;
mod invalid_config;
mod no_scheme;
mod not_packed;
mod not_scored;
mod text;

use thiserror::Error;

pub use import::ImportProblem;
pub use invalid_config::InvalidConfig;
pub use no_scheme::NoSchemeReason;
pub use not_packed::NotPackedReason;
pub use not_scored::NotScoredReason;
pub use text::number;

use crate::debug_is_display;
use text::{misses, near, of_layer, of_search};

debug_is_display!(QuantError);

/// Why a model could not be quantized; every variant says where, and what to do.
///
/// `Debug` prints the same sentence as `Display`, so that `fn main() -> Result<(), Box<dyn Error>>` shows it.
///
/// # Example
///
/// ```
/// use burn_quant::QuantConfig;
///
/// let error = QuantConfig::preset("int8_defualt").unwrap_err();
/// assert_eq!(format!("{error:?}"), error.to_string());
/// assert!(error.to_string().contains("near misses: `int8_default`"));
/// ```
#[derive(Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum QuantError {
    /// A pattern matched no quantizer of the model: a typo, or the model changed.
    #[error(
        "pattern `{pattern}`{} matches no quantizer of the model{}; fix it, or mark the rule optional",
        container.as_ref().map(|c| format!(" in containers `{c}`")).unwrap_or_default(),
        near(near_misses)
    )]
    NoMatch {
        /// The glob.
        pattern: String,
        /// The container that the rule asks for.
        container: Option<String>,
        /// The most similar names of quantizers that exist.
        near_misses: Vec<String>,
    },
    /// A pattern is for activations, and no layer of the model quantizes any: burn's layers have quantizers for weights
    /// only.
    #[error(
        "pattern `{pattern}` is for activations, and the model quantizes none: its {weights} weights are those of \
         layers without activation quantizers; replace `use burn::nn` by `use burn_quant::nn`, or take a weight-only \
         configuration such as `int8_weight_only`"
    )]
    NoActivations {
        /// The glob.
        pattern: String,
        /// Weights of the model that can be quantized.
        weights: usize,
    },
    /// Rules enable weights, and later ones disable all of them.
    #[error(
        "the rule for `{enabled_by}` enables weights, and that for `{disabled_by}` disables the last of them: no \
         weight is quantized; change the order of the rules, or leave one out"
    )]
    NoWeightEnabled {
        /// The glob of the last rule that enables a weight.
        enabled_by: String,
        /// The glob of the last rule that disables one.
        disabled_by: String,
    },
    /// Of rules that are alternatives, none matched a quantizer of the model.
    #[error(
        "none of the patterns `{}` matches a quantizer of the model{}: the configuration is for another kind of model",
        patterns.join("`, `"), near(near_misses)
    )]
    NoneMatched {
        /// The globs.
        patterns: Vec<String>,
        /// The most similar names of quantizers that exist.
        near_misses: Vec<String>,
    },
    /// A recipe names an algorithm that nobody registered.
    #[error(
        "no algorithm `{name}` is registered{}: register it with `QuantizeOptions::with_algorithm`",
        if known.is_empty() { String::new() } else { format!(" (but `{}`)", known.join("`, `")) }
    )]
    UnknownAlgorithm {
        /// Its name.
        name: String,
        /// Those that are registered.
        known: Vec<String>,
    },
    /// A recipe names an algorithm that is not built in, without options.
    #[error(
        "there is no algorithm `{name}`{}: one of your own is `{{ custom = {{ name = \"{name}\" }} }}`, and some take \
         options",
        misses(near_misses)
    )]
    NoAlgorithm {
        /// Its name.
        name: String,
        /// The most similar names of algorithms.
        near_misses: Vec<String>,
    },
    /// A name is not that of a format.
    #[error("there is no format `{name}`{}", misses(near_misses))]
    UnknownFormat {
        /// The name.
        name: String,
        /// The most similar names of formats.
        near_misses: Vec<String>,
    },
    /// A name is not that of a built-in configuration.
    #[error("there is no built-in configuration `{name}`{}", misses(near_misses))]
    UnknownPreset {
        /// The name.
        name: String,
        /// The most similar names of built-in configurations.
        near_misses: Vec<String>,
    },
    /// A glob of a search, or of an algorithm for some layers, matches no layer.
    #[error("`{option}`: `{pattern}` matches no layer{}{}", of_search(option), misses(near_misses))]
    NoLayer {
        /// The option that holds the pattern.
        option: &'static str,
        /// The glob, or the regular expression.
        pattern: String,
        /// The most similar paths of layers that exist.
        near_misses: Vec<String>,
    },
    /// An option of an algorithm is out of its range.
    #[error("`{option}` of the algorithm `{algorithm}` is {expected}, found {}", number(*found))]
    AlgorithmOption {
        /// The algorithm.
        algorithm: String,
        /// The option.
        option: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: f64,
    },
    /// The options of a custom algorithm could not be read by it.
    #[error("the algorithm `{name}` does not take these options: {reason}")]
    CustomOptions {
        /// Its name.
        name: String,
        /// What it says.
        reason: String,
    },
    /// A sequence holds what cannot be a part of one.
    #[error("`{name}` cannot be part of a sequence of algorithms: list algorithms that calibrate, without nesting")]
    AlgorithmInSequence {
        /// The part.
        name: String,
    },
    /// The algorithm works on calibration data, and there is none.
    #[error(
        "the algorithm `{algorithm}` needs calibration data: call `quantize` with a forward loop, or calibrate by \
         `max` or `mse`"
    )]
    NeedsData {
        /// The algorithm.
        algorithm: String,
    },
    /// Statistics lack what an algorithm works on.
    #[error("the statistics of `{name}` have no {missing}: observe the model for the algorithm it is calibrated by")]
    MissingStatistics {
        /// The quantizer.
        name: String,
        /// What is missing.
        missing: &'static str,
    },
    /// A float layer was asked for, and its weight is quantized.
    #[error("the weight already has a `{by}`: prepare a model before it is quantized")]
    AlreadyQuantized {
        /// The name of the reparameterization.
        by: &'static str,
    },
    /// Two neighbouring layers do not fit.
    #[error("the first has {left} channels, the second {right}: give neighbours, in their order")]
    ChannelsDiffer {
        /// Channels of the first.
        left: usize,
        /// Channels of the second.
        right: usize,
    },
    /// Two histograms of one quantizer have bins that do not line up.
    #[error(
        "`{name}` has histograms with bins of {} and {}, which do not merge: use bin widths that are powers of two",
        number(*left),
        number(*right)
    )]
    HistogramsDiffer {
        /// The quantizer.
        name: String,
        /// One width.
        left: f32,
        /// The other.
        right: f32,
    },
    /// A name is not that of a quantizer of the model.
    #[error("the model has no quantizer `{name}`{}", near(near_misses))]
    UnknownQuantizer {
        /// The name.
        name: String,
        /// The most similar names of quantizers that exist.
        near_misses: Vec<String>,
    },
    /// A pattern is not a glob.
    #[error("`{pattern}` is not a glob pattern: {reason}")]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A configuration does not fit the quantizer it was given to.
    #[error("`{name}`: {problem}")]
    Config {
        /// The quantizer.
        name: String,
        /// What does not fit.
        problem: InvalidConfig,
    },
    /// A weight already has a reparameterization of another kind; burn cannot nest them.
    #[error(
        "weight `{path}` already has the reparameterization `{found}`, and burn cannot nest them: materialize it \
         first, or disable the weight's quantizer"
    )]
    ForeignReparameterization {
        /// The path of the parameter.
        path: String,
        /// The name of the reparameterization.
        found: String,
    },
    /// Static activation quantizers need calibration data, and no forward loop was given.
    #[error(
        "{} of the enabled quantizers need calibration data, first `{}`: call `quantize` with a forward loop, or use \
         a weight-only or dynamic configuration",
        names.len(), names[0]
    )]
    NeedsForwardLoop {
        /// The quantizers, at least one.
        names: Vec<String>,
    },
    /// Calibration ended before this quantizer saw a value.
    #[error("`{name}` is static but saw no data: let the forward loop reach it, disable it, or make it dynamic")]
    NeverObserved {
        /// The quantizer.
        name: String,
    },
    /// The loop ran no batch through the model that it was given.
    #[error(
        "the forward loop ran no batch through the model that it was given, so `{name}` saw nothing: run the model \
         that the closure is given, not one from outside, and give at least one batch"
    )]
    NothingObserved {
        /// One of the quantizers that were to see data.
        name: String,
    },
    /// A weight holds a NaN or an infinity.
    #[error("the weight of `{name}` holds a NaN or an infinity: look for a diverged model or a damaged file")]
    NonFiniteWeight {
        /// The quantizer.
        name: String,
    },
    /// Two steps of a sequence cannot both act on a quantizer.
    #[error(
        "`{first}` and `{second}` do not go together at `{at}`: {why}; leave one out, or restrict each to its own \
         layers"
    )]
    StepsConflict {
        /// The quantizer, or where else they meet.
        at: String,
        /// One of the steps.
        first: String,
        /// The other.
        second: String,
        /// What they both do.
        why: &'static str,
    },
    /// A step of a sequence undoes one before it.
    #[error(
        "at `{layer}`, `{first}, then `{then}, which undoes it: exchange the two, or restrict each to its own layers"
    )]
    StepOrder {
        /// The first layer that both are for.
        layer: String,
        /// The name of the step, and what it does.
        first: String,
        /// The name of the step that comes later, and what it does.
        then: String,
    },
    /// A layer does something that burn's layer of its kind does not.
    #[error(
        "burn's layer has no `{quantizer}`, and this one {what}: disable it first if its effect may be lost, or keep \
         the quantized layer"
    )]
    NotBurn {
        /// The field of the layer, or the name of the quantizer in a model.
        quantizer: String,
        /// What it does.
        what: &'static str,
    },
    /// A range cannot be that of a quantizer.
    #[error("the range of a quantizer is {expected}, found {found}")]
    Range {
        /// What was given.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// An algorithm gave a quantizer ranges that it cannot have.
    #[error("the algorithm `{algorithm}` gave `{quantizer}` {found}: its ranges are {expected}")]
    AlgorithmRange {
        /// The algorithm.
        algorithm: String,
        /// The quantizer.
        quantizer: String,
        /// What it gave.
        found: String,
        /// What ranges may be.
        expected: String,
    },
    /// A weight has no packed form.
    #[error(
        "`{path}` cannot be packed: {reason}; `compress_with(model, WithoutPackedForm::Keep)` leaves such weights \
         fake-quantized"
    )]
    NotPacked {
        /// The path of the weight.
        path: String,
        /// Why not.
        #[source]
        reason: NotPackedReason,
    },
    /// Keys or values have no packed form in a cache.
    #[error(
        "{tokens}{} cannot be cached as codes: {reason}; give that quantizer a format that can, or take a cache in \
         floats",
        of_layer(layer)
    )]
    NotCached {
        /// The path of the attention layer; empty if the quantizers are those of no known one.
        layer: String,
        /// `keys` or `values`.
        tokens: &'static str,
        /// Why not.
        #[source]
        reason: NotPackedReason,
    },
    /// A weight has no scheme of burn's own quantization.
    #[error("`{path}` has no scheme of burn's own quantization: {reason}")]
    NoBurnScheme {
        /// The path of the weight.
        path: String,
        /// Why not.
        #[source]
        reason: NoSchemeReason,
    },
    /// A weight of a packed model is to be quantized or changed.
    #[error(
        "`{path}` is packed: quantize the float model, or `decompress` this one, whose weights are then their rounded \
         values"
    )]
    Packed {
        /// The path of the weight.
        path: String,
    },
    /// A weight was quantized by burn.
    #[error("`{path}` holds a tensor that burn quantized: quantize the float model instead")]
    BurnQuantized {
        /// The path of the parameter.
        path: String,
    },
    /// The data that this quantizer saw holds a NaN or an infinity.
    #[error(
        "`{name}` saw a NaN or an infinity{}: look for bad inputs or a diverged model",
        batch.map_or(String::new(), |call| {
            format!(" in its {} call; a layer may be called several times per batch", text::ordinal(call))
        })
    )]
    NonFinite {
        /// The quantizer.
        name: String,
        /// The first call of the quantizer with bad data, counted from 0; unknown of statistics that come from
        /// elsewhere.
        batch: Option<u64>,
    },
    /// An unsigned quantizer saw a negative value.
    #[error("`{name}` is unsigned but saw {}: use a signed format where values can be negative", number(*lowest))]
    NegativeUnsigned {
        /// The quantizer.
        name: String,
        /// The lowest value it saw.
        lowest: f32,
    },
    /// The number of groups changed between two calls or two statistics.
    #[error("`{name}` has {expected} groups, then {found}: a static range needs inputs with the same channels")]
    GroupsChanged {
        /// The quantizer.
        name: String,
        /// Groups before.
        expected: usize,
        /// Groups now.
        found: usize,
    },
    /// A configuration of ModelOpt could not be read.
    #[error("ModelOpt configuration, at `{at}`: {problem}")]
    ModelOpt {
        /// The place in the JSON.
        at: String,
        /// What is wrong there.
        problem: ImportProblem,
    },
    /// A search makes no sense as it is configured.
    #[error("auto-quantize: {problem}")]
    Search {
        /// What does not fit.
        problem: String,
    },
    /// No selection of formats fits into a budget.
    #[error(
        "no selection of formats has {} bits per parameter: the least is {least:.4}; allow more, add a smaller \
         format, or exclude parameters that are not quantized from the budget",
        number(*effective_bits)
    )]
    Infeasible {
        /// The budget.
        effective_bits: f64,
        /// The fewest bits that can be reached.
        least: f64,
    },
    /// A layer has no score.
    #[error("`{layer}` cannot be scored by gradients: {reason}")]
    NotScored {
        /// The layer.
        layer: String,
        /// Why.
        reason: NotScoredReason,
    },
    /// The score of a format is no number: the float model, or the model with this format, computes a NaN or an
    /// infinity.
    #[error(
        "the score of `{layer}` as {format} is {score}: look for a NaN or an infinity in the batches, in the loss, or \
         in the outputs of the model with this format"
    )]
    ScoreNotFinite {
        /// The first layer of the group.
        layer: String,
        /// The format.
        format: String,
        /// NaN or an infinity.
        score: f64,
    },
    /// The loss of a batch is NaN or infinite, so its gradients say nothing.
    #[error(
        "the loss of the {} batch is {loss}: look for bad inputs or labels, or a diverged model",
        text::ordinal(*batch as u64)
    )]
    LossNotFinite {
        /// The batch, counted from 0.
        batch: usize,
        /// The loss.
        loss: f64,
    },
    /// The data of a search made no batch.
    #[error(
        "{step} ran no batch: `data` is called once for every format and once for scoring, and makes the batches anew \
         each time"
    )]
    NoBatches {
        /// What the batches were for.
        step: &'static str,
    },
    /// A search state is not that of the model, the configuration or the data.
    #[error("the search state does not fit: {problem}; start the search anew")]
    SearchState {
        /// What differs.
        problem: String,
    },
    /// A state could not be kept.
    #[error("the search state could not be saved: {reason}")]
    Checkpoint {
        /// What the listener said.
        reason: String,
    },
    /// A recipe file could not be read as a configuration.
    #[error("the recipe is not a quantization config in {language}: {reason}")]
    Recipe {
        /// JSON, TOML or YAML.
        language: &'static str,
        /// What the parser says, with line and column.
        reason: String,
    },
}

impl QuantError {
    /// Says which attention layer of a model a cache is for: `path` of the layer, in [`QuantError::NotCached`].
    ///
    /// Every other error stays as it is.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant::QuantError;
    /// use burn_quant::error::NotPackedReason;
    ///
    /// let reason = NotPackedReason::Uncalibrated;
    /// let error = QuantError::NotCached { layer: String::new(), tokens: "keys", reason };
    /// assert!(error.in_layer("layers.1.mha").to_string().starts_with("keys of `layers.1.mha` cannot be cached"));
    /// ```
    pub fn in_layer(self, path: &str) -> Self {
        match self {
            Self::NotCached { tokens, reason, .. } => Self::NotCached { layer: path.into(), tokens, reason },
            other => other,
        }
    }
}
