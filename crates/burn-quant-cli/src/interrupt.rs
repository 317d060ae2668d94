//! Ctrl-C: ends an answer, or the program without anything half-written.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code of a program that was interrupted, as shells have it.
const INTERRUPTED: i32 = 130;

/// Whether an answer is being written, which Ctrl-C ends.
static ANSWERING: AtomicBool = AtomicBool::new(false);
/// Whether the answer is to end.
static STOP: AtomicBool = AtomicBool::new(false);
/// What is half-written.
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Listens to Ctrl-C and to requests to terminate.
pub(crate) fn install() {
    let listener = || {
        if ANSWERING.load(Ordering::SeqCst) && !STOP.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Ok(Some(path)) = UNFINISHED.lock().map(|mut path| path.take()) {
            _ = std::fs::remove_dir_all(path);
        }
        std::process::exit(INTERRUPTED);
    };
    // without a listener a half-written folder may be left, under a name that says so
    _ = ctrlc::set_handler(listener);
}

/// Names the folder that is removed if the program is interrupted.
pub(crate) fn set_unfinished(path: Option<PathBuf>) {
    if let Ok(mut unfinished) = UNFINISHED.lock() {
        *unfinished = path;
    }
}

/// An answer that is being written: while it is there, the first Ctrl-C asks it to end.
pub(crate) struct Answer;

impl Answer {
    /// Begins an answer.
    pub(crate) fn begin() -> Self {
        STOP.store(false, Ordering::SeqCst);
        ANSWERING.store(true, Ordering::SeqCst);
        Self
    }

    /// Whether it is to end.
    pub(crate) fn is_stopped(&self) -> bool {
        STOP.load(Ordering::SeqCst)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        ANSWERING.store(false, Ordering::SeqCst);
    }
}
