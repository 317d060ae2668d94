//! What each calibration algorithm does, as the plots of the book.
//!
//! `cargo run --release -p calibration-plots -- --images book/src/images/calibration --json plots.json`

mod activations;
mod data;
mod layers;
mod weights;

use std::path::PathBuf;

use burn::tensor::Device;
use clap::Parser;
use plot::Plot;

#[derive(Parser)]
struct Arguments {
    /// Draws the plots into this folder.
    #[arg(long)]
    images: Option<PathBuf>,
    /// Writes their numbers here.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let device = Device::flex();
    let mut plots: Vec<Plot> = activations::plots(&device)?;
    plots.extend(weights::plots(&device)?);
    plots.extend(layers::plots(&device)?);
    for plot in &plots {
        println!("{}", plot.name);
        for series in &plot.series {
            match series.points.as_slice() {
                [] => println!("  {}", series.name),
                [(x, _)] => println!("  {:32} at {x:.4}", series.name),
                [first, .., last] => println!("  {:32} {first:.4?} ... {last:.4?}", series.name),
            }
        }
    }
    if let Some(folder) = arguments.images {
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        plots.iter().try_for_each(|plot| plot.draw(&folder))?;
    }
    if let Some(file) = arguments.json {
        let text = serde_json::to_string_pretty(&plots)?;
        std::fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(())
}
