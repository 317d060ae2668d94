//! A sample of the elements of tensors: histograms, and shares of elements that are clipped or become zero.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Int, Tensor, TensorData};
use burn_quant_core::model::host;

/// Elements that are looked at in one call.
const ELEMENTS: usize = 4096;
/// Calls whose elements, and whose noise, are looked at.
pub(super) const CALLS: usize = 8;

/// The elements of tensors of one length that are looked at, on a device.
#[derive(Clone, Debug)]
struct Places {
    on_host: Arc<[usize]>,
    on_device: Tensor<1, Int>,
}

/// The elements that are looked at, by the length of the tensor: all quantizers share them.
#[derive(Debug, Default)]
pub(crate) struct SharedPlaces(Mutex<HashMap<usize, Places>>);

impl SharedPlaces {
    fn of(&self, x: &Tensor<1>) -> Places {
        let elements = x.dims()[0];
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let places = known.entry(elements).or_insert_with(|| {
            let on_host = places(elements);
            let indices: Vec<i64> = on_host.iter().map(|place| *place as i64).collect();
            let data = TensorData::new(indices, [on_host.len()]);
            Places { on_host, on_device: Tensor::from_data(data, &x.device()) }
        });
        places.clone()
    }
}

/// Evenly spread elements, without the period that a step through rows of channels has: multiples of the golden ratio.
fn places(elements: usize) -> Arc<[usize]> {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    if elements <= ELEMENTS {
        return (0..elements).collect();
    }
    (0..ELEMENTS).map(|i| ((i as f64 * GOLDEN).fract() * elements as f64) as usize).collect()
}

/// Elements before and after rounding, on the device.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    calls: Vec<SampledCall>,
}

#[derive(Debug)]
struct SampledCall {
    shape: Vec<usize>,
    places: Arc<[usize]>,
    x: Tensor<1>,
    y: Tensor<1>,
}

impl Sample {
    /// Looks at some elements of a flat tensor of a shape, and at what became of them; of the first calls only.
    pub(crate) fn add(&mut self, shape: &[usize], x: &Tensor<1>, y: &Tensor<1>, shared: &SharedPlaces) {
        if self.calls.len() == CALLS {
            return;
        }
        let places = shared.of(x);
        let at = |x: &Tensor<1>| x.clone().select(0, places.on_device.clone()).cast(DType::F32);
        self.calls.push(SampledCall { shape: shape.to_vec(), places: places.on_host.clone(), x: at(x), y: at(y) });
    }

    /// Brings the elements to the host.
    pub(crate) fn on_host(self) -> Vec<SampledValues> {
        let values = |call: SampledCall| SampledValues {
            shape: call.shape,
            places: call.places,
            x: host(call.x),
            y: host(call.y),
        };
        self.calls.into_iter().map(values).collect()
    }
}

/// Elements of one tensor before and after rounding.
#[derive(Clone, Debug)]
pub(crate) struct SampledValues {
    /// The shape of the tensor.
    pub(crate) shape: Vec<usize>,
    /// Which elements these are.
    pub(crate) places: Arc<[usize]>,
    /// Before.
    pub(crate) x: Vec<f32>,
    /// After.
    pub(crate) y: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_is_sampled() {
        // 64 channels in rows: a step of 256 would look at one channel only
        let mut seen = [0; 64];
        places(64 * 16384).iter().for_each(|place| seen[place % 64] += 1);
        assert!(seen.iter().all(|count| (40..90).contains(count)), "{seen:?}");
        assert_eq!(&places(3)[..], [0, 1, 2]);
    }
}
