//! A layer in one of the formats that it could have, to be multiplied with.

use burn::tensor::Tensor;

use super::TensorQuantizer;

/// A layer in one of the formats that it could have.
#[derive(Clone, Debug)]
pub(crate) struct Operand {
    /// The weight before it is quantized, as one row, and its shape.
    pub(crate) weight: (Tensor<1>, Vec<usize>),
    pub(crate) weight_quantizer: Option<TensorQuantizer>,
    pub(crate) input_quantizer: Option<TensorQuantizer>,
    /// What is added to the bias, `[channels]`.
    pub(crate) bias: Option<Tensor<1>>,
}

impl Operand {
    fn weight<const W: usize>(&self) -> Tensor<W> {
        let (values, shape) = &self.weight;
        let shape: [usize; W] = shape.as_slice().try_into().expect("a layer reports a weight of its own rank");
        let weight = values.clone().reshape(shape);
        match &self.weight_quantizer {
            Some(quantizer) => quantizer.forward(weight),
            None => weight,
        }
    }

    /// The same with its weight quantized: what is multiplied with several times.
    #[cfg(feature = "autodiff")] // only a gradient asks for several products of one batch
    pub(crate) fn prepared(&self) -> Self {
        let weight = (self.quantized_weight(), self.weight.1.clone());
        Self { weight, weight_quantizer: None, ..self.clone() }
    }

    /// Its weight as it is quantized, as one row, in its own dtype.
    pub(crate) fn quantized_weight(&self) -> Tensor<1> {
        fn of<const W: usize>(operand: &Operand) -> Tensor<1> {
            operand.weight::<W>().reshape([operand.weight.0.dims()[0]])
        }
        match self.weight.1.len() {
            1 => of::<1>(self),
            2 => of::<2>(self),
            3 => of::<3>(self),
            4 => of::<4>(self),
            _ => of::<5>(self),
        }
    }

    /// What it makes of an input.
    pub(crate) fn output<const D: usize, const W: usize>(
        &self,
        input: &Tensor<D>,
        product: &dyn Fn(Tensor<D>, Tensor<W>) -> Tensor<D>,
    ) -> Tensor<D> {
        let input = input.clone();
        let (branch, quantized) = match &self.input_quantizer {
            Some(quantizer) => (quantizer.low_rank(input.clone()), quantizer.forward(input)),
            None => (None, input),
        };
        let mut output = product(quantized, self.weight());
        if let Some(branch) = branch {
            output = output + branch;
        }
        if let (Some(bias), Some(quantizer)) = (&self.bias, &self.input_quantizer) {
            let mut shape = [1; D];
            shape[quantizer.role().channel_axis(D)] = bias.dims()[0];
            output = output + bias.clone().reshape(shape);
        }
        output
    }
}
