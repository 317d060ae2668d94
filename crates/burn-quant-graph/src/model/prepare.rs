//! What makes a float model easier to quantize, found by the graph: no layer is named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use burn::backend::ir::{
    ActivationOperationIr, BaseOperationIr, BatchNormOpIr, ModuleOperationIr, OperationIr, ScalarIr, TensorId, TensorIr,
};
use burn::module::RunningState;
use burn::tensor::Tensor;
use burn_nn::{BatchNorm, BatchNormConfig};
use burn_quant_calibrate::prepare::{equalize, fold_batch_norm};
use burn_quant_core::error::QuantError;

use super::part::Part;
use super::{GraphModel, Placed, Running, Step};

impl GraphModel {
    /// Folds every batch norm into the layer before it, where nothing else reads what that computes: the model, and the
    /// paths of the layers with the norms that they took in.
    ///
    /// `w' = w·γ/σ`, `b' = (b − μ)·γ/σ + β`: see `prepare::fold_batch_norm`. Do it before quantizing.
    ///
    /// # Errors
    ///
    /// [`QuantError::AlreadyQuantized`] if a weight has a quantizer.
    pub fn fold_batch_norms(mut self) -> Result<(Self, Vec<(String, String)>), QuantError> {
        let mut folded = Vec::new();
        while let Some((at, norm, part)) = self.next_norm() {
            let op = self.program.steps[at].batch_norm().expect("it was found as one");
            let (out, gamma) = (op.out.clone(), op.gamma.id);
            let name = self.program.parameters.iter().find(|read| read.id == gamma);
            let name = name.map_or(String::new(), |read| owner_of(&read.name.path));
            self.parts[part].part = self.parts[part].part.clone().folded(norm)?;
            folded.push((self.parts[part].path(), name));
            let program = Arc::make_mut(&mut self.program);
            for step in &mut program.steps {
                if let Step::Part { part: of_step, output, .. } = step
                    && *of_step == part
                {
                    *output = out.clone();
                }
            }
            program.steps.remove(at);
        }
        self.without_unread();
        Ok((self, folded))
    }

    /// Gives the channels between neighbouring layers equal ranges in both, where there is nothing between them but
    /// rectifiers, pools, reshapes that keep channels, and no other reader: the model, and the pairs of paths.
    ///
    /// See `prepare::equalize`. Do it after folding batch norms, and before quantizing.
    ///
    /// # Errors
    ///
    /// [`QuantError::AlreadyQuantized`] if a weight has a quantizer.
    pub fn equalize(mut self) -> Result<(Self, Vec<(String, String)>), QuantError> {
        let mut equalized = Vec::new();
        for (first, second) in self.neighbours() {
            let (one, two) = (self.parts[first].part.clone(), self.parts[second].part.clone());
            if let Some((one, two)) = one.equalized(two)? {
                (self.parts[first].part, self.parts[second].part) = (one, two);
                equalized.push((self.parts[first].path(), self.parts[second].path()));
            }
        }
        self.running = Running::default();
        Ok((self, equalized))
    }

    /// The first batch norm that can be folded: its step, the norm, and the part that takes it in.
    fn next_norm(&self) -> Option<(usize, BatchNorm, usize)> {
        let readers = self.readers();
        self.program.steps.iter().enumerate().find_map(|(at, step)| {
            let op = step.batch_norm()?;
            let part = self.called_once_for(op.x.id)?;
            if readers.get(&op.x.id) != Some(&1) || !self.parts[part].part.is_linear_map() {
                return None;
            }
            let value = |tensor: &TensorIr| -> Option<Tensor<1>> {
                let read = self.program.parameters.iter().find(|read| read.id == tensor.id)?;
                Some(read.value(&self.parts).ranked())
            };
            let (gamma, beta) = (value(&op.gamma)?, value(&op.beta)?);
            let ScalarIr::Float(epsilon) = op.epsilon else { return None };
            let mut norm = BatchNormConfig::new(gamma.dims()[0]).with_epsilon(epsilon).init(&self.device);
            norm.gamma = norm.gamma.map(|_| gamma);
            norm.beta = norm.beta.map(|_| beta);
            norm.running_mean = RunningState::new(value(&op.mean)?);
            norm.running_var = RunningState::new(value(&op.variance)?);
            Some((at, norm, part))
        })
    }

    /// Pairs of parts with nothing between them that a factor per channel does not pass.
    fn neighbours(&self) -> Vec<(usize, usize)> {
        let readers = self.readers();
        let by_output: BTreeMap<TensorId, &Step> =
            self.program.steps.iter().flat_map(|step| step.outputs().into_iter().map(move |id| (id, step))).collect();
        let mut found = Vec::new();
        for step in &self.program.steps {
            let Step::Part { part: second, inputs, output, .. } = step else { continue };
            if self.called_once_for(output.id) != Some(*second) || !self.parts[*second].part.is_linear_map() {
                continue;
            }
            let (mut id, mut pooled) = (inputs[0].id, false);
            let first = loop {
                if readers.get(&id) != Some(&1) {
                    break None;
                }
                match by_output.get(&id) {
                    Some(Step::Operation(operation)) => match scales_through(operation) {
                        Some((before, pools)) => (id, pooled) = (before, pooled || pools),
                        None => break None,
                    },
                    Some(Step::Part { part, output, .. }) => {
                        break self.called_once_for(id).filter(|found| found == part).map(|part| (part, output));
                    }
                    None => break None,
                }
            };
            let Some((first, between)) = first.filter(|(first, _)| self.parts[*first].part.is_linear_map()) else {
                continue;
            };
            let linear = [first, *second].map(|part| matches!(self.parts[part].part, Part::Linear(_)));
            let (before, after) = (&between.shape, &inputs[0].shape);
            let of_one_axis = match linear {
                [true, true] => !pooled && before.last() == after.last(),
                // channels of convolutions are the second axis, those of linear layers the last
                [false, false] => before[..2] == after[..2],
                [false, true] => after.len() == 2 && before[..2] == after[..],
                [true, false] => before.len() == 2 && before[..] == after[..2],
            };
            if of_one_axis {
                found.push((first, *second));
            }
        }
        found
    }

    /// How often each tensor is read, as an output of the model too.
    fn readers(&self) -> BTreeMap<TensorId, usize> {
        let mut readers = BTreeMap::new();
        let returned = self.program.boundary.outputs.iter().map(|output| output.id);
        let read = self.program.steps.iter().flat_map(Step::inputs).chain(returned);
        read.for_each(|id| *readers.entry(id).or_default() += 1);
        readers
    }

    /// The part that computes a tensor, if it is called nowhere else and no operation reads its parameters.
    fn called_once_for(&self, id: TensorId) -> Option<usize> {
        let call = |step: &Step| match step {
            Step::Part { part, output, .. } => Some((*part, output.id)),
            Step::Operation(_) => None,
        };
        let calls = || self.program.steps.iter().filter_map(call);
        let (part, _) = calls().find(|(_, output)| *output == id)?;
        let read = self.program.parameters.iter().any(|read| read.part == part);
        (calls().filter(|(other, _)| *other == part).count() == 1 && !read).then_some(part)
    }

    /// Lets go of parameters that no operation reads any more.
    fn without_unread(&mut self) {
        let program = Arc::make_mut(&mut self.program);
        let read: BTreeSet<TensorId> = program.steps.iter().flat_map(Step::inputs).collect();
        program.parameters.retain(|parameter| read.contains(&parameter.id));
        let called = program.steps.iter().filter_map(|step| match step {
            Step::Part { part, .. } => Some(*part),
            Step::Operation(_) => None,
        });
        let used: BTreeSet<usize> = called.chain(program.parameters.iter().map(|read| read.part)).collect();
        let places: BTreeMap<usize, usize> = used.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        program.parameters.iter_mut().for_each(|read| read.part = places[&read.part]);
        for step in &mut program.steps {
            if let Step::Part { part, .. } = step {
                *part = places[part];
            }
        }
        let mut index = 0..;
        self.parts.retain(|_| index.next().is_some_and(|index| used.contains(&index)));
        self.running = Running::default();
    }
}

impl Step {
    fn batch_norm(&self) -> Option<&BatchNormOpIr> {
        match self {
            Step::Operation(operation) => match &**operation {
                OperationIr::Module(ModuleOperationIr::BatchNorm(op)) => Some(op),
                _ => None,
            },
            Step::Part { .. } => None,
        }
    }
}

/// What an operation reads, and whether it pools, if a positive factor of a channel passes it.
fn scales_through(operation: &OperationIr) -> Option<(TensorId, bool)> {
    use ModuleOperationIr as Op;
    match operation {
        OperationIr::Activation(ActivationOperationIr::Relu(op)) => Some((op.input.id, false)),
        OperationIr::Activation(ActivationOperationIr::LeakyRelu(op)) => Some((op.lhs.id, false)),
        OperationIr::Module(module) => match module {
            Op::MaxPool1d(op) => Some((op.x.id, true)),
            Op::MaxPool2d(op) => Some((op.x.id, true)),
            Op::AvgPool1d(op) => Some((op.x.id, true)),
            Op::AvgPool2d(op) => Some((op.x.id, true)),
            Op::AdaptiveAvgPool1d(op) => Some((op.x.id, true)),
            Op::AdaptiveAvgPool2d(op) => Some((op.x.id, true)),
            _ => None,
        },
        // axes of one element come and go; others would part channels
        OperationIr::BaseFloat(BaseOperationIr::Reshape(op)) => {
            let more_than_one = |tensor: &TensorIr| tensor.shape.iter().copied().filter(|len| *len > 1).collect();
            let (before, after): (Vec<usize>, Vec<usize>) = (more_than_one(&op.input), more_than_one(&op.out));
            (before == after).then_some((op.input.id, false))
        }
        _ => None,
    }
}

fn owner_of(path: &str) -> String {
    path.rsplit_once('.').map_or(String::new(), |(owner, _)| owner.into())
}

impl Placed {
    pub(super) fn path(&self) -> String {
        self.path.iter().map(|(name, _)| &**name).collect::<Vec<_>>().join(".")
    }
}

macro_rules! linear_maps {
    ($($part:ident)*) => {
        impl Part {
            fn is_linear_map(&self) -> bool {
                matches!(self, $(Part::$part(_))|*)
            }

            fn folded(self, norm: BatchNorm) -> Result<Self, QuantError> {
                match self {
                    $(Part::$part(layer) => Ok(Part::$part(fold_batch_norm(layer, norm)?)),)*
                    other => Ok(other),
                }
            }

            /// Both layers with equal ranges between them; `None` if channels of one are not those of the other.
            fn equalized(self, second: Self) -> Result<Option<(Self, Self)>, QuantError> {
                match self {
                    $(Part::$part(layer) => second.equalized_after(layer, Part::$part),)*
                    _ => Ok(None),
                }
            }

            fn equalized_after<L: burn_quant_calibrate::prepare::LinearMap>(
                self,
                first: L,
                part: impl Fn(L) -> Self,
            ) -> Result<Option<(Self, Self)>, QuantError> {
                match self {
                    $(Part::$part(layer) => match equalize(first, layer) {
                        Ok((first, second)) => Ok(Some((part(first), Part::$part(second)))),
                        Err(QuantError::ChannelsDiffer { .. }) => Ok(None),
                        Err(error) => Err(error),
                    },)*
                    _ => Ok(None),
                }
            }
        }
    };
}

linear_maps! { Linear Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d }
