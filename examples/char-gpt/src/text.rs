//! The text as characters, and windows of it as batches.

use std::io::Read;
use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use flate2::read::GzDecoder;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Characters of a window.
pub const CONTEXT: usize = 128;

/// A text, each character as its number in the alphabet.
pub struct Text {
    alphabet: Vec<char>,
    training: Vec<i32>,
    held_out: Vec<i32>,
}

/// Windows `[batch, CONTEXT]` and what follows each of their characters.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Characters.
    pub inputs: Tensor<2, Int>,
    /// The characters after them.
    pub targets: Tensor<2, Int>,
}

impl Text {
    /// Reads a gzipped text; the last tenth is held out.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is shorter than a few windows.
    pub fn read(path: &Path) -> std::io::Result<Self> {
        let mut text = String::new();
        let named = |e: std::io::Error| std::io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        GzDecoder::new(std::fs::File::open(path).map_err(named)?).read_to_string(&mut text).map_err(named)?;
        let mut alphabet: Vec<char> = text.chars().collect();
        alphabet.sort_unstable();
        alphabet.dedup();
        let number = |c: char| alphabet.binary_search(&c).expect("the alphabet has every character") as i32;
        let mut training: Vec<i32> = text.chars().map(number).collect();
        let held_out = training.split_off(training.len() / 10 * 9);
        if held_out.len() <= 2 * CONTEXT {
            return Err(std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                "the text is too short to hold out a tenth",
            ));
        }
        Ok(Self { alphabet, training, held_out })
    }

    /// Different characters.
    pub fn characters(&self) -> usize {
        self.alphabet.len()
    }

    /// Windows of the training text, from anywhere, batch after batch without end.
    pub fn windows(&self, batch: usize, seed: u64, device: &Device) -> impl Iterator<Item = Batch> + '_ {
        let (mut rng, device) = (StdRng::seed_from_u64(seed), device.clone());
        std::iter::repeat_with(move || {
            let starts: Vec<usize> = (0..batch).map(|_| rng.random_range(0..self.training.len() - CONTEXT)).collect();
            windows(&self.training, &starts, &device)
        })
    }

    /// Windows of the text that is held out, spread over it evenly.
    pub fn held_out(&self, windows_of: usize, batch: usize, device: &Device) -> Vec<Batch> {
        let last = self.held_out.len() - CONTEXT - 1;
        let starts: Vec<usize> = (0..windows_of).map(|i| i * last / windows_of.max(1)).collect();
        starts.chunks(batch).map(|starts| windows(&self.held_out, starts, device)).collect()
    }

    /// The numbers of a text; characters that the alphabet lacks are left out.
    pub fn encode(&self, text: &str) -> Vec<i32> {
        text.chars().filter_map(|c| self.alphabet.binary_search(&c).ok()).map(|i| i as i32).collect()
    }

    /// The text of numbers.
    pub fn decode(&self, numbers: &[i32]) -> String {
        numbers.iter().map(|number| self.alphabet[*number as usize]).collect()
    }
}

fn windows(text: &[i32], starts: &[usize], device: &Device) -> Batch {
    let from = |offset: usize| {
        let numbers: Vec<i32> = starts.iter().flat_map(|s| text[s + offset..s + offset + CONTEXT].to_vec()).collect();
        Tensor::from_data(TensorData::new(numbers, [starts.len(), CONTEXT]), device)
    };
    Batch { inputs: from(0), targets: from(1) }
}
