//! Metadata: keys and values, in the order of the file.

use super::Value;
use crate::CheckpointError;
use crate::error::near_misses;

/// Keys and values of a file, in their order. Keys are unique.
///
/// # Example
///
/// ```
/// use burn_quant_checkpoint::gguf::{Metadata, Value};
///
/// let mut metadata = Metadata::new();
/// metadata.set("general.architecture", "llama");
/// metadata.set("llama.block_count", 2u32);
/// assert_eq!(metadata.text("general.architecture")?, "llama");
/// assert_eq!(metadata.count("llama.block_count")?, 2);
/// assert!(metadata.get("llama.vocab_size").is_none());
/// # Ok::<(), burn_quant_checkpoint::CheckpointError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
}

impl Metadata {
    /// Creates metadata without keys.
    ///
    /// Keys are written in the order in which [`Metadata::set`] adds them.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates metadata from the entries of a file, whose keys must be unique.
    pub(super) fn from_entries(entries: Vec<(String, Value)>) -> Self {
        Self { entries }
    }

    /// Sets a key: replaces its value in place, or appends the key.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        match self.entries.iter_mut().find(|(other, _)| *other == key) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key, value)),
        }
    }

    /// Returns the value of a key.
    ///
    /// `None` if the key is not there.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(other, _)| other == key).map(|(_, value)| value)
    }

    /// Returns keys and values in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns a text that must be there.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Missing`] or [`CheckpointError::Value`].
    pub fn text(&self, key: &str) -> Result<&str, CheckpointError> {
        self.required(key, "a text", Value::as_str)
    }

    /// Returns a count or identifier that must be there.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Missing`] or [`CheckpointError::Value`].
    pub fn count(&self, key: &str) -> Result<usize, CheckpointError> {
        self.required(key, "a number of at most 32 bits", count)
    }

    /// Returns a count or identifier that may be missing.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Value`] if the value has another type.
    pub fn find_count(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        self.optional(key, "a number of at most 32 bits", count)
    }

    /// Returns a float that may be missing.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Value`] if the value has another type.
    pub fn find_float(&self, key: &str) -> Result<Option<f32>, CheckpointError> {
        self.optional(key, "a float", Value::as_f32)
    }

    pub(super) fn required<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<T, CheckpointError> {
        self.optional(key, expected, read)?.ok_or_else(|| CheckpointError::Missing {
            name: key.into(),
            near_misses: near_misses(key, self.entries.iter().map(|(key, _)| key.as_str())),
        })
    }

    pub(super) fn optional<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, CheckpointError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| CheckpointError::Value {
            key: key.into(),
            expected,
            found: value.describe(),
        })
    }
}

/// Returns a count; the format stores them in 32 bits.
fn count(value: &Value) -> Option<usize> {
    usize::try_from(u32::try_from(value.as_u64()?).ok()?).ok()
}
