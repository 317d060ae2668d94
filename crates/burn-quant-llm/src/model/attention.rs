//! Attention with shared keys and values.

use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, DType, Device, Int, Tensor};
use burn_quant::TensorQuantizer;
use burn_quant::nn::attention::KvCache;
use burn_quant::nn::{QuantLinear, QuantLinearConfig, QuantRmsNorm};
use burn_quant::ops::{is_capture, is_flex};
use burn_quant::place::Role;

use super::{norm, normed};
use crate::config::DecoderConfig;
use crate::rope::Rotation;

/// Attention whose heads of queries share keys and values.
///
/// ```text
/// softmax( rope(norm(x Wq)) · Qk(rope(norm(x Wk)))ᵀ / √head ) · Qv(x Wv) · Wo
/// ```
#[derive(Module, Debug)]
pub struct Attention {
    /// To queries.
    pub q_proj: QuantLinear,
    /// To keys.
    pub k_proj: QuantLinear,
    /// To values.
    pub v_proj: QuantLinear,
    /// From all heads to features.
    pub o_proj: QuantLinear,
    /// The norm of the queries of each head.
    pub q_norm: Option<QuantRmsNorm>,
    /// The norm of the keys of each head.
    pub k_norm: Option<QuantRmsNorm>,
    /// The quantizer of keys, which are kept quantized.
    pub k_bmm_quantizer: TensorQuantizer,
    /// The quantizer of values, which are kept quantized.
    pub v_bmm_quantizer: TensorQuantizer,
}

impl Attention {
    pub(super) fn new(config: &DecoderConfig, device: &Device) -> Self {
        let [bias, output_bias] = config.attention_bias;
        let linear = |from, to, bias| QuantLinearConfig::new(from, to).with_bias(bias).init(device);
        let (queries, keys) = (config.heads * config.head, config.kv_heads * config.head);
        let head_norm = || config.has_query_norms().then(|| norm(config, config.head, device));
        Self {
            q_proj: linear(config.hidden, queries, bias),
            k_proj: linear(config.hidden, keys, bias),
            v_proj: linear(config.hidden, keys, bias),
            o_proj: linear(queries, config.hidden, output_bias),
            q_norm: head_norm(),
            k_norm: head_norm(),
            k_bmm_quantizer: TensorQuantizer::disabled(Role::ChannelsLast),
            v_bmm_quantizer: TensorQuantizer::disabled(Role::ChannelsLast),
        }
    }

    /// `x` is `[batch, tokens, hidden]`, the result too.
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        config: &DecoderConfig,
        window: Option<usize>,
        rotation: &Rotation,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        let ([batch, tokens, _], head) = (x.dims(), config.head);
        let heads = |x: Tensor<3>, norm: &Option<QuantRmsNorm>| -> Tensor<4> {
            let n = x.dims()[2] / head;
            let x = x.reshape([batch, tokens, n, head]);
            match norm {
                Some(norm) => normed(norm, x, config),
                None => x,
            }
            .swap_dims(1, 2)
        };
        let queries = rotation.apply(heads(self.q_proj.forward(x.clone()), &self.q_norm));
        let keys = rotation.apply(heads(self.k_proj.forward(x.clone()), &self.k_norm));
        let values = heads(self.v_proj.forward(x), &None);
        let (keys, values) = cache.extend_quantized(keys, values, &self.k_bmm_quantizer, &self.v_bmm_quantizer);

        // a captured pass is for prompts of any length that the model knows, none of which exceeds a longer window
        let longest = config.positions.max(keys.dims()[2]);
        let window = window.filter(|window| !is_capture(&keys.device()) || *window < longest);
        let context = attention_of(queries, keys, values, window);
        self.o_proj.forward(context.swap_dims(1, 2).reshape([batch, tokens, config.heads * head]))
    }
}

/// Attention of queries `[batch, heads, new, features]` to keys and values `[batch, groups, all, features]`, each of
/// which several heads share; the new tokens are the last of all.
///
/// Flex computes the heads of several queries on all threads, and makes no scores of all heads at once; a capture
/// records that, with what a window hides, as other prompts may be longer than the window. Elsewhere, and for one
/// query, those that share keys are rows of one product.
fn attention_of(queries: Tensor<4>, keys: Tensor<4>, values: Tensor<4>, window: Option<usize>) -> Tensor<4> {
    let ([batch, heads, tokens, head], [_, groups, all, _]) = (queries.dims(), keys.dims());
    let device = queries.device();
    let captures = is_capture(&device);
    let apart = (is_flex(&device) || captures) && queries.dtype() == DType::F32;
    if apart && tokens > 1 && window.is_none_or(|window| all <= window) {
        let options = AttentionModuleOptions { is_causal: true, ..Default::default() };
        let behind = window.filter(|_| captures).map(|window| {
            let behind = distance(all - tokens, tokens, &device).greater_equal_elem(window as i64);
            behind.unsqueeze::<4>().expand([batch, heads, tokens, all])
        });
        return attention(queries, keys, values, behind, None, options);
    }
    let group = heads / groups;
    let queries = queries.reshape([batch, groups, group * tokens, head]);
    let mut scores = (queries.matmul(keys.transpose()) / (head as f64).sqrt()).cast(DType::F32);
    if let Some(hidden) = hidden(all - tokens, tokens, window, &scores.device()) {
        let hidden = hidden.repeat_dim(0, group).unsqueeze::<4>().expand([batch, groups, group * tokens, all]);
        scores = scores.mask_fill(hidden, f32::NEG_INFINITY);
    }
    softmax(scores, 3).cast(values.dtype()).matmul(values).reshape([batch, heads, tokens, head])
}

/// What new tokens do not see: those after them, and those that lie a window or more behind, `[new, all]`.
///
/// `None` if they see everything.
fn hidden(before: usize, new: usize, window: Option<usize>, device: &Device) -> Option<Tensor<2, Bool>> {
    let all = before + new;
    if new == 1 && window.is_none_or(|window| all <= window) {
        return None;
    }
    let distance = distance(before, new, device);
    let after = distance.clone().lower_elem(0);
    Some(match window {
        None => after,
        Some(window) => after.bool_or(distance.greater_equal_elem(window as i64)),
    })
}

/// How far behind each new token all tokens lie, `[new, all]`.
fn distance(before: usize, new: usize, device: &Device) -> Tensor<2, Int> {
    let all = before + new;
    let positions = |from: usize, to: usize| Tensor::<1, Int>::arange(from as i64..to as i64, device);
    positions(before, all).reshape([new, 1]) - positions(0, all).reshape([1, all])
}
