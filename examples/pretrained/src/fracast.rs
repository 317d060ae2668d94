//! Fracast-0, whose package has its weights twice: in f32, and as int8 codes with a scale for each output channel. The
//! second follow from the first, bit for bit.

use std::path::Path;

use burn_quant_numerics::packed::int8;
use safetensors::{Dtype, SafeTensors};

/// What was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Agreement {
    /// Tensors.
    pub tensors: usize,
    /// Codes.
    pub codes: usize,
    /// Codes that differ.
    pub different_codes: usize,
    /// Scales.
    pub scales: usize,
    /// Scales that differ in any bit.
    pub different_scales: usize,
}

/// Quantizes every float weight that the package has codes of, and compares.
///
/// # Errors
///
/// If a file cannot be read, or codes have no scales or no float weight.
pub fn compare(models: &Path) -> Result<Agreement, Box<dyn std::error::Error>> {
    let folder = models.join("fracast/weights");
    let read = |file: &str| {
        let path = folder.join(file);
        std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))
    };
    compare_files(&read("model.safetensors")?, &read("model.int8.safetensors")?)
}

/// The same on the bytes of the two files.
///
/// # Errors
///
/// As [`compare`].
pub fn compare_files(float: &[u8], quantized: &[u8]) -> Result<Agreement, Box<dyn std::error::Error>> {
    let (float, quantized) = (SafeTensors::deserialize(float)?, SafeTensors::deserialize(quantized)?);
    let mut agreement = Agreement { tensors: 0, codes: 0, different_codes: 0, scales: 0, different_scales: 0 };
    for (name, codes) in quantized.iter().filter(|(_, tensor)| tensor.dtype() == Dtype::I8) {
        let name = name.trim_end_matches(".qweight");
        let published: Vec<i8> = codes.data().iter().map(|byte| *byte as i8).collect();
        let scales = f32s(quantized.tensor(&format!("{name}.scale"))?.data());
        let weight = float.tensor(&format!("{name}.weight")).or_else(|_| float.tensor(name))?;
        let weight = f32s(weight.data());
        agreement.tensors += 1;
        agreement.codes += published.len();
        agreement.scales += scales.len();
        let channel = weight.len() / scales.len();
        for ((weight, published), scale) in weight.chunks(channel).zip(published.chunks(channel)).zip(&scales) {
            let found = int8::scale(weight.iter().fold(0.0, |amax, w| amax.max(w.abs())));
            let mut codes = vec![0; channel];
            int8::pack(weight, found, &mut codes)?;
            agreement.different_scales += usize::from(found.to_bits() != scale.to_bits());
            agreement.different_codes += codes.iter().zip(published).filter(|(a, b)| a != b).count();
        }
    }
    Ok(agreement)
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}
