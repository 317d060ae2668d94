//! What a user sees: results on stdout, everything else on stderr.

use std::error::Error;
use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::arguments::Arguments;
use crate::error::CliError;

/// How results and progress are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    progress: bool,
}

impl Output {
    /// Creates what the arguments ask for: bars only where somebody sees them.
    pub(crate) fn new(arguments: &Arguments) -> Self {
        let progress = !arguments.json && !arguments.quiet && std::io::stderr().is_terminal();
        Self { json: arguments.json, quiet: arguments.quiet, progress }
    }

    /// Creates one that shows results only.
    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        Self { json: false, quiet: true, progress: false }
    }

    /// Whether the result is to be JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a result: as JSON, or as text.
    ///
    /// A reader that has gone away, as `head`, is no error.
    pub(crate) fn result<T: Serialize>(&self, result: &T, text: impl FnOnce() -> String) {
        let text = match self.json {
            true => serde_json::to_string_pretty(result).expect("results are JSON"),
            false => text(),
        };
        let mut stdout = std::io::stdout().lock();
        let printed = writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush());
        if let Err(error) = printed
            && error.kind() != ErrorKind::BrokenPipe
        {
            eprintln!("error: the result cannot be printed\n  cause: {error}");
            std::process::exit(1);
        }
    }

    /// Prints a part of a text that is not complete, and shows it at once.
    pub(crate) fn part(&self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }

    /// Prints a line for the user on stderr.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        if !self.quiet && !self.json {
            eprintln!("{}", text.as_ref());
        }
    }

    /// Prints a warning on stderr.
    pub(crate) fn warning(&self, text: impl AsRef<str>) {
        if !self.quiet {
            eprintln!("warning: {}", text.as_ref());
        }
    }

    /// Prints an error with its causes, and what to do.
    pub(crate) fn error(&self, error: &CliError) {
        eprintln!("error: {error}");
        let mut source = error.source();
        let mut last = error.to_string();
        while let Some(cause) = source {
            let text = cause.to_string();
            // an error that passes on the words of its cause
            if text != last {
                eprintln!("  cause: {text}");
            }
            (last, source) = (text, cause.source());
        }
        if let Some(hint) = error.hint() {
            eprintln!("  help: {hint}");
        }
    }

    /// Creates a bar of a number of steps; one that nobody sees is not drawn.
    pub(crate) fn bar(&self, steps: usize, what: &str) -> ProgressBar {
        let style = "{msg:14} [{bar:32}] {pos}/{len}  {elapsed}, {eta} left";
        let style = ProgressStyle::with_template(style).expect("a template").progress_chars("=> ");
        self.drawn(ProgressBar::new(steps as u64).with_style(style), what)
    }

    /// Creates a spinner for what has no number of steps.
    pub(crate) fn spinner(&self, what: &str) -> ProgressBar {
        let style = ProgressStyle::with_template("{spinner} {msg}  {elapsed}").expect("a template");
        self.drawn(ProgressBar::new_spinner().with_style(style), what)
    }

    fn drawn(&self, bar: ProgressBar, what: &str) -> ProgressBar {
        if !self.progress {
            return ProgressBar::hidden();
        }
        bar.set_message(what.to_string());
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }
}
