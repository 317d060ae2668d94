//! The version of a file.

/// The version of what a file holds: a major that only equal majors read, and a minor that newer crates read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Schema {
    /// Changes when older files can no longer be read.
    pub major: u32,
    /// Changes when older crates can no longer read new files.
    pub minor: u32,
}

impl Schema {
    /// The newest that this crate reads, and what it writes of models with packed weights.
    pub const CURRENT: Schema = Schema { major: 2, minor: 1 };
    /// What this crate writes of everything else, so that older crates read it too.
    pub const WITHOUT_PACKED: Schema = Schema { major: 1, minor: 4 };

    /// The newest of safetensors files that this crate reads, and what it writes.
    ///
    /// Their versions are counted apart from those of burnpack files.
    #[cfg(feature = "safetensors")]
    pub const SAFETENSORS: Schema = Schema { major: 1, minor: 0 };

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl std::fmt::Display for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}
