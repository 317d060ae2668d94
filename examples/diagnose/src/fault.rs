//! The faults, and how each is planted.

use burn::tensor::activation::relu;
use burn::tensor::{DType, Device, Distribution, Tensor};
use burn_quant::config::{AxisGroups, Granularity};
use burn_quant::{QuantConfig, QuantError, QuantizerConfig, Quantizers, Rule, presets, quantize};
use burn_quant_report::FindingKind;
use clap::ValueEnum;

use crate::network::{Network, WIDTH, factors, scale_outputs, unscale_inputs};

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// Nothing is wrong.
    Healthy,
    /// One channel between two layers is 60 times as large as the others.
    OutlierChannel,
    /// One channel between two layers is a thousandth of the others: rounding leaves nothing of it.
    DeadChannel,
    /// The ranges of a weight lie along its inputs.
    WrongAxis,
    /// A range is 1, as a tensor of ones that nobody filled.
    Uncalibrated,
    /// A range is a twentieth of the data.
    SaturatedRange,
    /// The ranges of two inputs are exchanged.
    SwappedScale,
    /// Rounding goes beyond the end of f16.
    Overflow,
    /// Training with a learning rate that was too high broke one layer.
    BrokenByTraining,
}

/// A float network, a configuration, and the quantized network that has a fault.
#[derive(Clone, Debug)]
pub(crate) struct Planted {
    pub(crate) float: Network,
    pub(crate) config: QuantConfig,
    pub(crate) quantized: Network,
}

impl Fault {
    /// Returns all faults, and the healthy network before them.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// Returns the finding that names it first; `None` where nothing is wrong.
    pub fn finding(self) -> Option<FindingKind> {
        match self {
            Self::Healthy => None,
            Self::OutlierChannel => Some(FindingKind::OutlierChannels),
            Self::DeadChannel => Some(FindingKind::LostChannels),
            Self::WrongAxis => Some(FindingKind::WrongAxis),
            Self::Uncalibrated => Some(FindingKind::Uncalibrated),
            Self::SaturatedRange => Some(FindingKind::Saturated),
            Self::SwappedScale => Some(FindingKind::SwappedRanges),
            Self::Overflow => Some(FindingKind::Overflow),
            Self::BrokenByTraining => Some(FindingKind::BrokenByTraining),
        }
    }

    /// Returns the quantizer, or the layer, that it is planted in.
    pub fn place(self) -> &'static str {
        match self {
            Self::Healthy => "",
            Self::OutlierChannel => "fc3.input_quantizer",
            Self::DeadChannel => "fc4.input_quantizer",
            Self::WrongAxis => "fc2.weight_quantizer",
            Self::Uncalibrated => "fc4.input_quantizer",
            Self::SaturatedRange | Self::SwappedScale => "fc2.input_quantizer",
            Self::Overflow => "fc3",
            Self::BrokenByTraining => "fc4.weight_quantizer",
        }
    }

    /// Makes a network with this fault.
    pub(crate) fn plant(self, batches: &[Tensor<2>], device: &Device) -> Result<Planted, QuantError> {
        let float = self.float(batches, device);
        let config = self.config();
        let quantized = calibrated(&self.trained(float.clone(), device), &config, batches)?;
        let quantized = self.with_broken_ranges(quantized, device)?;
        Ok(Planted { float, config, quantized })
    }

    /// The float network, which computes the same, or nearly so, in all cases.
    fn float(self, batches: &[Tensor<2>], device: &Device) -> Network {
        let mut network = Network::new(device);
        match self {
            Self::OutlierChannel => {
                let factors = factors(7, 60.0, device);
                scale_outputs(&mut network.fc2, factors.clone());
                unscale_inputs(&mut network.fc3, factors);
            }
            Self::DeadChannel => {
                let factors = factors(5, 1.0 / 1000.0, device);
                scale_outputs(&mut network.fc3, factors.clone());
                unscale_inputs(&mut network.fc4, factors);
            }
            Self::WrongAxis => {
                // outputs from 1/6 to 6
                let factors = Tensor::from_floats(std::array::from_fn::<f32, WIDTH, _>(spread), device);
                scale_outputs(&mut network.fc2, factors.clone());
                unscale_inputs(&mut network.fc3, factors);
            }
            Self::Overflow => {
                let largest: f32 = outputs_of_fc3(&network, Tensor::cat(batches.to_vec(), 0)).abs().max().into_scalar();
                let factors = Tensor::full([WIDTH], 65000.0 / largest, device);
                scale_outputs(&mut network.fc3, factors.clone());
                unscale_inputs(&mut network.fc4, factors);
                network = network.cast(DType::F16);
            }
            _ => {}
        }
        network
    }

    fn config(self) -> QuantConfig {
        let config = presets::int8_default();
        let int8 = QuantizerConfig::int(8);
        match self {
            Self::WrongAxis => {
                let along_inputs = Granularity::Axes(vec![AxisGroups::Each, AxisGroups::Whole]);
                let config = config.with_rule(Rule::set("fc2.weight_quantizer", int8.with_granularity(along_inputs)));
                config.with_rule(Rule::disable("fc3.*")) // its inputs differ as much
            }
            Self::Overflow => {
                let int4 = QuantizerConfig::int(4).per_channel();
                config.with_rule(Rule::set("fc3.weight_quantizer", int4))
            }
            Self::BrokenByTraining => config.with_rule(Rule::set("fc4.weight_quantizer", int8.per_channel().lsq())),
            _ => config,
        }
    }

    /// The network whose weights are quantized: where training broke a layer, its weight walked off at random.
    fn trained(self, mut network: Network, device: &Device) -> Network {
        if self == Self::BrokenByTraining {
            let steps = Tensor::random([WIDTH, WIDTH], Distribution::Normal(0.0, 0.35), device);
            network.fc4.weight = network.fc4.weight.clone().map(|weight| weight + steps);
        }
        network
    }

    fn with_broken_ranges(self, network: Network, device: &Device) -> Result<Network, QuantError> {
        let mut quantizers = Quantizers::of(&network);
        match self {
            Self::Uncalibrated => quantizers.get_mut(self.place())?.set_amax(Tensor::ones([1], device)),
            Self::SaturatedRange => {
                let quantizer = quantizers.get_mut(self.place())?;
                let amax = quantizer.amax().expect("it was calibrated");
                quantizer.set_amax(amax / 20.0);
            }
            Self::SwappedScale => {
                let [first, second] = [self.place(), "fc5.input_quantizer"];
                let amax = |name: &str| quantizers.get(name).map(|it| it.amax().expect("it was calibrated"));
                let (a, b) = (amax(first)?, amax(second)?);
                quantizers.get_mut(first)?.set_amax(b);
                quantizers.get_mut(second)?.set_amax(a);
            }
            _ => {}
        }
        quantizers.install(network)
    }
}

/// Calibrates a copy of a network.
pub(crate) fn calibrated(float: &Network, config: &QuantConfig, batches: &[Tensor<2>]) -> Result<Network, QuantError> {
    let (quantized, _) = quantize(float.clone(), config, |network| {
        for batch in batches {
            network.forward(in_dtype_of(network, batch));
        }
    })?;
    Ok(quantized)
}

/// A batch in the dtype of a network.
pub(crate) fn in_dtype_of(network: &Network, batch: &Tensor<2>) -> Tensor<2> {
    batch.clone().cast(network.fc1.weight.val().dtype())
}

/// From 1/6 to 6.
fn spread(channel: usize) -> f32 {
    2.0_f32.powf((channel % 11) as f32 / 2.0 - 2.5)
}

fn outputs_of_fc3(network: &Network, batch: Tensor<2>) -> Tensor<2> {
    network.fc3.forward(relu(network.fc2.forward(relu(network.fc1.forward(batch)))))
}
