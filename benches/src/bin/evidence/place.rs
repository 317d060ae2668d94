//! Where and when a result was made.

use std::process::Command;

/// The processor, the day, and the commit.
pub(crate) struct Place {
    processor: String,
    threads: usize,
    date: String,
    commit: String,
}

impl Place {
    /// Looks around, before anything is measured.
    pub(crate) fn here() -> Self {
        Self {
            processor: processor().unwrap_or_else(|| std::env::consts::ARCH.into()),
            threads: rayon::current_num_threads(),
            date: jiff::ZonedDateTime::now().date().to_string(),
            commit: commit().unwrap_or_else(|| "unknown".into()),
        }
    }

    /// Returns a line that stands below a table.
    pub(crate) fn line(&self, command: &str) -> String {
        let Self { processor, threads, date, commit } = self;
        let threads = if *threads == 1 { "1 thread".into() } else { format!("{threads} threads") };
        format!("{processor}, {threads}, Flex; {date}, commit {commit}. `{command}`")
    }
}

/// The name of the processor, where the system tells it.
fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

/// The commit, with a mark if files differ from it.
fn commit() -> Option<String> {
    let folder = env!("CARGO_MANIFEST_DIR");
    let output = Command::new("git").args(["-C", folder, "describe", "--always", "--dirty=+", "--exclude=*"]).output();
    let text = String::from_utf8(output.ok().filter(|output| output.status.success())?.stdout).ok()?;
    Some(text.trim().to_string())
}
