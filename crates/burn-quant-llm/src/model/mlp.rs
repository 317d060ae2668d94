//! Gated feed-forward layers, one for all tokens or a mixture of experts.

use burn::module::Module;
use burn::tensor::activation::{gelu, gelu_approximate, silu, softmax};
use burn::tensor::{DType, Device, Int, Tensor};
use burn_quant::nn::{QuantLinear, QuantLinearConfig};
use burn_quant::ops::Pointwise;

use crate::config::{Activation, DecoderConfig, Experts};

/// A feed-forward layer: either the three projections of one, or a router and experts.
#[derive(Module, Debug)]
pub struct Mlp {
    /// To the gates of a layer without experts.
    pub gate_proj: Option<QuantLinear>,
    /// To the features of a layer without experts.
    pub up_proj: Option<QuantLinear>,
    /// Back from the features of a layer without experts.
    pub down_proj: Option<QuantLinear>,
    /// The router: from features to a score of each expert.
    pub gate: Option<QuantLinear>,
    /// The experts; none in a layer without.
    pub experts: Vec<Expert>,
}

/// An expert: a gated feed-forward layer.
///
/// `down(f(gate(x)) · up(x))`.
#[derive(Module, Debug)]
pub struct Expert {
    /// To gates.
    pub gate_proj: QuantLinear,
    /// To features.
    pub up_proj: QuantLinear,
    /// Back from features.
    pub down_proj: QuantLinear,
}

impl Mlp {
    pub(super) fn new(config: &DecoderConfig, layer: usize, device: &Device) -> Self {
        let linear = |from, to| QuantLinearConfig::new(from, to).with_bias(config.mlp_bias).init(device);
        match config.experts.filter(|_| config.sparse[layer]) {
            None => Self {
                gate_proj: Some(linear(config.hidden, config.intermediate)),
                up_proj: Some(linear(config.hidden, config.intermediate)),
                down_proj: Some(linear(config.intermediate, config.hidden)),
                gate: None,
                experts: Vec::new(),
            },
            Some(Experts { count, intermediate, .. }) => {
                let linear = |from, to| QuantLinearConfig::new(from, to).with_bias(false).init(device);
                let expert = |_| Expert {
                    gate_proj: linear(config.hidden, intermediate),
                    up_proj: linear(config.hidden, intermediate),
                    down_proj: linear(intermediate, config.hidden),
                };
                Self {
                    gate_proj: None,
                    up_proj: None,
                    down_proj: None,
                    gate: Some(linear(config.hidden, count)),
                    experts: (0..count).map(expert).collect(),
                }
            }
        }
    }

    pub(super) fn linears(&self, path: &str) -> Vec<(String, &QuantLinear)> {
        let dense = [("gate_proj", &self.gate_proj), ("up_proj", &self.up_proj), ("down_proj", &self.down_proj)];
        let dense = dense.into_iter().chain([("gate", &self.gate)]);
        let dense = dense.filter_map(|(name, linear)| Some((format!("{path}.{name}"), linear.as_ref()?)));
        let experts = self.experts.iter().enumerate().flat_map(|(i, expert)| {
            let parts =
                [("gate_proj", &expert.gate_proj), ("up_proj", &expert.up_proj), ("down_proj", &expert.down_proj)];
            parts.map(|(name, linear)| (format!("{path}.experts.{i}.{name}"), linear))
        });
        dense.chain(experts).collect()
    }

    pub(super) fn linears_mut(&mut self, path: &str) -> Vec<(String, &mut QuantLinear)> {
        let dense = [
            ("gate_proj", &mut self.gate_proj),
            ("up_proj", &mut self.up_proj),
            ("down_proj", &mut self.down_proj),
            ("gate", &mut self.gate),
        ];
        let dense = dense.into_iter().filter_map(|(name, linear)| Some((format!("{path}.{name}"), linear.as_mut()?)));
        let experts = self.experts.iter_mut().enumerate().flat_map(|(i, expert)| {
            let parts = [
                ("gate_proj", &mut expert.gate_proj),
                ("up_proj", &mut expert.up_proj),
                ("down_proj", &mut expert.down_proj),
            ];
            parts.map(|(name, linear)| (format!("{path}.experts.{i}.{name}"), linear))
        });
        dense.chain(experts).collect()
    }

    /// `x` is `[batch, tokens, hidden]`, the result too.
    pub(super) fn forward(&self, x: Tensor<3>, config: &DecoderConfig) -> Tensor<3> {
        match (&self.gate_proj, &self.up_proj, &self.down_proj, &self.gate) {
            (Some(gate), Some(up), Some(down), _) => gated([gate, up, down], x, config.activation),
            (.., Some(router)) => self.mixture(router, x, config),
            _ => unreachable!("a layer has projections or a router"),
        }
    }

    /// Each token passes the experts that its router scores highest. Which these are is read from the device, once for
    /// a layer, so that an expert sees its own tokens and nothing else.
    fn mixture(&self, router: &QuantLinear, x: Tensor<3>, config: &DecoderConfig) -> Tensor<3> {
        let Experts { per_token, normalized, .. } = config.experts.expect("layers with experts have their numbers");
        let ([batch, tokens, hidden], device) = (x.dims(), x.device());
        let rows = x.reshape([batch * tokens, hidden]);
        let shares = softmax(router.forward(rows.clone()).cast(DType::F32), 1);
        let (mut shares, experts) = shares.topk_with_indices(per_token, 1);
        if normalized {
            shares = shares.clone() / shares.sum_dim(1);
        }
        let shares = shares.cast(rows.dtype()).reshape([batch * tokens * per_token, 1]);
        let chosen: Vec<i64> = experts.into_data().convert::<i64>().try_into_vec().expect("indices are integers");
        let mut y = Tensor::<2>::zeros([batch * tokens, hidden], (&device, rows.dtype()));
        for (i, expert) in self.experts.iter().enumerate() {
            let places: Vec<i64> =
                chosen.iter().enumerate().filter(|(_, e)| **e == i as i64).map(|(place, _)| place as i64).collect();
            if places.is_empty() {
                continue;
            }
            let of_tokens: Vec<i64> = places.iter().map(|place| place / per_token as i64).collect();
            let indices = |of: &[i64]| Tensor::<1, Int>::from_data(of, &device);
            let input = rows.clone().select(0, indices(&of_tokens)).unsqueeze::<3>();
            let parts = [&expert.gate_proj, &expert.up_proj, &expert.down_proj];
            let output: Tensor<2> = gated(parts, input, config.activation).squeeze_dim(0);
            let output = output * shares.clone().select(0, indices(&places));
            y = y.select_assign(0, indices(&of_tokens), output, burn::tensor::IndexingUpdateOp::Add);
        }
        y.reshape([batch, tokens, hidden])
    }
}

fn gated([gate, up, down]: [&QuantLinear; 3], x: Tensor<3>, activation: Activation) -> Tensor<3> {
    let function = match activation {
        Activation::Silu => Some(Pointwise::Silu),
        Activation::Gelu => Some(Pointwise::Gelu),
        Activation::GeluTanh => None,
    };
    if let (Some(function), DType::F32) = (function, x.dtype()) {
        return down.forward(gate.forward_then(x.clone(), function) * up.forward(x));
    }
    let gates = gate.forward(x.clone());
    let dtype = gates.dtype();
    let gates = gates.cast(DType::F32); // one rounding, and not one for each operation of the function
    let gates = match activation {
        Activation::Silu => silu(gates),
        Activation::GeluTanh => gelu_approximate(gates),
        Activation::Gelu => gelu(gates),
    };
    down.forward(gates.cast(dtype) * up.forward(x))
}
