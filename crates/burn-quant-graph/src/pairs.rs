//! Maps as lists of pairs: in JSON keys are strings.

use std::collections::BTreeMap;

use burn::backend::ir::TensorId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) fn serialize<T: Serialize, S: Serializer>(map: &BTreeMap<TensorId, T>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(map)
}

pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<TensorId, T>, D::Error> {
    Ok(Vec::<(TensorId, T)>::deserialize(from)?.into_iter().collect())
}
