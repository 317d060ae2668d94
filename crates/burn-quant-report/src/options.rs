//! What a diagnosis can be told.

use std::time::Duration;

use crate::diagnosis::{Better, CurvePoint, RecipeResult};

/// How far a diagnosis has come.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum DiagnoseProgress {
    /// A batch went through the models.
    Batch {
        /// Batches so far.
        done: u64,
    },
    /// The metric was taken with some of the quantizers on.
    Sensitivity {
        /// The layer.
        layer: String,
        /// Layers so far.
        done: usize,
        /// All layers.
        of: usize,
        /// An estimate of the time that the others take.
        remaining: Duration,
    },
}

/// What is measured of a model, and which values are good.
pub(crate) struct MetricOf<'a, M> {
    pub(crate) name: String,
    pub(crate) better: Better,
    pub(crate) of: Box<dyn FnMut(&M) -> f64 + 'a>,
}

/// Options of [`diagnose`](crate::diagnose): a title, a metric, sensitivity, a listener.
///
/// # Example
///
/// ```
/// use burn_quant_report::{Better, DiagnoseOptions};
///
/// # type Model = ();
/// # fn accuracy(_: &Model) -> f64 { 0.9 }
/// let options = DiagnoseOptions::new()
///     .with_title("classifier, INT8")
///     .with_metric("accuracy", Better::Higher, |model: &Model| accuracy(model))
///     .with_sensitivity()
///     .with_progress(|progress| eprintln!("{progress:?}"));
/// # drop(options);
/// ```
pub struct DiagnoseOptions<'a, M> {
    pub(crate) title: String,
    pub(crate) metric: Option<MetricOf<'a, M>>,
    pub(crate) sensitivity: bool,
    pub(crate) worst_layers: usize,
    pub(crate) curve: Vec<CurvePoint>,
    pub(crate) recipes: Vec<RecipeResult>,
    pub(crate) graph: Option<String>,
    pub(crate) progress: Box<dyn FnMut(DiagnoseProgress) + 'a>,
}

impl<M> Default for DiagnoseOptions<'_, M> {
    fn default() -> Self {
        Self {
            title: "Quantized model".into(),
            metric: None,
            sensitivity: false,
            worst_layers: 8,
            curve: Vec::new(),
            recipes: Vec::new(),
            graph: None,
            progress: Box::new(|_| {}),
        }
    }
}

impl<'a, M> DiagnoseOptions<'a, M> {
    /// Creates options without a metric: outputs are compared, nothing else.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the model, for the head of the page.
    pub fn with_title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// Measures both models by a number of the user's: accuracy, perplexity.
    ///
    /// `of` gets a model and runs data of its own through it.
    pub fn with_metric(mut self, name: impl Into<String>, better: Better, of: impl FnMut(&M) -> f64 + 'a) -> Self {
        self.metric = Some(MetricOf { name: name.into(), better, of: Box::new(of) });
        self
    }

    /// Takes the metric with each layer quantized alone, and with all layers quantized but that one: two to four more
    /// evaluations for each layer. Without a metric nothing is taken.
    pub fn with_sensitivity(mut self) -> Self {
        self.sensitivity = true;
        self
    }

    /// Shows the channels of so many layers, those with the most noise; 8 by default.
    pub fn with_worst_layers(mut self, layers: usize) -> Self {
        self.worst_layers = layers;
        self
    }

    /// Shows accuracy against bits of an automatic search.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant::QuantError;
    /// use burn_quant::search::SearchState;
    /// use burn_quant_report::{CurvePoint, DiagnoseOptions};
    ///
    /// /// A page of the model that the search chose, with the best selections for 20 budgets.
    /// fn options<'a, M>(state: &SearchState) -> Result<DiagnoseOptions<'a, M>, QuantError> {
    ///     let curve = state.curve(20)?;
    ///     let points = curve.points.iter().map(|point| &point.selection).chain(&state.best);
    ///     Ok(DiagnoseOptions::new().with_curve(points.map(|selection| CurvePoint {
    ///         bits: selection.effective_bits,
    ///         score: selection.score,
    ///         chosen: state.best.as_ref() == Some(selection),
    ///     })))
    /// }
    /// # let _ = options::<()>;
    /// ```
    pub fn with_curve(mut self, curve: impl IntoIterator<Item = CurvePoint>) -> Self {
        self.curve = curve.into_iter().collect();
        self
    }

    /// Shows other recipes for the same model beside it; see [`Diagnosis::as_recipe`](crate::Diagnosis::as_recipe).
    pub fn with_recipes(mut self, recipes: impl IntoIterator<Item = RecipeResult>) -> Self {
        self.recipes = recipes.into_iter().collect();
        self
    }

    /// Links to the graph of the model: an address relative to the page, as of an SVG file that `dot -Tsvg` made of
    /// `Graph::to_dot` of `burn-quant-graph`. The file is not part of the page.
    pub fn with_graph(mut self, address: impl Into<String>) -> Self {
        self.graph = Some(address.into());
        self
    }

    /// Calls a listener after each batch and each layer.
    ///
    /// It runs on the calling thread; draw a bar with it.
    pub fn with_progress(mut self, listener: impl FnMut(DiagnoseProgress) + 'a) -> Self {
        self.progress = Box::new(listener);
        self
    }
}
