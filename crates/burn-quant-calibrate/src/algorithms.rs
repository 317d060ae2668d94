//! The table of the built-in algorithms.
//!
//! A new algorithm is a file in `solve`, a variant of [`Algorithm`](crate::config::Algorithm), which is what recipes
//! say of it, and a row here. From the row follow its name, its default options, what they must be, and its steps.

/// Hands the table to another macro.
///
/// ```text
/// "name" | "older name": Algorithm::Variant { options } = default options,
///     check [what must hold of the options: functions of `config::algorithm::validate`],
///     solve [its steps: what implements `CalibrationAlgorithm`];
/// ```
macro_rules! algorithms {
    ($callback:ident) => {
        $callback! {
            "none": Algorithm::None = Algorithm::None,
                check [],
                solve [];
            "max": Algorithm::Max = Algorithm::Max,
                check [],
                solve [];
            "percentile": Algorithm::Percentile { percentile, histogram } =
                    Algorithm::percentile(default::percentile()),
                check [percentage("percentile", *percentile), bins(histogram)],
                solve [Step::new(super::percentile::Percentile { percentile, histogram })];
            "entropy": Algorithm::Entropy { start_bin, stride, histogram } = Algorithm::entropy(),
                check [count("start_bin", *start_bin), count("stride", *stride), bins(histogram)],
                solve [Step::new(super::entropy::Entropy { start_bin, stride, histogram })];
            "histogram_mse": Algorithm::HistogramMse { start_bin, stride, histogram } = Algorithm::histogram_mse(),
                check [count("start_bin", *start_bin), count("stride", *stride), bins(histogram)],
                solve [Step::new(super::histogram_mse::HistogramMse { start_bin, stride, histogram })];
            "moving_average": Algorithm::MovingAverage { momentum } =
                    Algorithm::MovingAverage { momentum: default::momentum() },
                check [below_one("momentum", *momentum)],
                solve [Step::new(super::moving_average::MovingAverage { momentum })];
            "lsq_init" | "mean_magnitude": Algorithm::LsqInit = Algorithm::LsqInit,
                check [],
                solve [Step::new(super::lsq_init::LsqInit)];
            "mse": Algorithm::Mse(search) = Algorithm::Mse(RangeSearch::default()),
                check [multipliers(search)],
                solve [Step::new(super::range_search::Mse { search })];
            "local_hessian": Algorithm::LocalHessian { search, block_size, inputs } = Algorithm::local_hessian(),
                check [count("block_size", *block_size), multipliers(search)],
                // errors are of what comes to the layer, as in the reference
                solve [
                    Step::new(super::range_search::LocalHessian { search, block_size }).on(inputs, CaptureAt::Input),
                ];
            "activation_headroom": Algorithm::ActivationHeadroom { anchor_percentile, upper_percentile, rho } =
                    Algorithm::activation_headroom(),
                check [
                    positive_percentage("anchor_percentile", *anchor_percentile),
                    positive_percentage("upper_percentile", *upper_percentile),
                    headroom("rho", *rho),
                ],
                solve [Step::new(super::activation_headroom::ActivationHeadroom {
                    anchor_percentile,
                    upper_percentile,
                    rho,
                })];
            "smoothquant": Algorithm::SmoothQuant { alpha, sharing } = Algorithm::smoothquant(default::alpha()),
                check [fraction("alpha", *alpha)],
                solve [Step::new(super::smoothquant::SmoothQuant { alpha, sharing })];
            "awq_lite": Algorithm::AwqLite { alpha_step, sharing, identity } = Algorithm::awq_lite(),
                check [step_of_one("alpha_step", *alpha_step)],
                solve [Step::new(super::awq_lite::AwqLite { alpha_step, sharing, identity })];
            "awq_clip": Algorithm::AwqClip { min_clip_ratio, shrink_step } = Algorithm::awq_clip(),
                check [step_of_one("min_clip_ratio", *min_clip_ratio), step_of_one("shrink_step", *shrink_step)],
                solve [Step::new(super::awq_clip::AwqClip { min_clip_ratio, shrink_step })];
            "awq_full": Algorithm::AwqFull { alpha_step, min_clip_ratio, shrink_step, sharing, identity } =
                    Algorithm::awq_full(),
                check [
                    step_of_one("alpha_step", *alpha_step),
                    step_of_one("min_clip_ratio", *min_clip_ratio),
                    step_of_one("shrink_step", *shrink_step),
                ],
                solve [
                    Step::new(super::awq_lite::AwqLite { alpha_step, sharing, identity }),
                    Step::new(super::awq_clip::AwqClip { min_clip_ratio, shrink_step }),
                ];
            "svdquant": Algorithm::SvdQuant { rank, alpha_step, skip_layers } = Algorithm::svdquant(default::rank()),
                check [count("rank", *rank), step_of_one("alpha_step", *alpha_step)],
                solve [Step::new(super::svdquant::SvdQuant::new(rank, alpha_step, &skip_layers)?)];
            "gptq": Algorithm::Gptq { damping, block_size, act_order, inputs } = Algorithm::gptq(),
                check [amount("damping", *damping), count("block_size", *block_size)],
                // errors are of what the layer multiplies, as in the reference
                solve [Step::new(super::gptq::Gptq { damping, block_size, act_order }).on(inputs, CaptureAt::Output)];
            "adaround": Algorithm::AdaRound { iterations, regularization } = Algorithm::adaround(),
                check [count("iterations", *iterations), amount("regularization", *regularization)],
                solve [Step::new(super::adaround::AdaRound { iterations, regularization })];
            "bias_correction": Algorithm::BiasCorrection = Algorithm::BiasCorrection,
                check [],
                solve [Step::new(super::bias_correction::BiasCorrection)];
        }
    };
}

pub(crate) use algorithms;
