//! How much closer to the float model burn-quant's algorithms get than the reference's results.

use burn::tensor::{DType, Device};
use burn_quant::config::{ActOrder, CalibrationInputs, Identity, SiblingScales};
use burn_quant::{Algorithm, QuantConfig, quantize};

use super::{Loader, Mlp, Network, Source, Sums, Transformer, checks::sqnr};
use crate::config;
use crate::index::{Case, Golden, values};

/// Signal to noise of outputs, ours and the reference's, in decibels: for 4-bit weights by AWQ and by GPTQ.
///
/// With the reference's options the results are equal. Ours are AWQ with half the steps of its grids, and GPTQ with the
/// strongest channels first, on what AWQ-lite leaves: what one observation of the data allows.
pub(crate) fn gain(golden: &Golden, device: &Device) {
    let awq = Algorithm::AwqFull {
        alpha_step: 0.05,
        min_clip_ratio: 0.5,
        shrink_step: 0.025,
        sharing: SiblingScales::PerLayer,
        identity: Identity::Tried,
    };
    let order = ActOrder::On;
    let gptq = Algorithm::Gptq { damping: 0.01, block_size: 128, act_order: order, inputs: CalibrationInputs::Float };
    let gptq = Algorithm::Sequence(vec![Algorithm::awq_lite(), gptq]);
    for (suffix, algorithm) in [("int4_block32_awq_full", awq), ("int4_block32_gptq", gptq)] {
        for model in ["mlp", "transformer"] {
            let name = format!("{model}_{suffix}");
            let Some(case) = golden.cases().iter().find(|case| case.name == name) else { continue };
            let config = config::model(&case.config).expect("a configuration").with_algorithm(algorithm.clone());
            let source = Source { golden, case, device, dtype: DType::F32 };
            let own = match model {
                "mlp" => output(&source, &Mlp::load, &config),
                _ => output(&source, &Transformer::load, &config),
            };
            println!("gain {name} {:.3} {:.3}", sqnr(golden, case, &own), reference(golden, case));
        }
    }
}

fn reference(golden: &Golden, case: &Case) -> f64 {
    sqnr(golden, case, &golden.values(case, &case.expected["y"]))
}

fn output<M: Network>(source: &Source<'_>, load: &dyn Fn(&Loader) -> M, config: &QuantConfig) -> Vec<f32> {
    let batches = source.batches::<M>(source.device);
    let run = |model: &M| batches.iter().for_each(|batch| drop(model.forward(batch.clone(), Sums::OfTheLayer)));
    let (model, _) = quantize(load(&Loader { source, device: source.device }), config, run).expect("it is quantized");
    values(model.forward(M::input(source, "eval", source.device), Sums::OfTheLayer))
}
