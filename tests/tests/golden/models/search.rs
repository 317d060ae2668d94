//! Auto-quantize: scores, costs, and what is chosen.

use std::collections::BTreeMap;

use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Device, Int, Tensor};
use burn_quant::config::Identity;
use burn_quant::search::{AutoQuantization, AutoQuantizeConfig, Cost, Objective, SearchFormat, SearchState};
use burn_quant::{Algorithm, QuantConfig};
use burn_quant_tests::compare::agrees;
use serde_json::Value;

use super::{Cnn, Loader, Mlp, Network, Source, Sums, Transformer, blocks_along_rows_of_images};
use crate::index::{Case, Golden, Outcome, values, within};

pub(crate) fn run(golden: &Golden, case: &Case, device: &Device) -> Outcome {
    let model = case.config["model"].as_str().expect("a model");
    let of_model = |other: &&Case| other.group == format!("model_{model}");
    let parameters = golden.cases().iter().find(of_model).expect("the model has cases of its own");
    let source = Source { golden, case: parameters, device, dtype: burn::tensor::DType::F32 };
    match model {
        "mlp" => check(&source, case, &Mlp::load),
        "cnn" => check(&source, case, &Cnn::load),
        _ => check(&source, case, &Transformer::load),
    }
    .into()
}

/// The reference's rule of cost and its bisection; awq formats are calibrated with a quarter of the batches, as there.
fn config(case: &Case) -> AutoQuantizeConfig {
    let number = |value: &Value| value.as_u64().expect("a number") as usize;
    let steps = number(&case.config["num_calib_steps"]);
    let first = case.other["layers"].as_object().expect("layers by name").values().next().expect("a layer");
    let names = first["formats"].as_array().expect("formats").iter().map(|name| name.as_str().expect("a name"));
    let formats = names.filter(|name| *name != "NONE").map(|name| {
        let mut format = SearchFormat::preset(name).expect("a preset of the reference");
        format.config = with_blocks_of_sixteen(blocks_along_rows_of_images(format.config));
        if let Algorithm::AwqLite { identity, .. } | Algorithm::AwqFull { identity, .. } = &mut format.config.algorithm
        {
            *identity = Identity::NotTried;
        }
        format.name = name.into();
        let awq = format!("{:?}", format.config.algorithm).to_lowercase().contains("awq");
        format.calibration_batches = awq.then_some((steps / 4).max(1));
        format
    });
    let bits = case.config["constraints"]["effective_bits"].as_f64().expect("a budget");
    let config = AutoQuantizeConfig::new(bits, formats).with_cost(Cost::ModelOpt);
    let config = config.with_batches(steps, number(&case.config["num_score_steps"]));
    if case.config["method"] == "kl_div" { config.with_objective(Objective::ModelOptBisection) } else { config }
}

/// The blocks along rows of images are for convolutions, which not every model has.
fn with_blocks_of_sixteen(mut config: QuantConfig) -> QuantConfig {
    config.rules.iter_mut().for_each(|rule| rule.optional |= rule.quantizer.starts_with("conv"));
    config
}

fn check<M: Network>(source: &Source<'_>, case: &Case, load: &dyn Fn(&Loader) -> M) -> Result<(), String> {
    let golden = source.golden;
    case.expects_only(&["y"])?;
    let model = load(&Loader { source, device: source.device });
    let config = config(case);
    let data = |device: &Device| source.batches::<M>(device).into_iter().enumerate().collect::<Vec<_>>();
    let scale = if case.name.ends_with("small_loss") { 1e-3 } else { 1.0 };
    let loss = |logits: Tensor<2>, (step, _): &(usize, M::Input)| {
        let device = logits.device();
        let labels: Tensor<1, Int> = golden.ints(case, case.input(&format!("labels/{step}")), &device);
        CrossEntropyLossConfig::new().init(&device).forward(logits, labels) * scale
    };
    let forward = |model: &M, (_, batch): &(usize, M::Input)| model.forward(batch.clone(), Sums::OfTheLayer);
    let search = AutoQuantization::new(&config);
    let searched = match case.config["method"].as_str() {
        Some("gradient") => search.by_gradient(model, data, forward, loss),
        _ => search.by_divergence(model, data, forward),
    };
    let (model, state) = searched.map_err(|e| e.to_string())?;
    check_layers(case, &state)?;

    let best = state.best.as_ref().expect("the search is over");
    let exact = case.other.get("exact_optimum").filter(|exact| !exact.is_null());
    let (recipe, bits) = match exact {
        Some(exact) => (&exact["recipe"], &exact["effective_bits"]),
        None => (&case.other["chosen"], &case.other["effective_bits"]),
    };
    let expected: BTreeMap<String, Option<String>> = recipe
        .as_object()
        .expect("a format for each group")
        .iter()
        .map(|(name, format)| (name.clone(), format.as_str().filter(|format| *format != "NONE").map(String::from)))
        .collect();
    if best.formats != expected {
        return Err(format!("chosen {:?}, expected {expected:?}", best.formats));
    }
    let bits = bits.as_f64().expect("bits");
    if !within(best.effective_bits, bits, 1e-9 * bits) {
        return Err(format!("{} bits, expected {bits}", best.effective_bits));
    }
    if case.other["chosen"] == *recipe {
        let y = values(model.forward(M::input(source, "eval", source.device), Sums::OfTheLayer));
        let expected = golden.values(case, &case.expected["y"]);
        let float = golden.float_of(source.case);
        let float = golden.values(float, &float.expected["y"]);
        agrees(&y, &expected, Some(&float), 1e-5)?;
    }
    Ok(())
}

/// Scores within a ten thousandth where floats are added as on a host; costs exactly.
fn check_layers(case: &Case, state: &SearchState) -> Result<(), String> {
    let on_host = burn_quant_tests::device().0 == "flex";
    let sensitivity = case.other["sensitivity"]["score_max_rel_change_with_f64_accumulation"].as_f64().unwrap_or(0.0);
    let tolerance = f64::max(if on_host { 1e-4 } else { 1e-3 }, 4.0 * sensitivity);
    let layers = case.other["layers"].as_object().expect("layers by name");
    if layers.len() != state.groups.len() {
        return Err(format!("{} groups, expected {}", state.groups.len(), layers.len()));
    }
    for group in &state.groups {
        let layer = layers.get(group.name()).ok_or(format!("no group `{}` was expected", group.name()))?;
        let of_units: Vec<&str> = group.units.iter().map(|unit| unit.layer.as_str()).collect();
        if layer["modules"] != serde_json::json!(of_units) {
            return Err(format!("{of_units:?} are a group, expected {}", layer["modules"]));
        }
        for (j, (choice, score)) in group.choices.iter().zip(group.monotone_scores()).enumerate() {
            let format = choice.format.as_deref().unwrap_or("NONE");
            if layer["formats"][j] != format {
                return Err(format!("`{}`: {format} comes in place {j}, expected {}", group.name(), layer["formats"]));
            }
            let [cost, expected] = ["costs", "scores"].map(|key| layer[key][j].as_f64().expect("a number"));
            if !within(choice.cost / 16.0, cost, 1e-9 * cost) {
                return Err(format!("`{}`, {format}: costs {}, expected {cost}", group.name(), choice.cost / 16.0));
            }
            if !within(score, expected, tolerance * expected) {
                let name = group.name();
                return Err(format!(
                    "`{name}`, {format}: score {score:e}, expected {expected:e}, within {tolerance:e}"
                ));
            }
        }
    }
    Ok(())
}
