//! Float models: the logits of the reference.

use burn::tensor::Device;
use burn_quant_llm::Decoder;

use super::index::{Checkpoints, Entry, distance};

pub(crate) fn run(checkpoints: &Checkpoints, entry: &Entry, device: &Device) -> Vec<String> {
    let (_place, folder) = checkpoints.folder(&entry.path);
    let decoder = match Decoder::load(&folder, device) {
        Ok(decoder) => decoder,
        Err(error) => return vec![format!("it is not loaded: {error}")],
    };
    let reference = checkpoints.file(entry.reference.as_ref().expect("a float model has logits"));
    // a model in bf16 is computed in f32 here; where there are logits of that, they are the reference
    let (name, bound) = match reference.get("logits_f32_compute") {
        Some(_) => ("logits_f32_compute", 1e-5),
        None => ("logits", entry.tolerance("logits_rel_fro").expect("a bound")),
    };
    let expected = reference[name].to_f32(name).expect("floats");
    let logits = decoder.forward(checkpoints.evaluation(device), &mut decoder.cache());
    let found: Vec<f32> = logits.into_data().try_into_vec().expect("floats");
    let far = distance(&found, &expected);
    match far <= bound {
        true => Vec::new(),
        false => vec![format!("{name} are {far:.2e} away, bound {bound:.0e}")],
    }
}
