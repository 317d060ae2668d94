//! What a quantizer remembers of the tensors that pass through it while the model is observed.
//!
//! Everything stays on the device until the end: an observed batch costs a few reductions and maxima, and no synchronisation
//! with the host.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Tensor;
use burn_quant_ops::{AxisGroups, Groups, group_amax};

use super::bias;
use crate::BiasMethod;

/// A handle to what was seen; clones share it, so that a model which is cloned, moved or forked while it is observed still
/// reports to one place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observer(Arc<Mutex<Seen>>);

/// What to remember of a tensor.
pub(crate) struct Observed {
    /// Which elements share a range.
    pub(crate) groups: Groups,
    /// Whether negative values are to be noticed.
    pub(crate) unsigned: bool,
    /// Which elements share a bias, if one is calibrated.
    pub(crate) bias: Option<Groups>,
}

/// Running maxima and minima on the device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Largest magnitude of each group.
    pub(crate) amax: Option<Tensor<1>>,
    /// Lowest value, kept for unsigned formats only.
    pub(crate) lowest: Option<Tensor<1>>,
    /// What a bias is made of.
    pub(crate) bias: Option<SeenBias>,
    /// Tensors seen.
    pub(crate) calls: u64,
    /// Set when the number of groups changed: before, and then.
    pub(crate) changed: Option<(usize, usize)>,
}

/// What a bias, and the range around it, are made of.
#[derive(Clone, Debug)]
pub(crate) struct SeenBias {
    /// The shape of the lowest and highest values: 1 along the axes that neither bias nor range keeps.
    pub(crate) extent: Vec<usize>,
    /// The sum over calls of the mean of each bias group.
    pub(crate) means: Tensor<1>,
    pub(crate) lowest: Tensor<1>,
    pub(crate) highest: Tensor<1>,
}

impl Observer {
    /// Adds a tensor.
    pub(crate) fn observe<const D: usize>(&self, x: &Tensor<D>, observed: &Observed) {
        let x = x.clone().without_autodiff();
        let lowest = observed.unsigned.then(|| x.clone().min());
        let bias = observed.bias.as_ref().map(|groups| SeenBias::of(&x, &observed.groups, groups));
        let amax = group_amax(x, &observed.groups);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.calls += 1;
        match seen.amax.take() {
            Some(before) if before.dims() != amax.dims() => {
                seen.changed.get_or_insert((before.dims()[0], amax.dims()[0]));
                seen.amax = Some(before);
                return;
            }
            before => seen.amax = Some(pair(before, amax, Tensor::max_pair)),
        }
        if let Some(lowest) = lowest {
            seen.lowest = Some(pair(seen.lowest.take(), lowest, Tensor::min_pair));
        }
        match (seen.bias.take(), bias) {
            (Some(before), Some(bias)) if before.extent != bias.extent => {
                let sizes = [&before, &bias].map(|bias| bias.extent.iter().product());
                seen.changed.get_or_insert((sizes[0], sizes[1]));
                seen.bias = Some(before);
            }
            (before, Some(bias)) => seen.bias = Some(bias.after(before)),
            (before, None) => seen.bias = before,
        }
    }

    /// What was seen so far.
    pub(crate) fn seen(&self) -> Seen {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl SeenBias {
    fn of<const D: usize>(x: &Tensor<D>, ranges: &Groups, groups: &Groups) -> Self {
        let axes = ranges.counts().iter().zip(groups.counts());
        let axes: Vec<AxisGroups> = axes
            .map(|(range, bias)| if range.max(bias) == &1 { AxisGroups::Whole } else { AxisGroups::Each })
            .collect();
        let fine = Groups::new(groups.shape(), &axes);
        Self {
            extent: fine.counts().to_vec(),
            means: bias::measure(x.clone(), groups, BiasMethod::Mean),
            lowest: bias::lowest(x.clone(), &fine).reshape([fine.len()]),
            highest: bias::highest(x.clone(), &fine).reshape([fine.len()]),
        }
    }

    fn after(self, before: Option<Self>) -> Self {
        let Some(before) = before else { return self };
        Self {
            extent: before.extent,
            means: pair(Some(before.means), self.means, |a, b| a + b),
            lowest: pair(Some(before.lowest), self.lowest, Tensor::min_pair),
            highest: pair(Some(before.highest), self.highest, Tensor::max_pair),
        }
    }
}

/// Two results together, on the device of the first.
fn pair(before: Option<Tensor<1>>, now: Tensor<1>, f: impl FnOnce(Tensor<1>, Tensor<1>) -> Tensor<1>) -> Tensor<1> {
    match before {
        None => now,
        Some(before) => {
            let now = now.to_device(&before.device());
            f(before, now)
        }
    }
}
