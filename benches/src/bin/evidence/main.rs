//! Makes the tables of the book's chapter "Results" again, each into a file with its device, date and commit.
//!
//! `cargo run --release -p burn-quant-benches --bin evidence -- TABLE [--models DIR]`

mod place;
mod tables;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use place::Place;
use plot::Axis;
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
    /// Measure nothing: read the table that is there, and draw it again.
    #[arg(long)]
    redraw: bool,
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
    let name = arguments.table.to_possible_value().ok_or("every table has a name")?.get_name().to_string();
    let file = arguments.out.join(format!("{name}.md"));
    let evidence = match arguments.table {
        _ if arguments.redraw => Evidence::read(&std::fs::read_to_string(&file)?),
        Name::Faults => tables::faults()?,
        Name::MiniLm => tables::minilm(models()?)?,
        Name::SmolLm2 => tables::smollm2(models()?)?,
        Name::EfficientNet => tables::efficientnet(models()?)?,
    };
    if !arguments.redraw {
        let command = format!("cargo run --release -p burn-quant-benches --bin evidence -- {name}");
        std::fs::create_dir_all(&arguments.out)?;
        std::fs::write(&file, format!("{}\n\n{}\n", evidence.markdown(), Place::here().line(&command)))?;
    }
    if let Some((title, axis)) = arguments.table.picture() {
        let picture = arguments.pictures.join(format!("results-{name}.svg"));
        std::fs::write(picture, evidence.picture(title, axis).to_svg())?;
    }
    println!("{}", evidence.markdown());
    Ok(())
}

impl Name {
    /// The title of the picture, and its axis; `None` where there is nothing to draw.
    fn picture(self) -> Option<(&'static str, Axis)> {
        Some(match self {
            Name::Faults => return None,
            Name::MiniLm => {
                ("all-MiniLM-L6-v2", Axis::linear("mean cosine to the float embeddings").higher_is_better())
            }
            Name::SmolLm2 => {
                ("SmolLM2-135M-Instruct", Axis::linear("perplexity, last tenth of Moby-Dick").lower_is_better())
            }
            Name::EfficientNet => {
                ("EfficientNet-Lite0", Axis::linear("photographs that are named right").higher_is_better())
            }
        })
    }
}
