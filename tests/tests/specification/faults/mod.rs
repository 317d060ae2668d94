//! Faults that were found once, by number: each test says the right behaviour, and failed before it was mended.
//!
//! The bodies stand in one file per area; this is the index. `cargo test --test specification faults::f05` runs one.

mod numbers;
mod records;

/// A test for each entry, which runs the body that is named.
macro_rules! index {
    ($($name:ident = $body:path;)*) => {
        $(
            #[test]
            fn $name() {
                $body();
            }
        )*
    };
}

pub(crate) use index;

index! {
    f05_small_blocks_under_e4m3_scales_keep_their_values = numbers::f05;
    f21_one_range_clips_gradients_in_the_dtype_of_the_tensor = numbers::f21;
    f33_hostile_records_are_errors_of_their_own = records::f33;
    f38_a_record_is_restored_in_part_and_under_other_paths = records::f38;
    f40_no_comparison_passes_by_nan = numbers::f40;
    f42_the_output_of_an_unquantized_model_is_not_the_expected_one = numbers::f42;
    f44_the_gate_runs_every_fuzz_target = records::f44;
    f46_an_error_of_the_store_is_printed_as_its_sentence = records::f46;
    f57_paths_and_foreign_checkpoints_are_what_they_seem = records::f57;
}
