//! Whatever the bytes, scales and lengths are, unpacking gives values or an error, and what was unpacked packs again.
#![no_main]

use arbitrary::Arbitrary;
use burn_quant_numerics::packed::nf4::DoubleScales;
use burn_quant_numerics::packed::{PackError, bits, fp8, int4, int8, mx, nf4, nvfp4};
use burn_quant_numerics::{Format, IntFormat};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input {
    layout: u8,
    format: u8,
    width: u8,
    block: u16,
    elements: u16,
    scale: f32,
    bytes: Vec<u8>,
    scale_bytes: Vec<u8>,
    scales: Vec<f32>,
}

const FORMATS: [Format; 7] =
    [Format::E4M3, Format::E5M2, Format::E3M2, Format::E2M3, Format::E2M1, Format::E1M2, Format::Nf4];

fuzz_target!(|input: Input| {
    let _ = run(input);
});

fn run(input: Input) -> Result<(), PackError> {
    let Input { layout, format, width, block, elements, scale, bytes, scale_bytes, scales } = input;
    let block = usize::from(block);
    let mut y = vec![0f32; usize::from(elements)];
    let int: Format = IntFormat::signed(width % 9).map_or(Format::E4M3, Format::from);
    let format = FORMATS.get(usize::from(format)).copied().unwrap_or(int);
    match layout % 8 {
        0 => {
            let codes: Vec<i8> = bytes.iter().map(|byte| *byte as i8).collect();
            int8::unpack(&codes, scale, &mut y)?;
            int8::pack(&y, scale, &mut vec![0; codes.len()])?;
        }
        1 => {
            fp8::unpack(&bytes, scale, &mut y)?;
            fp8::pack(&y, scale, &mut vec![0; bytes.len()])?;
        }
        2 => {
            int4::unpack(&bytes, block, &scales, &mut y)?;
            let mut again = vec![0; bytes.len()];
            int4::pack(&y, block, &scales, &mut again)?;
            if scales.iter().all(|scale| (1e-30..1e30).contains(&scale.abs())) {
                assert_eq!(again, bytes);
            }
        }
        3 => {
            nf4::unpack(&bytes, block, &scales, &mut y)?;
            nf4::pack(&y, block, &scales, &mut vec![0; bytes.len()])?;
        }
        4 => {
            let codes: Vec<i8> = bytes.iter().map(|byte| *byte as i8).collect();
            let double = DoubleScales { codes: &codes, factors: &scales, zero: scale, block };
            double.restore(&mut y)?;
            DoubleScales::quantize(&y, block, &mut vec![0; y.len()], &mut vec![0.0; scales.len()])?;
        }
        5 => {
            nvfp4::unpack(&bytes, block, &scale_bytes, scale, &mut y)?;
            nvfp4::pack(&y, block, &scale_bytes, scale, &mut vec![0; bytes.len()])?;
            nvfp4::scales(&y, block, scale, &mut vec![0; scale_bytes.len()])?;
        }
        6 => {
            mx::decode(format, &bytes, block, &scale_bytes, &mut y)?;
            mx::encode(format, &y, block, &scale_bytes, &mut vec![0; bytes.len()])?;
            mx::scales(format, &y, block, &mut vec![0; scale_bytes.len()])?;
            let mut codes = vec![0; y.len()];
            mx::unpack_nibbles(&scale_bytes, &mut codes)?;
            let mut again = vec![0; scale_bytes.len()];
            mx::pack_nibbles(&codes, &mut again)?;
            assert_eq!(again, scale_bytes);
        }
        _ => {
            let mut codes = vec![0u16; usize::from(elements)];
            bits::unpack(&bytes, width, &mut codes)?;
            let mut again = vec![0; bytes.len()];
            bits::pack(&codes, width, &mut again)?;
            let mut twice = vec![0u16; codes.len()];
            bits::unpack(&again, width, &mut twice)?;
            assert_eq!(twice, codes);
        }
    }
    Ok(())
}
