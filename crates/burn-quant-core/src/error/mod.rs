//! Why a model could not be quantized.

mod import;

use burn_quant_ops::numerics::{Format, ScaleFormat};
use thiserror::Error;

pub use import::ImportProblem;

use crate::layout::Role;

/// Makes `Debug` print what `Display` does: a `main` that returns a `Result` prints `Debug`, and the advice must not be
/// lost there.
#[doc(hidden)] // of the toolkit's own crates
#[macro_export]
macro_rules! debug_is_display {
    ($($error:ty),+) => {
        $(
            impl std::fmt::Debug for $error {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    std::fmt::Display::fmt(self, f)
                }
            }
        )+
    };
}

debug_is_display!(QuantError, InvalidConfig, NotScoredReason);

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
            format!(" in its call {call}, counted from 0; a layer may be called several times per batch")
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
         format, or leave parameters that are not quantized exclude_from_budget",
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
    #[error("the loss of batch {batch}, counted from 0, is {loss}: look for bad inputs or labels, or a diverged model")]
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

/// Why a layer has no score by gradients.
#[derive(Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotScoredReason {
    /// The layer has no quantizer for its input.
    #[error(
        "{} has no quantizer for its input; {}score by divergence, or disable it",
        article(container),
        if container.starts_with("Quant") { "" } else { "use the layer of `burn_quant::nn` in its place, " }
    )]
    NoActivationQuantizer {
        /// The type of the layer.
        container: String,
    },
    /// The layer never recorded an output.
    #[error(
        "no batch reached it, or it is a layer of yours whose forward does not call `TensorQuantizer::layer`; score \
         batches that reach it, or disable it"
    )]
    NotReached,
    /// The layer recorded outputs, and no gradient came back to them.
    #[error(
        "it ran, and no gradient came back to its output: the loss does not depend on it, or it is detached; use its \
         output in the loss, score by divergence, or disable it"
    )]
    NoGradient,
}

/// What does not fit between a configuration and its quantizer.
#[derive(Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum InvalidConfig {
    /// A block of no elements.
    #[error("a block holds at least one element, found size 0")]
    EmptyBlock,
    /// Weights have no tokens.
    #[error("per-token granularity is for activations: use per-channel or blocks for a weight")]
    TokensOfWeight,
    /// The number of tokens or blocks of an activation changes from batch to batch.
    #[error("{granularity} granularity of an activation needs a dynamic range, found a static one")]
    StaticActivationGroups {
        /// The granularity.
        granularity: &'static str,
    },
    /// The axes are listed one by one, for another rank.
    #[error("{expected} axes are listed for a tensor of rank {found}")]
    Rank {
        /// Axes in the configuration.
        expected: usize,
        /// Axes of the tensor.
        found: usize,
    },
    /// A weight layout names an axis that the weight does not have.
    #[error("the weight's layout names axis {axis}, and the weight has rank {rank}: register the right layout")]
    Layout {
        /// The axis.
        axis: usize,
        /// Axes of the weight.
        rank: usize,
    },
    /// A quantizer looks for channels where its layer has none.
    #[error(
        "{} has its channels elsewhere than a quantizer with `Role::{found:?}` looks for them: make it with \
         `Role::{expected:?}`",
        article(layer)
    )]
    RoleOfLayer {
        /// The type of the layer.
        layer: String,
        /// The role of the quantizer.
        found: Role,
        /// The role that suits the layer.
        expected: Role,
    },
    /// Two-dimensional blocks need two different axes.
    #[error("two-dimensional blocks are for weights with separate channel and contracted axes")]
    BlocksOfActivation,
    /// Scales of fewer bits are those of blocks.
    #[error("{scale} scales belong to blocks: use block granularity, or f32 scales")]
    ScaleWithoutBlocks {
        /// The format of scales.
        scale: ScaleFormat,
    },
    /// These elements do not go under these scales.
    #[error(
        "{format} elements cannot have {scale} scales: use a signed integer or a minifloat (E2M1 for four over six)"
    )]
    FormatOfScale {
        /// The format of elements.
        format: Format,
        /// The format of scales.
        scale: ScaleFormat,
    },
    /// A power-of-two scale is always that of the data.
    #[error("E8M0 scales are taken from the data, found a static range: make the range dynamic")]
    StaticPowersOfTwo,
    /// A power-of-two scale is always that of the data.
    #[error("E8M0 scales are taken from the data, found a constant range: make the range dynamic")]
    ConstantPowersOfTwo,
    /// Static block scales belong to a static range.
    #[error("static E4M3 block scales need a static range, found a dynamic one: make the block scales dynamic")]
    StaticBlocksOfDynamicRange,
    /// Static block scales belong to a static range.
    #[error("static E4M3 block scales need a static range, found a constant one: make the block scales dynamic")]
    StaticBlocksOfConstantRange,
    /// A constant range is a positive number.
    #[error("a constant amax is finite and positive, found {}", number(*found))]
    ConstantRange {
        /// The amax.
        found: f32,
    },
    /// A bias has no blocks.
    #[error("a bias is shared along whole axes: use per-tensor, per-channel, per-token, or whole and single axes")]
    BlocksOfBias,
    /// A bias of each element leaves nothing to quantize.
    #[error("a bias must be shared by several elements: reduce at least one axis")]
    BiasOfEachElement,
    /// What remains around a bias has both signs.
    #[error("values around a bias have both signs: use a signed format")]
    BiasOfUnsigned,
    /// A rotation mixes powers of two.
    #[error("a rotation mixes a power of two of elements, at least 2, found {found}")]
    RotationBlock {
        /// The block.
        found: usize,
    },
    /// The axis cannot be cut into blocks of a rotation.
    #[error("an axis of {len} elements cannot be rotated in blocks of {block}: give a block that divides it, or none")]
    RotationAxis {
        /// Elements along the axis.
        len: usize,
        /// The block.
        block: usize,
    },
    /// What is learned is a static range with f32 scales.
    #[error(
        "`lsq` and `pact` learn a static range with f32 scales and no bias: change the gradient rule, or the range"
    )]
    NoRangeToLearn,
    /// Separate ranges are learned by LSQ only.
    #[error("`learned_ranges` belong to the gradient rule `lsq`: set it, or leave them out")]
    LearnedRangesWithoutLsq,
    /// These scales are not learned.
    #[error(
        "{format} elements with {scale} scales have no learned ranges: use f32 scales, or static E4M3 scales of a \
         minifloat"
    )]
    LearnedRangesOfScale {
        /// The format of elements.
        format: Format,
        /// The format of scales.
        scale: ScaleFormat,
    },
    /// An f32 scale is never rounded.
    #[error("f32 scales are never rounded, found `pre_scale` unrounded: leave it out, or use static E4M3 scales")]
    UnroundedPreScale,
    /// Neither rounding nor rotation.
    #[error("the quantizer neither rounds nor rotates: disable it instead")]
    NothingToDo,
    /// A chain within a chain.
    #[error("a quantizer of a chain has a chain of its own: list all of them in the first one's `then`")]
    NestedChain,
}

/// A number in few characters, however large or small.
pub fn number(value: impl Into<f64>) -> String {
    let value = value.into();
    let plain = value == 0.0 || !value.is_finite() || (1e-5..1e7).contains(&value.abs());
    // an f32 that was widened has digits that it never had
    let short = value as f32;
    match (f64::from(short) == value, plain) {
        (true, true) => short.to_string(),
        (false, true) => value.to_string(),
        (true, false) => format!("{short:e}"),
        (false, false) => format!("{value:e}"),
    }
}

fn article(container: &str) -> String {
    let vowel = container.starts_with(['A', 'E', 'I', 'O', 'U']);
    format!("{} `{container}`", if vowel { "an" } else { "a" })
}

/// Patterns of formats match layers that a format quantizes, those that leave layers out match all layers.
fn of_search(option: &str) -> &'static str {
    match option {
        "spaces" | "groups" => " that a format of the search quantizes",
        _ => " of the model",
    }
}

fn near(names: &[String]) -> String {
    match names {
        [] => " (it has none at all: use layers of `burn_quant::nn`, or register weight layouts)".into(),
        names => misses(names),
    }
}

fn misses(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(" (near misses: `{}`)", names.join("`, `")) }
}
