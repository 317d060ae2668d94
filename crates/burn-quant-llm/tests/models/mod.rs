//! The models of the tests.

use std::path::PathBuf;

use burn_quant_checkpoint::{Folder, FolderWriter};
use tempfile::TempDir;

/// A float model of the tests, as an ordinary folder: tensors that models share are stored once.
pub(crate) fn folder(model: &str) -> (TempDir, Folder) {
    let models = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/checkpoints/models"));
    let from = Folder::open(models.join(model)).expect("a model of the tests");
    let place = tempfile::tempdir().expect("a temporary folder");
    let mut writer = FolderWriter::create(place.path().join("float")).expect("a folder");
    writer.json("config.json", from.config()).expect("a file");
    for name in from.names() {
        writer.tensor(name, from.tensor(name).expect("a tensor")).expect("a new name");
    }
    let shared = from.json("shared.json").expect("JSON").unwrap_or_default();
    for (name, file) in shared["tensors"].as_object().into_iter().flatten() {
        let file = models.join(model).join(file.as_str().expect("a file"));
        let other = Folder::open(file.parent().expect("a folder")).expect("a model of the tests");
        writer.tensor(name, other.tensor(name).expect("a tensor")).expect("a new name");
    }
    let folder = Folder::open(writer.finish().expect("a folder")).expect("what was written is read");
    (place, folder)
}
