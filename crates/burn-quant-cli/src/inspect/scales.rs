//! Scales that look wrong.

use burn_quant_checkpoint::{CheckpointError, Dtype, Folder, Minifloat};

use super::Suspicion;

/// What tensors of scales are called.
const SCALES: [&str; 11] = [
    "weight_scale",
    "weight_scale_2",
    "weight_global_scale",
    "weight_scale_inv",
    "input_scale",
    "input_global_scale",
    "output_scale",
    "pre_quant_scale",
    "k_scale",
    "v_scale",
    "scales",
];

/// Scales of more than so many times the median of their layer.
const OUTLIER: f32 = 1e3;

pub(super) fn suspicious(folder: &Folder) -> Result<Vec<Suspicion>, CheckpointError> {
    let mut found = Vec::new();
    let scales = |name: &&str| SCALES.contains(&name.rsplit('.').next().unwrap_or_default());
    for name in folder.names().filter(scales) {
        let tensor = folder.tensor(name)?;
        let values: Vec<f32> = match tensor.dtype() {
            Dtype::F8E4M3 => tensor.bytes().iter().map(|code| Minifloat::E4M3.decode(*code)).collect(),
            Dtype::U8 | Dtype::F8E8M0 => tensor.bytes().iter().map(|byte| power_of_two(*byte)).collect(),
            _ => tensor.to_f32(name)?,
        };
        found.extend(problem(&values).map(|problem| Suspicion { tensor: name.into(), problem }));
    }
    Ok(found)
}

/// An E8M0 number.
fn power_of_two(byte: u8) -> f32 {
    if byte == u8::MAX { f32::NAN } else { 2f32.powi(i32::from(byte) - 127) }
}

/// What is wrong with the scales of a layer.
pub(super) fn problem(scales: &[f32]) -> Option<String> {
    let count = |wrong: &dyn Fn(f32) -> bool| scales.iter().filter(|scale| wrong(**scale)).count();
    let mut finite: Vec<f32> = scales.iter().copied().filter(|scale| scale.is_finite() && *scale > 0.0).collect();
    let middle = finite.len() / 2;
    let median = match finite.is_empty() {
        true => f32::INFINITY,
        false => *finite.select_nth_unstable_by(middle, f32::total_cmp).1,
    };
    let outliers = count(&|scale| scale.is_finite() && scale / OUTLIER > median);
    let problems = [
        (count(&|scale| !scale.is_finite()), "not finite".to_string()),
        (count(&|scale| scale < 0.0 && scale.is_finite()), "negative".to_string()),
        (count(&|scale| scale == 0.0), "zero".to_string()),
        (outliers, format!("above {OUTLIER} times the median, {median:.3e}")),
    ];
    let of = scales.len();
    let problems: Vec<String> =
        problems.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} of {of} {what}")).collect();
    (!problems.is_empty()).then(|| problems.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_suspicious_that_are_no_numbers_or_zero_or_far_above_the_others() {
        assert_eq!(problem(&[0.5, 1.0, 2.0]), None);
        assert_eq!(problem(&[f32::NAN, 1.0, f32::INFINITY]).unwrap(), "2 of 3 not finite");
        assert_eq!(problem(&[0.0, 1.0, -1.0]).unwrap(), "1 of 3 negative, 1 of 3 zero");
        assert_eq!(problem(&[1.0, 1.0, 1.0, 1001.0]).unwrap(), "1 of 4 above 1000 times the median, 1.000e0");
        assert_eq!(problem(&[1.0, 1.0, 1.0, 1000.0]), None);
        assert_eq!(problem(&[0.0, 0.0]).unwrap(), "2 of 2 zero");
        assert_eq!(problem(&[]), None);
    }

    #[test]
    fn powers_of_two_are_decoded_and_the_highest_code_is_no_number() {
        assert_eq!((power_of_two(127), power_of_two(129)), (1.0, 4.0));
        assert!(power_of_two(255).is_nan());
    }
}
