//! The chapters of the book whose code is compiled and run.

/// Quick start.
#[doc = include_str!("src/quick-start.md")]
pub mod quick_start {}

/// How it works.
#[doc = include_str!("src/how-it-works.md")]
pub mod how_it_works {}

/// Choosing a recipe.
#[doc = include_str!("src/choosing-a-recipe.md")]
pub mod choosing_a_recipe {}

/// Configuration.
#[doc = include_str!("src/configuration.md")]
pub mod configuration {}

/// Calibration, and a chapter for each algorithm.
pub mod calibration {
    /// Calibration.
    #[doc = include_str!("src/calibration/index.md")]
    pub mod overview {}

    /// Max.
    #[doc = include_str!("src/calibration/max.md")]
    pub mod max {}

    /// Percentile.
    #[doc = include_str!("src/calibration/percentile.md")]
    pub mod percentile {}

    /// Entropy.
    #[doc = include_str!("src/calibration/entropy.md")]
    pub mod entropy {}

    /// Histogram MSE.
    #[doc = include_str!("src/calibration/histogram-mse.md")]
    pub mod histogram_mse {}

    /// Moving average.
    #[doc = include_str!("src/calibration/moving-average.md")]
    pub mod moving_average {}

    /// Activation headroom.
    #[doc = include_str!("src/calibration/activation-headroom.md")]
    pub mod activation_headroom {}

    /// Weight MSE.
    #[doc = include_str!("src/calibration/mse.md")]
    pub mod mse {}

    /// Local Hessian.
    #[doc = include_str!("src/calibration/local-hessian.md")]
    pub mod local_hessian {}

    /// SmoothQuant.
    #[doc = include_str!("src/calibration/smoothquant.md")]
    pub mod smoothquant {}

    /// AWQ.
    #[doc = include_str!("src/calibration/awq.md")]
    pub mod awq {}

    /// SVDQuant.
    #[doc = include_str!("src/calibration/svdquant.md")]
    pub mod svdquant {}

    /// GPTQ.
    #[doc = include_str!("src/calibration/gptq.md")]
    pub mod gptq {}

    /// AdaRound.
    #[doc = include_str!("src/calibration/adaround.md")]
    pub mod adaround {}

    /// Bias correction.
    #[doc = include_str!("src/calibration/bias-correction.md")]
    pub mod bias_correction {}

    /// Preparing a model.
    #[doc = include_str!("src/calibration/preparing.md")]
    pub mod preparing {}

    /// An algorithm of your own.
    #[doc = include_str!("src/calibration/custom.md")]
    pub mod custom {}

    /// Several devices or processes.
    #[doc = include_str!("src/calibration/data-parallel.md")]
    pub mod data_parallel {}
}

/// Auto-quantize.
#[doc = include_str!("src/auto-quantize.md")]
pub mod auto_quantize {}

/// Quantization-aware training.
#[doc = include_str!("src/quantization-aware-training.md")]
pub mod quantization_aware_training {}

/// Folding and records.
#[doc = include_str!("src/folding-and-records.md")]
pub mod folding_and_records {}

/// Packed models.
#[doc = include_str!("src/packed-models.md")]
pub mod packed_models {}

/// Graphs.
#[doc = include_str!("src/graphs.md")]
pub mod graphs {}

/// Deployment: ONNX.
#[doc = include_str!("src/onnx.md")]
pub mod onnx {}

/// Language models.
#[doc = include_str!("src/language-models.md")]
pub mod language_models {}

/// Layers, and models of your own.
#[doc = include_str!("src/layers.md")]
pub mod layers {}

/// Number formats.
#[doc = include_str!("src/number-formats.md")]
pub mod number_formats {}

/// When accuracy falls.
#[doc = include_str!("src/when-accuracy-falls.md")]
pub mod when_accuracy_falls {}

/// Pretrained models.
#[doc = include_str!("src/pretrained-models.md")]
pub mod pretrained_models {}

/// Coming from ModelOpt.
#[doc = include_str!("src/coming-from-modelopt.md")]
pub mod coming_from_modelopt {}

/// burn's own quantization, LoRA and QLoRA, and this.
#[doc = include_str!("src/burns-own-quantization.md")]
pub mod burns_own_quantization {}
