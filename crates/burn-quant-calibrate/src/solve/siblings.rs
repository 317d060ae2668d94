//! Layers that are fed by one tensor and run as one matrix product when deployed: those that the caller names, as a
//! captured graph shows them, and of the others those with the names of siblings.

use std::collections::BTreeMap;

use burn::tensor::Tensor;

use super::{LayerProblem, host};
use burn_quant_core::quantizer::Buffer;

/// Names of siblings: those of one parent and one row belong together. Source: ModelOpt 0.47, shared weight ranges; the
/// last row is burn's attention, whose layers count as siblings where they see the same tokens.
const SIBLINGS: [&[&str]; 4] =
    [&["q_proj", "k_proj", "v_proj"], &["gate_proj", "up_proj"], &["w1", "w3"], &["query", "key", "value"]];

/// The parent and the row of a layer, if its name is one of siblings.
fn family(layer: &str) -> Option<(&str, usize)> {
    let (parent, name) = layer.rsplit_once('.').unwrap_or(("", layer));
    SIBLINGS.iter().position(|names| names.contains(&name)).map(|row| (parent, row))
}

/// What siblings have in common.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family<'a> {
    Given(usize),
    Named(&'a str, usize),
}

/// Layers by name, siblings together, in the order of their first names; `given` are the siblings that are known.
pub(super) fn families<'a>(layers: impl Iterator<Item = &'a str>, given: &[Vec<String>]) -> Vec<Vec<String>> {
    let mut families: Vec<Vec<String>> = Vec::new();
    let mut places: BTreeMap<Family, usize> = BTreeMap::new();
    let known: BTreeMap<&str, usize> =
        given.iter().enumerate().flat_map(|(i, names)| names.iter().map(move |name| (&**name, i))).collect();
    for layer in layers {
        let of_layer = match known.get(layer) {
            Some(place) => Some(Family::Given(*place)),
            None => family(layer).map(|(parent, row)| Family::Named(parent, row)),
        };
        match of_layer.map(|family| *places.entry(family).or_insert(families.len())) {
            Some(place) if place < families.len() => families[place].push(layer.into()),
            _ => families.push(vec![layer.into()]),
        }
    }
    families
}

/// Whether layers saw the same inputs, bit for bit.
pub(super) fn share_inputs(layers: &[LayerProblem]) -> bool {
    let inputs = layers.iter().map(|layer| layer.input().ok());
    let Some(inputs) = inputs.collect::<Option<Vec<_>>>() else { return false };
    let amax: Vec<Vec<f32>> = inputs.iter().map(|input| host(input.amax.clone())).collect();
    amax.windows(2).all(|pair| pair[0] == pair[1]) && inputs.windows(2).all(|pair| pair[0].tokens == pair[1].tokens)
}

/// Gives siblings with static E4M3 block scales one range of the tensor, the largest of theirs.
pub(super) fn share_global_amax(layers: &mut [LayerProblem]) {
    let mut sharing: Vec<&mut LayerProblem> = layers
        .iter_mut()
        .filter(|layer| {
            layer.weight_quantizer().has_static_blocks() && layer.weight_quantizer().config().then.is_empty()
        })
        .collect();
    if sharing.len() < 2 {
        return;
    }
    let ranges = sharing.iter().filter_map(|layer| layer.weight_quantizer().buffer(Buffer::GlobalAmax));
    if let Some(largest) = ranges.reduce(Tensor::max_pair) {
        sharing.iter_mut().for_each(|layer| layer.set_global_amax(largest.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_are_those_of_one_parent() {
        let layers = ["a.k_proj", "a.o_proj", "a.q_proj", "b.q_proj", "k_proj", "v_proj", "m.up_proj"];
        assert_eq!(
            families(layers.into_iter(), &[]),
            [
                vec!["a.k_proj", "a.q_proj"],
                vec!["a.o_proj"],
                vec!["b.q_proj"],
                vec!["k_proj", "v_proj"],
                vec!["m.up_proj"]
            ]
        );
    }

    /// Attention over another sequence: the names are those of siblings, but the query reads something else.
    #[test]
    fn siblings_that_are_given_come_before_names() {
        let layers = ["a.query", "a.key", "a.value", "gate", "b.query", "b.key"];
        let given = [vec!["a.key".to_string(), "a.value".into()], vec!["gate".into(), "elsewhere".into()]];
        assert_eq!(
            families(layers.into_iter(), &given),
            [vec!["a.query"], vec!["a.key", "a.value"], vec!["gate"], vec!["b.query", "b.key"]]
        );
    }
}
