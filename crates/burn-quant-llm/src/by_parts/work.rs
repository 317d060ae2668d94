//! The work folder: what is done, so that an interrupted run goes on.
//!
//! ```text
//! state.json        how many parts are done, of which run
//! part-I.bpk        the record of a part
//! features-I.f32    the features before part I, of the next part alone
//! lock              held while a process works here
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use burn::tensor::DType;
use burn_quant::calibrate::Report;
use burn_quant::nn::QuantLinear;
use burn_quant::{QuantConfig, TensorQuantizer};
use burn_quant_checkpoint::{CheckpointError, Folder};
use burn_quant_store::{restore, save};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{DecoderPart, LlmError};

const STATE: &str = "state.json";

/// How far a run is.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// SHA-256 of what the run is made of.
    key: String,
    /// Parts that are done.
    done: usize,
    /// SHA-256 of their records.
    records: Vec<String>,
    /// How often data went through a part at most.
    passes: usize,
    /// What calibration warns of.
    warnings: Vec<String>,
    /// The formats of the weights of linear layers, by name; stages are joined by `+`. `None` in float.
    formats: BTreeMap<String, Option<String>>,
}

/// A folder that a run works in.
#[derive(Debug)]
pub(super) struct Work {
    folder: PathBuf,
    state: State,
    _lock: File,
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> CheckpointError + '_ {
    move |source| CheckpointError::Io { path: path.into(), source }
}

/// The format of the weight of a layer.
fn format_of(linear: &QuantLinear) -> Option<String> {
    let quantizer = linear.weight.reparameterization::<TensorQuantizer>().filter(|quantizer| quantizer.is_enabled())?;
    let stages: Vec<String> = quantizer.stages("").map(|(_, stage)| stage.config().kind()).collect();
    Some(stages.join(" + "))
}

/// What a run is made of: model, recipe, data, type.
pub(super) fn key(
    folder: &Folder,
    recipe: &QuantConfig,
    windows: Option<&[Vec<u32>]>,
    dtype: DType,
) -> Result<String, LlmError> {
    let mut hasher = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(env!("CARGO_PKG_VERSION").as_bytes());
    field(folder.config().to_string().as_bytes());
    field(serde_json::to_string(recipe).expect("a recipe is plain data").as_bytes());
    field(format!("{dtype:?}").as_bytes());
    for window in windows.unwrap_or_default() {
        field(&window.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>());
    }
    // the weights themselves are not read for it: their files have a size and a time
    let entries = folder.path().read_dir().map_err(io(folder.path()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    files.sort();
    for path in files {
        let metadata = path.metadata().map_err(io(&path))?;
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        field(path.file_name().unwrap_or_default().as_encoded_bytes());
        field(format!("{} {modified:?}", metadata.len()).as_bytes());
    }
    Ok(digits(hasher))
}

fn digits(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a record is known by.
fn sum(record: &Path) -> Result<String, CheckpointError> {
    let mut file = File::open(record).map_err(io(record))?;
    let (mut hasher, mut bytes) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut bytes).map_err(io(record))? {
            0 => return Ok(digits(hasher)),
            read => hasher.update(&bytes[..read]),
        }
    }
}

impl Work {
    /// Opens the folder of an interrupted run, or makes a new one.
    pub(super) fn open(folder: PathBuf, key: String) -> Result<Self, LlmError> {
        let refused = |reason: &str| LlmError::Work { path: folder.clone(), reason: reason.into() };
        std::fs::create_dir_all(&folder).map_err(io(&folder))?;
        let place = folder.join(STATE);
        let state = match std::fs::read(&place) {
            Ok(bytes) => serde_json::from_slice::<State>(&bytes)
                .map_err(|error| LlmError::Work { path: place.clone(), reason: format!("it is damaged: {error}") })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let others = folder.read_dir().map_err(io(&folder))?.filter_map(Result::ok);
                if others.map(|entry| entry.file_name()).any(|name| name != "lock") {
                    return Err(refused("there is something else in it: name an empty one"));
                }
                State { key: key.clone(), ..State::default() }
            }
            Err(error) => return Err(io(&place)(error).into()),
        };
        if state.key != key {
            return Err(refused(
                "it is that of another run: the model, the recipe, the format that it is made for, or the text has \
                 changed. Remove it, or name another",
            ));
        }
        let place = folder.join("lock");
        let lock = File::create(&place).map_err(io(&place))?;
        if lock.try_lock().is_err() {
            return Err(refused("another process works in it"));
        }
        let work = Self { folder, state, _lock: lock };
        // a part that is damaged is found now, and not when all others are done
        for i in 0..work.state.done {
            let path = work.record(i);
            if work.state.records.get(i) != Some(&sum(&path)?) {
                let reason = "it is not what was written: remove the folder, and begin again".into();
                return Err(LlmError::Work { path, reason });
            }
        }
        Ok(work)
    }

    pub(super) fn done(&self) -> usize {
        self.state.done
    }

    pub(super) fn report(&self) -> (usize, &[String]) {
        (self.state.passes, &self.state.warnings)
    }

    pub(super) fn formats(&self) -> &BTreeMap<String, Option<String>> {
        &self.state.formats
    }

    /// Where the features before a part are.
    pub(super) fn features(&self, i: usize) -> PathBuf {
        self.folder.join(format!("features-{i}.f32"))
    }

    fn record(&self, i: usize) -> PathBuf {
        self.folder.join(format!("part-{i}.bpk"))
    }

    /// Writes a part; the features after it are written.
    pub(super) fn finish(&mut self, i: usize, part: &DecoderPart, report: Option<Report>) -> Result<(), LlmError> {
        let record = self.record(i);
        save(part, &record)?;
        self.state.records.push(sum(&record)?);
        self.state.done = i + 1;
        if let Some(report) = report {
            self.state.passes = self.state.passes.max(report.passes);
            self.state.warnings.extend(report.warnings.iter().map(ToString::to_string));
        }
        self.state.formats.extend(part.linears().into_iter().map(|(name, linear)| (name, format_of(linear))));
        let (place, unfinished) = (self.folder.join(STATE), self.folder.join("state.unfinished"));
        let text = serde_json::to_string_pretty(&self.state).expect("a state is plain data");
        std::fs::write(&unfinished, text).map_err(io(&unfinished))?;
        std::fs::rename(&unfinished, &place).map_err(io(&place))?;
        let before = self.features(i);
        if before.exists() {
            std::fs::remove_file(&before).map_err(io(&before))?;
        }
        Ok(())
    }

    /// Reads a part into one that was made fresh.
    pub(super) fn part(&self, i: usize, fresh: DecoderPart) -> Result<DecoderPart, LlmError> {
        Ok(restore(fresh, self.record(i))?)
    }

    pub(super) fn remove(self) -> Result<(), LlmError> {
        Ok(std::fs::remove_dir_all(&self.folder).map_err(io(&self.folder))?)
    }
}
