//! Recipes for a server: algorithms that move scales between layers, where the server's files can hold the result.

use burn_quant::config::SiblingScales;
use burn_quant::{Algorithm, QuantConfig};

use crate::config::DecoderConfig;

/// Who will load the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A folder in ModelOpt's unified format: it holds scales of inputs, except of experts.
    ModelOpt,
    /// A folder of compressed-tensors: it holds no scales of inputs.
    CompressedTensors,
    /// A GGUF file: it holds no scales of inputs.
    Gguf,
}

/// Returns a recipe whose result a target can hold.
///
/// SmoothQuant and AWQ scale the inputs of layers. Where the target has no place for such a scale, it must move into
/// what comes before, so siblings get one scale together; and layers before which nothing can take it are left
/// unsmoothed: `o_proj` where heads share values, and the experts of a mixture. Everything else stays.
///
/// # Example
///
/// ```
/// # let json = serde_json::json!({
/// #     "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4,
/// #     "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 256,
/// # });
/// # let decoder = burn_quant_llm::DecoderConfig::of_json(&json)?;
/// use burn_quant::presets;
/// use burn_quant_llm::{Target, recipe_for};
///
/// let recipe = recipe_for(presets::int4_awq(), &decoder, Target::Gguf);
/// assert_eq!(recipe.algorithm.name(), "sequence"); // ranges of all layers, then AWQ of those that can be scaled
/// assert_eq!(recipe_for(presets::int4_awq(), &decoder, Target::ModelOpt), presets::int4_awq());
/// # Ok::<(), burn_quant_llm::LlmError>(())
/// ```
pub fn recipe_for(config: QuantConfig, decoder: &DecoderConfig, target: Target) -> QuantConfig {
    let has_experts = decoder.sparse.contains(&true);
    let mut layers: Vec<String> = ["q_proj", "k_proj", "v_proj"].map(|part| format!("*self_attn.{part}")).to_vec();
    if target == Target::ModelOpt || decoder.heads == decoder.kv_heads {
        layers.push("*self_attn.o_proj".into());
    }
    if decoder.sparse.contains(&false) {
        layers.extend(["gate_proj", "up_proj", "down_proj"].map(|part| format!("*.mlp.{part}")));
    }
    if target == Target::ModelOpt && !has_experts {
        return config;
    }
    let algorithm = adapted(config.algorithm.clone(), &layers, target);
    config.with_algorithm(algorithm)
}

fn adapted(algorithm: Algorithm, layers: &[String], target: Target) -> Algorithm {
    let shared = |sharing: SiblingScales| if target == Target::ModelOpt { sharing } else { SiblingScales::Shared };
    let only = |algorithm: Algorithm| {
        let algorithm = Box::new(algorithm);
        Algorithm::Sequence(vec![Algorithm::Max, Algorithm::ForLayers { layers: layers.to_vec(), algorithm }])
    };
    match algorithm {
        Algorithm::SmoothQuant { alpha, sharing } => only(Algorithm::SmoothQuant { alpha, sharing: shared(sharing) }),
        Algorithm::AwqLite { alpha_step, sharing, identity } => {
            only(Algorithm::AwqLite { alpha_step, sharing: shared(sharing), identity })
        }
        Algorithm::AwqFull { alpha_step, min_clip_ratio, shrink_step, sharing, identity } => {
            only(Algorithm::AwqFull { alpha_step, min_clip_ratio, shrink_step, sharing: shared(sharing), identity })
        }
        Algorithm::Sequence(steps) => {
            let adapted = steps.into_iter().map(|step| adapted(step, layers, target));
            let flat = adapted.flat_map(|step| match step {
                Algorithm::Sequence(steps) => steps,
                other => vec![other],
            });
            Algorithm::Sequence(flat.collect())
        }
        other => other,
    }
}
