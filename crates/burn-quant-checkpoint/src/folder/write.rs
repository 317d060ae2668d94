//! Folders that appear when they are complete.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{CheckpointError, Tensor};

/// The bytes of tensors after which another file is begun, as `transformers` does it.
const SHARD: usize = 5_000_000_000;

/// Writes a Hugging Face folder: tensors go to disk in files of at most 5 GB, and the folder appears at its place when
/// [`FolderWriter::finish`] is called. Whatever happens before, there is no folder that looks complete.
#[derive(Debug)]
pub struct FolderWriter {
    place: PathBuf,
    unfinished: TempDir,
    shard_bytes: usize,
    pending: BTreeMap<String, Tensor>,
    bytes: usize,
    total: usize,
    /// The tensors of each file that is written.
    shards: Vec<Vec<String>>,
}

impl FolderWriter {
    /// Begins a folder. The place must not exist, or be an empty folder.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn create(place: impl Into<PathBuf>) -> Result<Self, CheckpointError> {
        let place = place.into();
        let io = |source| CheckpointError::Io { path: place.clone(), source };
        if place.exists() {
            let is_empty = place.read_dir().map_err(io)?.next().is_none();
            if !is_empty {
                return Err(io(std::io::Error::other("the folder exists and is not empty")));
            }
        }
        let parent = match place.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).map_err(io)?;
        let unfinished = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(parent).map_err(io)?;
        Ok(Self {
            place,
            unfinished,
            shard_bytes: SHARD,
            pending: BTreeMap::new(),
            bytes: 0,
            total: 0,
            shards: Vec::new(),
        })
    }

    /// Begins another file after so many bytes of tensors.
    ///
    /// 5 GB by default.
    pub fn with_shard_bytes(mut self, bytes: usize) -> Self {
        self.shard_bytes = bytes.max(1);
        self
    }

    /// Adds a tensor.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Twice`] if there is one of this name, [`CheckpointError::Io`].
    pub fn tensor(&mut self, name: impl Into<String>, tensor: Tensor) -> Result<(), CheckpointError> {
        let name = name.into();
        if self.pending.contains_key(&name) || self.shards.iter().any(|shard| shard.contains(&name)) {
            let file = "model.safetensors".to_string();
            return Err(CheckpointError::Twice { name, first: file.clone(), second: file });
        }
        if !self.pending.is_empty() && self.bytes + tensor.bytes().len() > self.shard_bytes {
            self.write_shard()?;
        }
        self.bytes += tensor.bytes().len();
        self.pending.insert(name, tensor);
        Ok(())
    }

    /// Writes a JSON file.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn json(&mut self, file: &str, value: &Value) -> Result<(), CheckpointError> {
        let mut text = serde_json::to_string_pretty(value).expect("JSON values have a text");
        text.push('\n');
        self.file(file, text.as_bytes())
    }

    /// Writes another file.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn file(&mut self, file: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let path = self.unfinished.path().join(file);
        std::fs::write(&path, bytes).map_err(|source| CheckpointError::Io { path, source })
    }

    /// Copies the files of a folder that are neither weights nor written here: tokenizer, templates, licence.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn copy_others(&mut self, from: &Path) -> Result<(), CheckpointError> {
        const WRITTEN: [&str; 4] =
            ["config.json", "hf_quant_config.json", "model.safetensors.index.json", "shared.json"];
        const WEIGHTS: [&str; 8] = ["safetensors", "bin", "pt", "pth", "gguf", "onnx", "h5", "msgpack"];
        let io = |path: &Path, source| CheckpointError::Io { path: path.into(), source };
        for entry in std::fs::read_dir(from).map_err(|source| io(from, source))? {
            let path = entry.map_err(|source| io(from, source))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_weight = path.extension().is_some_and(|e| WEIGHTS.contains(&e.to_string_lossy().as_ref()));
            let target = self.unfinished.path().join(&name);
            if path.is_file() && !WRITTEN.contains(&name.as_str()) && !is_weight && !target.exists() {
                std::fs::copy(&path, target).map_err(|source| io(&path, source))?;
            }
        }
        Ok(())
    }

    fn write_shard(&mut self) -> Result<(), CheckpointError> {
        let tensors = std::mem::take(&mut self.pending);
        let path = self.unfinished.path().join(format!("{}.part", self.shards.len()));
        let views = tensors.iter().map(|(name, tensor)| {
            let view = TensorView::new(tensor.dtype().to_safetensors(), tensor.shape().to_vec(), tensor.bytes());
            (name.as_str(), view.expect("a tensor has as many bytes as its shape"))
        });
        let metadata = [("format".to_string(), "pt".to_string())].into();
        safetensors::serialize_to_file(views, Some(metadata), &path)
            .map_err(|e| CheckpointError::Io { path, source: std::io::Error::other(e) })?;
        self.total += self.bytes;
        self.bytes = 0;
        self.shards.push(tensors.into_keys().collect());
        Ok(())
    }

    /// Writes what is left, and moves the folder to its place.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn finish(mut self) -> Result<PathBuf, CheckpointError> {
        self.write_shard()?;
        let files = self.shards.len();
        let name = |i: usize| match files {
            1 => "model.safetensors".to_string(),
            _ => format!("model-{:05}-of-{files:05}.safetensors", i + 1),
        };
        let folder = self.unfinished.path().to_path_buf();
        let io = |path: &Path, source| CheckpointError::Io { path: path.into(), source };
        let mut map = serde_json::Map::new();
        for (i, tensors) in self.shards.iter().enumerate() {
            let part = folder.join(format!("{i}.part"));
            std::fs::rename(&part, folder.join(name(i))).map_err(|source| io(&part, source))?;
            tensors.iter().for_each(|tensor| drop(map.insert(tensor.clone(), name(i).into())));
        }
        if files > 1 {
            let index = json!({"metadata": {"total_size": self.total}, "weight_map": map});
            self.json("model.safetensors.index.json", &index)?;
        }
        let place = self.place.clone();
        if place.exists() {
            std::fs::remove_dir(&place).map_err(|source| io(&place, source))?;
        }
        let folder = self.unfinished.keep();
        std::fs::rename(&folder, &place).map_err(|source| io(&place, source))?;
        #[cfg(unix)] // a temporary folder is private
        {
            use std::os::unix::fs::PermissionsExt;
            let readable = |path: &Path, mode| {
                std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).map_err(|source| io(path, source))
            };
            readable(&place, 0o755)?;
            for entry in std::fs::read_dir(&place).map_err(|source| io(&place, source))? {
                readable(&entry.map_err(|source| io(&place, source))?.path(), 0o644)?;
            }
        }
        Ok(place)
    }
}
