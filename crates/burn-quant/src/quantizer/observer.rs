//! What a quantizer remembers of the tensors that pass through it while the model is observed.
//!
//! Everything stays on the device until the end: an observed batch costs one reduction and one maximum, and no
//! synchronisation with the host.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Tensor;
use burn_quant_ops::{Groups, group_amax};

/// A handle to what was seen; clones share it, so that a model which is cloned, moved or forked while it is observed still
/// reports to one place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observer(Arc<Mutex<Seen>>);

/// Running maxima and minima on the device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Largest magnitude of each group.
    pub(crate) amax: Option<Tensor<1>>,
    /// Lowest value, kept for unsigned formats only.
    pub(crate) lowest: Option<Tensor<1>>,
    /// Tensors seen.
    pub(crate) calls: u64,
    /// Set when the number of groups changed: before, and then.
    pub(crate) changed: Option<(usize, usize)>,
}

impl Observer {
    /// Adds a tensor.
    pub(crate) fn observe<const D: usize>(&self, x: &Tensor<D>, groups: &Groups, unsigned: bool) {
        let x = x.clone().without_autodiff();
        let lowest = unsigned.then(|| x.clone().min());
        let amax = group_amax(x, groups);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.calls += 1;
        seen.amax = Some(match seen.amax.take() {
            None => amax,
            Some(before) if before.dims() == amax.dims() => {
                let amax = amax.to_device(&before.device());
                before.max_pair(amax)
            }
            Some(before) => {
                seen.changed.get_or_insert((before.dims()[0], amax.dims()[0]));
                before
            }
        });
        if let Some(lowest) = lowest {
            seen.lowest = Some(match seen.lowest.take() {
                None => lowest,
                Some(before) => {
                    let lowest = lowest.to_device(&before.device());
                    before.min_pair(lowest)
                }
            });
        }
    }

    /// What was seen so far.
    pub(crate) fn seen(&self) -> Seen {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
