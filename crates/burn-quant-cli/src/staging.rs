//! Results that appear when they are complete: they are made in a folder beside their place, and moved there.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::CliError;
use crate::interrupt;

/// A place for a result that is not there yet.
#[derive(Debug)]
pub(crate) struct Staging {
    folder: TempDir,
    place: PathBuf,
}

impl Staging {
    /// Refuses a place where something is, before any work is done.
    pub(crate) fn check(place: &Path) -> Result<(), CliError> {
        if place.file_name().is_none() {
            return Err(CliError::Usage { problem: format!("`--out {}` names no file or folder", place.display()) });
        }
        let is_empty = place.read_dir().is_ok_and(|mut entries| entries.next().is_none());
        match place.exists() && !is_empty {
            true => Err(CliError::Exists { path: place.into() }),
            false => Ok(()),
        }
    }

    /// Begins a result.
    pub(crate) fn begin(place: &Path) -> Result<Self, CliError> {
        Self::check(place)?;
        let io = CliError::of_file(place, "written");
        let parent = match place.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).map_err(&io)?;
        let folder = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(parent).map_err(&io)?;
        interrupt::set_unfinished(Some(folder.path().into()));
        Ok(Self { folder, place: place.into() })
    }

    /// Returns where the result is made.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join(self.place.file_name().unwrap_or_default())
    }

    /// Moves the result to its place.
    pub(crate) fn finish(self) -> Result<(), CliError> {
        let io = CliError::of_file(&self.place, "written");
        if self.place.is_dir() {
            std::fs::remove_dir(&self.place).map_err(&io)?; // it is empty
        }
        std::fs::rename(self.path(), &self.place).map_err(&io)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        interrupt::set_unfinished(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_appears_when_it_is_finished_and_nothing_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("deep/out");
        let begun = Staging::begin(&place).unwrap();
        std::fs::write(begun.path(), "codes").unwrap();
        assert!(!place.exists());
        begun.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&place).unwrap(), "codes");
        drop(Staging::begin(&folder.path().join("deep/other")).unwrap());
        assert_eq!(folder.path().join("deep").read_dir().unwrap().count(), 1);
    }

    #[test]
    fn what_is_there_is_not_overwritten_but_an_empty_folder_is_a_place() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Staging::check(folder.path()).is_ok());
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(matches!(Staging::check(folder.path()), Err(CliError::Exists { .. })));
        assert!(matches!(Staging::check(&folder.path().join("file")), Err(CliError::Exists { .. })));
        assert!(matches!(Staging::check(Path::new("..")), Err(CliError::Usage { .. })));
    }
}
