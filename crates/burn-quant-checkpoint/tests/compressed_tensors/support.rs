//! Folders of the package, and changed copies of them.

use std::path::{Path, PathBuf};

use burn_quant_checkpoint::compressed_tensors::{Format, Quantization, Scheme, config, write_layer};
use burn_quant_checkpoint::{Folder, FolderWriter, QuantizedLayer, QuantizedMatrix, Tensor};
use serde_json::{Value, json};

pub(crate) fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/compressed-tensors").join(folder)
}

pub(crate) fn open(folder: &str) -> (Folder, Quantization) {
    let folder = Folder::open(data(folder)).unwrap();
    let quantization = Quantization::of(&folder).unwrap().unwrap();
    (folder, quantization)
}

/// A folder that is gone when this is.
pub(crate) struct Temporary {
    pub(crate) folder: Folder,
    _place: tempfile::TempDir,
}

pub(crate) fn folder(quantization: &Value, tensors: impl IntoIterator<Item = (String, Tensor)>) -> Temporary {
    let place = tempfile::tempdir().unwrap();
    let mut writer = FolderWriter::create(place.path().join("folder")).unwrap();
    writer.json("config.json", &json!({"quantization_config": quantization})).unwrap();
    tensors.into_iter().for_each(|(name, tensor)| writer.tensor(name, tensor).unwrap());
    Temporary { folder: Folder::open(writer.finish().unwrap()).unwrap(), _place: place }
}

/// A copy of a folder with another configuration, and other tensors.
pub(crate) fn changed(
    from: &str,
    config: impl FnOnce(&mut Value),
    mut tensor: impl FnMut(&str, Tensor) -> Option<Tensor>,
) -> Temporary {
    let from = Folder::open(data(from)).unwrap();
    let mut json = from.config()["quantization_config"].clone();
    config(&mut json);
    let tensors = from.names().filter_map(|name| Some((name.to_string(), tensor(name, from.tensor(name).unwrap())?)));
    folder(&json, tensors)
}

/// What a layer is after it was written and read again.
pub(crate) fn again(layer: &QuantizedLayer, format: Format) -> QuantizedLayer {
    let scheme = Scheme::of("fc", layer, format).unwrap();
    let tensors = write_layer("fc", layer, format).unwrap();
    let temporary = folder(&config([("fc", scheme)], None, None), tensors);
    let folder = &temporary.folder;
    Quantization::of(folder).unwrap().unwrap().layer(folder, "fc").unwrap()
}

/// What both a layer and its copy have, however they store it.
pub(crate) fn parts(matrix: &QuantizedMatrix) -> ([usize; 4], &[u8], &[f32]) {
    let blocks = [matrix.outputs, matrix.inputs, matrix.block_outputs, matrix.block_inputs];
    (blocks, &matrix.codes, &matrix.scales)
}
