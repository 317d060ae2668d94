//! Numbers that pages quote are those of the files that `evidence` writes.

use std::path::Path;

/// A table of a page: the page, the row, the column; and where the number comes from: the file, the row, the column.
type Quoted = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

const FAILS: &str = "book/src/when-accuracy-falls.md";
const PER_TOKEN: &str = "INT8, a range per token";
const CHARACTER: &str = "bits per character";
const SMOLLM: &str = "SmolLM2-135M, perplexity";

const SEARCH: &str = "book/src/auto-quantize.md";
const GPT: &str = "auto-quantize-char-gpt";
const UNIFORM: &str = "best uniform format";
const WIDER: &str = "best with wider ends";

const QUOTED: [Quoted; 23] = [
    (SEARCH, "4.5", "auto-quantize", GPT, "auto-quantize, at most 4.5", CHARACTER),
    (SEARCH, "5", "auto-quantize", GPT, "auto-quantize, at most 5", CHARACTER),
    (SEARCH, "6", "auto-quantize", GPT, "auto-quantize, at most 6", CHARACTER),
    (SEARCH, "8", "auto-quantize", GPT, "auto-quantize, at most 8", CHARACTER),
    (SEARCH, "4.5", UNIFORM, GPT, "all w3a8", CHARACTER),
    (SEARCH, "5", UNIFORM, GPT, "all w4a8", CHARACTER),
    (SEARCH, "6", UNIFORM, GPT, "all w5a8", CHARACTER),
    (SEARCH, "8", UNIFORM, GPT, "all w6a8", CHARACTER),
    (SEARCH, "4.5", WIDER, GPT, "w3a8, ends w8a8", CHARACTER),
    (SEARCH, "5", WIDER, GPT, "w4a8, ends w8a8", CHARACTER),
    (SEARCH, "6", WIDER, GPT, "w5a8, ends w8a8", CHARACTER),
    (SEARCH, "8", WIDER, GPT, "w6a8, ends float", CHARACTER),
    (FAILS, "float", SMOLLM, "smollm2", "float (dequantized Q4_1)", "perplexity"),
    (FAILS, "`int8_default`", SMOLLM, "smollm2", "INT8", "perplexity"),
    (FAILS, "`int8_per_channel_per_token`", SMOLLM, "smollm2", PER_TOKEN, "perplexity"),
    (FAILS, "float", "WordSim-353", "minilm", "float", "WordSim-353"),
    (FAILS, "float", "SimLex-999", "minilm", "float", "SimLex-999"),
    (FAILS, "`int8_default`", "MiniLM, cosine to float", "minilm", "INT8", "cosine"),
    (FAILS, "`int8_default`", "WordSim-353", "minilm", "INT8", "WordSim-353"),
    (FAILS, "`int8_default`", "SimLex-999", "minilm", "INT8", "SimLex-999"),
    (FAILS, "`int8_per_channel_per_token`", "MiniLM, cosine to float", "minilm", PER_TOKEN, "cosine"),
    (FAILS, "`int8_per_channel_per_token`", "WordSim-353", "minilm", PER_TOKEN, "WordSim-353"),
    (FAILS, "`int8_per_channel_per_token`", "SimLex-999", "minilm", PER_TOKEN, "SimLex-999"),
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

/// The cell of a row, in the first table of a page with this column and this row.
fn cell(page: &str, row: &str, column: &str) -> Option<String> {
    let lines: Vec<&str> = page.lines().collect();
    let tables = lines.iter().enumerate().filter(|(_, line)| line.starts_with('|') && cells(line).contains(&column));
    tables.into_iter().find_map(|(header, line)| {
        let place = cells(line).iter().position(|name| *name == column)?;
        let mut rows = lines[header..].iter().take_while(|line| line.starts_with('|')).map(|line| cells(line));
        rows.find(|cells| cells[0] == row)?.get(place).map(|cell| cell.to_string())
    })
}

/// Whether a number is another one, rounded to as many decimals as it has.
fn is_rounded(quoted: &str, measured: &str) -> bool {
    let decimals = quoted.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let (Ok(quoted), Ok(measured)) = (quoted.parse::<f64>(), measured.parse::<f64>()) else { return false };
    // of a number that is rounded twice the last digit may be another one
    (quoted - measured).abs() <= 0.51 * 10_f64.powi(-(decimals as i32))
}

#[test]
fn quoted_numbers_are_those_of_the_results() {
    for (page, row, column, file, recipe, number) in QUOTED {
        let quoted = cell(&read(page), row, column).unwrap_or_else(|| panic!("{page}: no `{row}` with `{column}`"));
        let results = read(&format!("benches/results/evidence/{file}.md"));
        let measured =
            cell(&results, recipe, number).unwrap_or_else(|| panic!("{file}: no `{recipe}` with `{number}`"));
        assert!(is_rounded(&quoted, &measured), "{page}: `{row}`, `{column}` is {quoted}; {file} has {measured}");
    }
}

#[test]
fn results_say_where_and_when_they_were_made() {
    for file in [
        "auto-quantize-char-gpt",
        "auto-quantize-cnn",
        "auto-quantize-minilm",
        "burns-own",
        "char-gpt",
        "cnn",
        "costs",
        "efficientnet",
        "faults",
        "minilm",
        "onnx",
        "packed-models",
        "residual",
        "smollm2",
        "smollm2-files",
    ] {
        let results = read(&format!("benches/results/evidence/{file}.md"));
        let last = results.lines().rfind(|line| !line.is_empty()).unwrap_or_default();
        for part in [", Flex; 20", ", commit ", &format!("--bin evidence -- {file}`")] {
            assert!(last.contains(part), "{file}: `{last}` lacks `{part}`");
        }
    }
}
