//! Whether the numbers of an algorithm make sense.

use super::{Algorithm, HistogramConfig, RangeSearch};
use burn_quant_core::config::matcher;
use burn_quant_core::error::QuantError;

impl Algorithm {
    /// Whether its numbers make sense.
    ///
    /// # Errors
    ///
    /// [`QuantError::AlgorithmOption`], and [`QuantError::AlgorithmInSequence`].
    pub fn validate(&self) -> Result<(), QuantError> {
        match self {
            Algorithm::None
            | Algorithm::Max
            | Algorithm::LsqInit
            | Algorithm::BiasCorrection
            | Algorithm::Custom { .. } => Ok(()),
            Algorithm::Sequence(steps) => steps.iter().try_for_each(|step| match step {
                Algorithm::Sequence(_) | Algorithm::None => {
                    Err(QuantError::AlgorithmInSequence { name: step.name().to_string() })
                }
                step => step.validate(),
            }),
            Algorithm::ForLayers { layers, algorithm } => {
                layers.iter().try_for_each(|glob| matcher(glob).map(drop))?;
                match &**algorithm {
                    Algorithm::Sequence(_) | Algorithm::ForLayers { .. } | Algorithm::None => {
                        Err(QuantError::AlgorithmInSequence { name: algorithm.name().to_string() })
                    }
                    single => single.validate(),
                }
            }
            Algorithm::Percentile { percentile, histogram } => {
                self.check((0.0..=100.0).contains(percentile), "percentile", "0 to 100", *percentile)?;
                self.bins(histogram)
            }
            Algorithm::Entropy { start_bin, stride, histogram }
            | Algorithm::HistogramMse { start_bin, stride, histogram } => {
                self.count("start_bin", *start_bin)?;
                self.count("stride", *stride)?;
                self.bins(histogram)
            }
            Algorithm::MovingAverage { momentum } => {
                self.check((0.0..1.0).contains(momentum), "momentum", "at least 0, below 1", (*momentum).into())
            }
            Algorithm::ActivationHeadroom { anchor_percentile, upper_percentile, rho } => {
                let percentile =
                    |name, p: f32| self.check(p > 0.0 && p <= 100.0, name, "above 0, at most 100", p.into());
                percentile("anchor_percentile", *anchor_percentile)?;
                percentile("upper_percentile", *upper_percentile)?;
                // beyond 448 / 2^-6 the anchor is below the smallest normal scale
                self.check(*rho > 0.0 && *rho < 28672.0, "rho", "above 0, below 28672", (*rho).into())
            }
            _ => self.validate_of_weights(),
        }
    }

    /// The same for algorithms that choose ranges of weights, or change them.
    fn validate_of_weights(&self) -> Result<(), QuantError> {
        match self {
            Algorithm::Mse(search) => self.search(search),
            Algorithm::LocalHessian { search, block_size, .. } => {
                self.count("block_size", *block_size)?;
                self.search(search)
            }
            Algorithm::SmoothQuant { alpha, .. } => {
                self.check((0.0..=1.0).contains(alpha), "alpha", "0 to 1", (*alpha).into())
            }
            Algorithm::AwqLite { alpha_step, .. } => self.share("alpha_step", *alpha_step),
            Algorithm::AwqClip { min_clip_ratio, shrink_step } => {
                self.share("min_clip_ratio", *min_clip_ratio)?;
                self.share("shrink_step", *shrink_step)
            }
            Algorithm::AwqFull { alpha_step, min_clip_ratio, shrink_step, .. } => {
                self.share("alpha_step", *alpha_step)?;
                self.share("min_clip_ratio", *min_clip_ratio)?;
                self.share("shrink_step", *shrink_step)
            }
            Algorithm::SvdQuant { rank, alpha_step, .. } => {
                self.count("rank", *rank)?;
                self.share("alpha_step", *alpha_step)
            }
            Algorithm::Gptq { damping, block_size, .. } => {
                self.amount("damping", *damping)?;
                self.count("block_size", *block_size)
            }
            Algorithm::AdaRound { iterations, regularization } => {
                self.count("iterations", *iterations)?;
                self.amount("regularization", *regularization)
            }
            _ => Ok(()),
        }
    }

    fn check(&self, holds: bool, option: &'static str, expected: &'static str, found: f64) -> Result<(), QuantError> {
        let algorithm = self.name().to_string();
        if holds { Ok(()) } else { Err(QuantError::AlgorithmOption { algorithm, option, expected, found }) }
    }

    fn share(&self, option: &'static str, value: f32) -> Result<(), QuantError> {
        // a step of less would take forever
        self.check((1e-4..=1.0).contains(&value), option, "0.0001 to 1", value.into())
    }

    fn amount(&self, option: &'static str, value: f32) -> Result<(), QuantError> {
        self.check(value >= 0.0 && value.is_finite(), option, "not negative", value.into())
    }

    fn count(&self, option: &'static str, value: usize) -> Result<(), QuantError> {
        self.check(value > 0, option, "at least 1", value as f64)
    }

    fn bins(&self, histogram: &HistogramConfig) -> Result<(), QuantError> {
        let bins = histogram.bins;
        self.check((16..=65536).contains(&bins), "bins", "16 to 65536", bins as f64)
    }

    fn search(&self, search: &RangeSearch) -> Result<(), QuantError> {
        let RangeSearch::Multipliers { start, stop, step, .. } = *search else { return Ok(()) };
        self.check(start > 0.0 && start.is_finite(), "start", "positive", start.into())?;
        self.check(stop >= start && stop.is_finite(), "stop", "at least `start`", stop.into())?;
        let enough = step > 0.0 && step >= (stop - start) / 10_000.0 && step.is_finite();
        self.check(enough, "step", "positive, and no more than 10000 of them", step.into())
    }
}
