//! Every link, image and anchor of the book and of the README files leads somewhere, and every page is in the summary.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}

/// The Markdown files that readers meet, by path.
fn pages() -> BTreeMap<PathBuf, String> {
    let mut folders = vec![root().join("book/src"), root().join("crates")];
    let mut files = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.extension() {
                None if path.is_dir() => folders.push(path),
                Some(extension) if extension == "md" => files.push(path),
                _ => {}
            }
        }
    }
    files.into_iter().map(|path| (path.clone(), std::fs::read_to_string(&path).expect("a text"))).collect()
}

/// A page without its code: fenced blocks, and code within lines.
fn prose(page: &str) -> String {
    let mut fenced = false;
    let mut text = String::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let outside = line.split('`').enumerate().map(|(i, part)| if i % 2 == 0 { part } else { "code" });
            text.extend(outside);
        }
        text.push('\n');
    }
    text
}

/// The targets of links and images: `[text](target)`.
fn targets(page: &str) -> Vec<String> {
    let prose = prose(page);
    let after = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    after.map(|(target, _)| target.to_string()).collect()
}

/// The anchors of a page's headings, as mdBook and GitHub make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut headings = Vec::new();
    for line in page.lines() {
        fenced ^= line.starts_with("```");
        if !fenced && line.starts_with('#') {
            headings.push(line.trim_start_matches('#').trim());
        }
    }
    let anchor = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
    };
    headings.into_iter().map(anchor).collect()
}

#[test]
fn every_link_image_and_anchor_leads_somewhere() {
    let pages = pages();
    let mut broken = Vec::new();
    for (path, page) in &pages {
        for target in targets(page) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').map_or((target.as_str(), None), |(f, a)| (f, Some(a)));
            let folder = path.parent().expect("a folder");
            let found = if file.is_empty() { path.clone() } else { folder.join(file) };
            let reached = found.canonicalize().ok();
            let page = reached.as_ref().and_then(|reached| pages.iter().find(|(path, _)| path.ends_with(reached)));
            let anchored = anchor.is_none_or(|anchor| page.is_some_and(|(_, page)| anchors(page).contains(anchor)));
            if reached.is_none() || !anchored {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "these lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn every_page_is_in_the_summary_and_no_chapter_is_empty() {
    let pages = pages();
    let book = root().join("book/src");
    let listed: Vec<String> = targets(&pages[&book.join("SUMMARY.md")]);
    assert!(listed.iter().all(|page| !page.is_empty()), "a chapter of the summary has no page");
    let written = pages.keys().filter_map(|path| path.strip_prefix(&book).ok()).filter(|path| *path != "SUMMARY.md");
    for page in written {
        assert!(listed.iter().any(|listed| Path::new(listed) == page), "{} is not in the summary", page.display());
    }
}

#[test]
fn every_image_of_the_book_is_shown() {
    let shown: BTreeSet<PathBuf> = pages()
        .iter()
        .flat_map(|(path, page)| targets(page).into_iter().map(|target| path.parent().expect("a folder").join(target)))
        .filter_map(|path| path.canonicalize().ok())
        .collect();
    let images = root().join("book/src/images");
    for folder in [images.clone(), images.join("calibration")] {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path().canonicalize().expect("a path");
            assert!(path.is_dir() || shown.contains(&path), "no page shows {}", path.display());
        }
    }
}
