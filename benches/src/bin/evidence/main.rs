//! Makes the tables of the book's chapter "Results" again, each into a file with its device, date and commit.
//!
//! `cargo run --release -p burn-quant-benches --bin evidence -- TABLE [--models DIR]`

mod costs;
mod networks;
mod packed;
mod place;
mod searches;
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
    /// The folder that `cargo run --release -p export-onnx -- --trained --models DIR --out FOLDER` wrote.
    #[arg(long)]
    onnx: Option<PathBuf>,
    /// A Python with the packages onnx, onnxruntime, safetensors and numpy.
    #[arg(long, env = "BURN_QUANT_ORT")]
    python: Option<PathBuf>,
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

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Name {
    /// Planted faults, and what a diagnosis makes of them.
    Faults,
    /// A small network on images: accuracy by recipe, calibrated, trained, and trained with a teacher, over ten seeds.
    Cnn,
    /// A residual network of 20 layers with 4, 3 and 2 bits, beside what papers lose.
    Residual,
    /// A character-level language model: bits per character by recipe.
    CharGpt,
    /// The search for formats on the small network.
    AutoQuantizeCnn,
    /// The search for formats on the character-level language model.
    AutoQuantizeCharGpt,
    /// The search for formats on the sentence encoder.
    #[value(name = "auto-quantize-minilm")]
    AutoQuantizeMiniLm,
    /// A sentence encoder: cosine and rank correlations by recipe.
    #[value(name = "minilm")]
    MiniLm,
    /// A language model: perplexity by recipe.
    #[value(name = "smollm2")]
    SmolLm2,
    /// A language model as files for servers: size, perplexity and speed of what is read again.
    #[value(name = "smollm2-files")]
    SmolLm2Files,
    /// What calibration and a step of training cost.
    Costs,
    /// Packed models beside their float selves: bytes and speed.
    PackedModels,
    /// Exported files in ONNX Runtime: size, difference, speed, and which kernels ran.
    Onnx,
    /// A layer with burn's own quantized tensors beside a packed one.
    BurnsOwn,
    /// A classifier of photographs by recipe.
    #[value(name = "efficientnet")]
    EfficientNet,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (arguments, place) = (Arguments::parse(), Place::here());
    let models =
        || arguments.models.as_deref().ok_or("this table needs `--models DIR`: see examples/pretrained/fetch.sh");
    let name = arguments.table.to_possible_value().ok_or("every table has a name")?.get_name().to_string();
    let file = arguments.out.join(format!("{name}.md"));
    let evidence = match arguments.table {
        _ if arguments.redraw => Evidence::read(&std::fs::read_to_string(&file)?),
        Name::Faults => tables::faults()?,
        Name::Cnn => networks::cnn()?,
        Name::Residual => networks::residual()?,
        Name::CharGpt => networks::char_gpt()?,
        Name::AutoQuantizeCnn => searches::of_cnn()?,
        Name::AutoQuantizeCharGpt => searches::of_char_gpt()?,
        Name::AutoQuantizeMiniLm => searches::of_minilm(models()?)?,
        Name::MiniLm => tables::minilm(models()?)?,
        Name::SmolLm2 => tables::smollm2(models()?)?,
        Name::SmolLm2Files => tables::smollm2_files(models()?)?,
        Name::Costs => costs::costs()?,
        Name::Onnx => {
            let folder = arguments.onnx.as_deref().ok_or("this table needs `--onnx FOLDER`: see `--help`")?;
            let python = arguments.python.as_deref().ok_or("this table needs `--python PYTHON`, or BURN_QUANT_ORT")?;
            tables::onnx(python, folder)?
        }
        Name::PackedModels => packed::models(models()?)?,
        Name::BurnsOwn => packed::burns_own()?,
        Name::EfficientNet => tables::efficientnet(models()?)?,
    };
    if !arguments.redraw {
        let command = format!("cargo run --release -p burn-quant-benches --bin evidence -- {name}");
        std::fs::create_dir_all(&arguments.out)?;
        std::fs::write(&file, format!("{}\n\n{}\n", evidence.markdown(), place.line(&command)))?;
    }
    if let Some((title, axis)) = arguments.table.picture() {
        let svg = match arguments.table {
            Name::AutoQuantizeCnn | Name::AutoQuantizeCharGpt | Name::AutoQuantizeMiniLm => {
                // of 1000 images accuracy differs by chance; the answers of the float model tell more
                let measure = usize::from(arguments.table == Name::AutoQuantizeCnn);
                searches::picture(&evidence, title, measure, axis).to_svg()
            }
            _ => evidence.picture(title, axis).to_svg(),
        };
        std::fs::write(arguments.pictures.join(format!("results-{name}.svg")), svg)?;
    }
    println!("{}", evidence.markdown());
    Ok(())
}

impl Name {
    /// The title of the picture, and its axis; `None` where there is nothing to draw.
    fn picture(self) -> Option<(&'static str, Axis)> {
        let accuracy = |name: &str| Axis::linear(name).higher_is_better();
        Some(match self {
            // five photographs are no axis
            Name::Faults | Name::Residual | Name::EfficientNet | Name::SmolLm2Files | Name::Costs => return None,
            Name::PackedModels | Name::BurnsOwn | Name::Onnx => return None,
            Name::Cnn => ("A small network on Fashion-MNIST", accuracy("accuracy in percent, mean of ten seeds")),
            Name::CharGpt => ("A character-level GPT", Axis::linear("bits per character").lower_is_better()),
            Name::AutoQuantizeCnn => {
                ("Formats of the small network, chosen in three ways", accuracy("answers of the float model"))
            }
            Name::AutoQuantizeCharGpt => {
                ("Formats of the GPT, chosen in three ways", Axis::linear("bits per character").lower_is_better())
            }
            Name::AutoQuantizeMiniLm => {
                ("Formats of MiniLM, chosen in three ways", accuracy("mean cosine to the float embeddings"))
            }
            Name::MiniLm => {
                ("all-MiniLM-L6-v2", Axis::linear("mean cosine to the float embeddings").higher_is_better())
            }
            Name::SmolLm2 => {
                ("SmolLM2-135M-Instruct", Axis::linear("perplexity, last tenth of Moby-Dick").lower_is_better())
            }
        })
    }
}
