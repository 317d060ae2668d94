//! Makes the tables of the book's chapter "Results" again, each into a file with its device, date and commit.
//!
//! `cargo run --release -p burn-quant-benches --bin evidence -- TABLE [--models DIR]`

mod place;
mod tables;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use place::Place;
use tables::Evidence;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Makes a table of the book again.
#[derive(Parser)]
struct Arguments {
    /// Which.
    #[arg(value_enum)]
    table: Name,
    /// The folder with published models that `examples/pretrained/fetch.sh` filled.
    #[arg(long, env = "BURN_QUANT_MODELS")]
    models: Option<PathBuf>,
    /// Where to write.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results/evidence"))]
    out: PathBuf,
    /// Where to draw.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../book/src/images"))]
    pictures: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    /// Planted faults, and what a diagnosis makes of them.
    Faults,
    /// A sentence encoder: cosine and rank correlations by recipe.
    #[value(name = "minilm")]
    MiniLm,
    /// A language model: perplexity by recipe.
    #[value(name = "smollm2")]
    SmolLm2,
    /// A classifier of photographs by recipe.
    #[value(name = "efficientnet")]
    EfficientNet,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let models =
        || arguments.models.as_deref().ok_or("this table needs `--models DIR`: see examples/pretrained/fetch.sh");
    let evidence = match arguments.table {
        Name::Faults => tables::faults()?,
        Name::MiniLm => tables::minilm(models()?)?,
        Name::SmolLm2 => tables::smollm2(models()?)?,
        Name::EfficientNet => tables::efficientnet(models()?)?,
    };
    let name = arguments.table.to_possible_value().ok_or("every table has a name")?.get_name().to_string();
    std::fs::create_dir_all(&arguments.out)?;
    write(&arguments, &name, &evidence)?;
    println!("{}", evidence.markdown());
    Ok(())
}

/// Writes the table, and its picture if it has one.
fn write(arguments: &Arguments, name: &str, evidence: &Evidence) -> Result<(), Box<dyn std::error::Error>> {
    let command = format!("cargo run --release -p burn-quant-benches --bin evidence -- {name}");
    let text = format!("{}\n\n{}\n", evidence.markdown(), Place::here().line(&command));
    std::fs::write(arguments.out.join(format!("{name}.md")), text)?;
    if let Some(plot) = &evidence.plot {
        std::fs::write(arguments.pictures.join(format!("results-{name}.svg")), plot.to_svg())?;
    }
    Ok(())
}
