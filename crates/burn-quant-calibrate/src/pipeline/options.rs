//! What a quantization can be told besides its configuration.

use crate::solve::{AlgorithmOptions, CalibrationAlgorithm, CustomAlgorithms};
use burn_quant_core::place::{NoWeights, WeightLayouts};

/// How far a quantization has come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Quantizers are in place.
    Placed {
        /// All quantizers of the model.
        quantizers: usize,
        /// Those that are on.
        enabled: usize,
    },
    /// Calibration data went through the model, or the weights alone were read.
    Observed {
        /// Quantizers with statistics.
        quantizers: usize,
        /// Passes over the data so far.
        pass: usize,
        /// All passes.
        passes: usize,
    },
    /// A step of the algorithm begins with a layer.
    Solving {
        /// The path of the layer.
        layer: String,
    },
    /// Every static quantizer has its range.
    Solved,
}

/// What [`quantize_with`](super::quantize_with) can be told besides the configuration.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// # use burn::tensor::Device;
/// # use burn_nn::LinearConfig;
/// # let model = LinearConfig::new(8, 4).init(&Device::flex());
/// use burn_quant::calibrate::{Progress, QuantizeOptions};
/// use burn_quant::{presets, quantize_with};
///
/// let mut steps = Vec::new();
/// let options = QuantizeOptions::new().with_progress(|progress| steps.push(progress));
/// let (model, _) = quantize_with(model, &presets::int8_weight_only(), options, |_| {})?;
/// assert_eq!(steps.last(), Some(&Progress::Solved));
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub struct QuantizeOptions<'a> {
    pub(super) layouts: WeightLayouts,
    pub(super) algorithms: CustomAlgorithms,
    pub(super) siblings: Vec<Vec<String>>,
    pub(super) budget: Option<usize>,
    pub(super) no_weights: NoWeights,
    pub(super) progress: Box<dyn FnMut(Progress) + 'a>,
}

impl Default for QuantizeOptions<'_> {
    fn default() -> Self {
        Self {
            layouts: WeightLayouts::new(),
            algorithms: CustomAlgorithms::new(),
            siblings: Vec::new(),
            budget: None,
            no_weights: NoWeights::Refused,
            progress: Box::new(|_| {}),
        }
    }
}

impl<'a> QuantizeOptions<'a> {
    /// Creates the options that [`quantize`](super::quantize) has: the layouts of burn's layers, no budget, no
    /// listener.
    ///
    /// Each `with_` method changes one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows rules that disable all weights that others enable.
    ///
    /// A search uses it for its base; otherwise it is
    /// [`QuantError::NoWeightEnabled`](burn_quant_core::error::QuantError::NoWeightEnabled).
    pub fn allowing_no_weights(mut self) -> Self {
        self.no_weights = NoWeights::Allowed;
        self
    }

    /// Uses another table of weights, for structs of your own.
    ///
    /// See [`WeightLayouts`].
    pub fn with_layouts(mut self, layouts: WeightLayouts) -> Self {
        self.layouts = layouts;
        self
    }

    /// Makes an algorithm known by a name, for recipes with [`Algorithm::Custom`](crate::config::Algorithm::Custom).
    ///
    /// `constructor` gets the options of the recipe, and says what is wrong with them.
    ///
    /// # Example
    ///
    /// See [`CalibrationAlgorithm`].
    pub fn with_algorithm<C>(mut self, name: impl Into<String>, constructor: C) -> Self
    where
        C: Fn(&AlgorithmOptions) -> Result<Box<dyn CalibrationAlgorithm>, String> + Send + Sync + 'static,
    {
        self.algorithms = self.algorithms.with(name, constructor);
        self
    }

    /// Makes a table of algorithms known, each as by [`with_algorithm`](QuantizeOptions::with_algorithm).
    ///
    /// A crate of algorithms offers its table; a search takes it too.
    pub fn with_algorithms(mut self, algorithms: CustomAlgorithms) -> Self {
        self.algorithms = self.algorithms.extended(algorithms);
        self
    }

    /// Names layers that read the same activations, each group by the paths of its layers: as siblings they may share a
    /// scale of SmoothQuant or AWQ, and share the range of static block scales.
    ///
    /// Of layers that are not named, those with the names of siblings are (`q_proj`, `k_proj`, `v_proj`, …). A captured
    /// graph knows all of them: `GraphModel::siblings` of `burn-quant-graph`, whatever the layers are called.
    pub fn with_siblings(mut self, siblings: &[Vec<String>]) -> Self {
        self.siblings.extend_from_slice(siblings);
        self
    }

    /// Keeps at most this many bytes of Gram matrices on the device at a time, `4·in²` per layer: what does not fit is
    /// collected in further calls of the forward loop, layers at a time. A layer that does not fit by itself has a pass
    /// of its own, and siblings stay together.
    ///
    /// What a solver needs is not counted: it works on one layer after the other, in the memory of the host. GPTQ takes
    /// about `20·in² + 8·in·out` bytes, as it factors the matrix in f64; SVDQuant about `24·in·out`.
    pub fn with_memory_budget(mut self, bytes: usize) -> Self {
        self.budget = Some(bytes);
        self
    }

    /// Calls a listener at each step: placed, observed, a layer begins to be solved, solved.
    ///
    /// It runs on the calling thread; draw a bar with it.
    pub fn with_progress(mut self, listener: impl FnMut(Progress) + 'a) -> Self {
        self.progress = Box::new(listener);
        self
    }
}
