#![doc = include_str!("../README.md")]
//!
//! * `arguments` the command line
//! * `quantize`, `diagnose`, `eval`, `chat`, `inspect`, `convert`, `presets` a command each
//! * `recipe`, `model`, `device` what commands are told by name or path
//! * `output`, `table`, `units` what a user sees
//! * `staging`, `interrupt` results that appear when they are complete, whatever happens

mod arguments;
mod error;

mod output;
mod table;
mod units;

mod device;
mod model;
mod recipe;

mod interrupt;
mod staging;

mod by_parts;
mod chat;
mod convert;
mod diagnose;
mod eval;
mod inspect;
mod presets;
mod quantize;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::Parser;
use error::CliError;
use output::Output;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse(); // wrong usage ends here, with code 2
    interrupt::install();
    let output = Output::new(&arguments);
    match run(&arguments, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.code())
        }
    }
}

fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    match &arguments.command {
        Command::Quantize(options) => quantize::run(options, arguments.device, output),
        Command::Diagnose(options) => diagnose::run(options, arguments.device, output),
        Command::Eval(options) => eval::run(options, arguments.device, output),
        Command::Chat(options) => chat::run(options, arguments.device, output),
        Command::Inspect(options) => inspect::run(options, output),
        Command::Convert(options) => convert::run(options, output),
        Command::Presets => presets::run(output),
    }
}
