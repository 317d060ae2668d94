//! What broke in other toolkits, by the number of the report: the same must not break here.
//!
//! The bodies stand in one file per area; this is the index. `cargo test --test specification regressions::t11` runs one.

mod numbers;
mod records;

use crate::faults::index;

index! {
    t01_a_block_of_zeros_has_a_scale_that_is_a_number = numbers::t01;
    t04_scales_of_bf16_are_those_of_the_same_numbers_in_f32 = numbers::t04;
    t07_a_learned_range_near_zero_gives_numbers = numbers::t07;
    t08_a_learned_range_below_zero_mirrors_nothing = numbers::t08;
    t08_a_range_below_zero_is_its_magnitude = numbers::t08_set;
    t09_a_clipped_value_has_a_gradient_to_its_range = numbers::t09;
    t10_what_is_packed_is_what_was_simulated = numbers::t10;
    t11_histograms_of_different_ranges_merge_into_that_of_all = numbers::t11;
    t14_the_search_of_ranges_sees_a_short_last_block = numbers::t14;
    t15_blocks_that_do_not_divide_are_quantized = numbers::t15;
    t16_learned_rounding_of_a_short_block_stays_on_its_grid = numbers::t16;
    t41_training_resumes_where_it_stopped = records::t41;
}
