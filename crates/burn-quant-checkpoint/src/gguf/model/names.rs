//! Names of tensors on both sides.
//!
//! ```text
//! model.layers.N.self_attn.q_proj.weight     ◄──►  blk.N.attn_q.weight
//! model.layers.N.mlp.experts.E.up_proj.weight ◄──►  part E of blk.N.ffn_up_exps.weight
//! ```
//!
//! Source: `tensor_mapping.py` of gguf-python 0.19.0.

use super::architecture::{Architecture, Family};

/// Tensors outside layers.
const OUTER: [(&str, &str); 3] =
    [("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];

/// Tensors of a layer.
const INNER: [(&str, &str); 13] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate", "ffn_gate_inp"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
];

/// Matrices of an expert: Qwen's name, Mixtral's name, the stacked tensor.
const EXPERT: [(&str, &str, &str); 3] =
    [("gate_proj", "w1", "ffn_gate_exps"), ("up_proj", "w3", "ffn_up_exps"), ("down_proj", "w2", "ffn_down_exps")];

/// Where a tensor of Hugging Face is in a GGUF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its name in the file.
    pub(super) name: String,
    /// Which part of the stacked tensor it is, if it belongs to an expert.
    pub(super) expert: Option<usize>,
    /// The heads whose rows have another order in the file.
    pub(super) heads: Option<usize>,
}

impl Architecture {
    /// Returns where a tensor of Hugging Face is in a file.
    ///
    /// `None` for names that the architecture has not.
    pub(super) fn place(&self, name: &str) -> Option<Place> {
        let (stem, kind) = name.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "weight" | "bias"))?;
        if let Some((_, outer)) = OUTER.iter().find(|(outer, _)| *outer == stem) {
            return Some(Place { name: format!("{outer}.{kind}"), expert: None, heads: None });
        }
        let (layer, rest) = stem.strip_prefix("model.layers.")?.split_once('.')?;
        let layer = number(layer).filter(|layer| *layer < self.layers)?;
        let experts = rest.strip_prefix("mlp.experts.").or_else(|| rest.strip_prefix("block_sparse_moe.experts."));
        if let Some(rest) = experts {
            let (expert, matrix) = rest.split_once('.')?;
            let expert = number(expert).filter(|expert| *expert < self.experts)?;
            let (.., stacked) = EXPERT.iter().find(|(qwen, mixtral, _)| matrix == *qwen || matrix == *mixtral)?;
            return Some(Place { name: format!("blk.{layer}.{stacked}.{kind}"), expert: Some(expert), heads: None });
        }
        let (_, inner) = INNER.iter().find(|(inner, _)| *inner == rest)?;
        let heads = match (self.family, *inner) {
            (Family::Llama | Family::Mixtral, "attn_q") => Some(self.heads),
            (Family::Llama | Family::Mixtral, "attn_k") => Some(self.kv_heads),
            _ => None,
        };
        Some(Place { name: format!("blk.{layer}.{inner}.{kind}"), expert: None, heads })
    }

    /// Returns the names of Hugging Face for a tensor of a file: one, or one for each expert.
    ///
    /// Empty for names that have none, such as `rope_freqs.weight`.
    pub(super) fn hugging_face(&self, name: &str) -> Vec<String> {
        self.find_hugging_face(name).unwrap_or_default()
    }

    fn find_hugging_face(&self, name: &str) -> Option<Vec<String>> {
        let (stem, kind) = name.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "weight" | "bias"))?;
        if let Some((outer, _)) = OUTER.iter().find(|(_, outer)| *outer == stem) {
            return Some(vec![format!("{outer}.{kind}")]);
        }
        let (layer, rest) = stem.strip_prefix("blk.")?.split_once('.')?;
        let layer = number(layer).filter(|layer| *layer < self.layers)?;
        let is_mixtral = self.family == Family::Mixtral;
        if let Some((qwen, mixtral, _)) = EXPERT.iter().find(|(.., stacked)| *stacked == rest) {
            let (block, matrix) = if is_mixtral { ("block_sparse_moe", mixtral) } else { ("mlp", qwen) };
            let name = |expert| format!("model.layers.{layer}.{block}.experts.{expert}.{matrix}.{kind}");
            return Some((0..self.experts).map(name).collect());
        }
        let inner = match rest {
            "ffn_gate_inp" if is_mixtral => "block_sparse_moe.gate",
            _ => INNER.iter().find(|(_, inner)| *inner == rest)?.0,
        };
        Some(vec![format!("model.layers.{layer}.{inner}.{kind}")])
    }
}

/// Reads a number as names have them: digits without zeros before them.
fn number(text: &str) -> Option<usize> {
    let number: usize = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn architecture(family: Family) -> Architecture {
        Architecture { family, layers: 2, heads: 4, kv_heads: 2, head: 16, experts: 3 }
    }

    #[test]
    fn every_name_leads_to_a_place_and_back() {
        for (family, names) in [
            (Family::Llama, &["lm_head.weight", "model.layers.1.self_attn.k_proj.bias"][..]),
            (Family::Mixtral, &["model.layers.0.block_sparse_moe.gate.weight"]),
            (Family::Qwen3, &["model.layers.0.self_attn.q_norm.weight", "model.norm.weight"]),
            (Family::Qwen3Moe, &["model.layers.1.mlp.gate.weight", "model.embed_tokens.weight"]),
        ] {
            for name in names {
                let place = architecture(family).place(name).unwrap();
                assert_eq!(architecture(family).hugging_face(&place.name), [*name], "{family:?}");
            }
        }
    }

    #[test]
    fn experts_are_parts_of_one_tensor() {
        let (mixtral, qwen) = (architecture(Family::Mixtral), architecture(Family::Qwen3Moe));
        let down = mixtral.place("model.layers.0.block_sparse_moe.experts.2.w2.weight").unwrap();
        assert_eq!((down.name.as_str(), down.expert), ("blk.0.ffn_down_exps.weight", Some(2)));
        assert_eq!(
            qwen.hugging_face("blk.0.ffn_down_exps.weight"),
            [0, 1, 2].map(|expert| format!("model.layers.0.mlp.experts.{expert}.down_proj.weight"))
        );
        assert_eq!(mixtral.place("model.layers.0.block_sparse_moe.experts.3.w2.weight"), None); // there are three
    }

    #[test]
    fn only_llama_orders_rows_by_pairs() {
        let name = "model.layers.0.self_attn.k_proj.weight";
        assert_eq!(architecture(Family::Llama).place(name).unwrap().heads, Some(2));
        assert_eq!(architecture(Family::Mixtral).place(name).unwrap().heads, Some(2));
        assert_eq!(architecture(Family::Qwen2).place(name).unwrap().heads, None);
    }

    #[test]
    fn foreign_names_have_no_place() {
        let llama = architecture(Family::Llama);
        for name in ["model.layers.2.mlp.up_proj.weight", "model.layers.01.mlp.up_proj.weight", "lm_head", "x.weight"] {
            assert_eq!(llama.place(name), None, "{name}");
        }
        assert!(llama.hugging_face("rope_freqs.weight").is_empty());
    }
}
