//! What broke in other toolkits, by the number of the report: the same must not break here.
//!
//! The bodies stand in one file per area; this is the index. `cargo test --test specification regressions::t11` runs
//! one.

mod calibrating;
mod numbers;
mod products;
mod records;
mod sharing;

use crate::faults::index;

index! {
    t01_a_block_of_zeros_has_a_scale_that_is_a_number = numbers::t01;
    t02_a_quantizer_of_dynamic_blocks_that_saw_zeros_has_a_scale = calibrating::t02;
    t04_scales_of_bf16_are_those_of_the_same_numbers_in_f32 = numbers::t04;
    t07_a_learned_range_near_zero_gives_numbers = numbers::t07;
    t08_a_learned_range_below_zero_mirrors_nothing = numbers::t08;
    t08_a_range_below_zero_is_its_magnitude = numbers::t08_set;
    t09_a_clipped_value_has_a_gradient_to_its_range = numbers::t09;
    t10_what_is_packed_is_what_was_simulated = numbers::t10;
    t11_histograms_of_different_ranges_merge_into_that_of_all = numbers::t11;
    t12_sums_of_the_largest_codes_do_not_saturate = products::t12;
    t13_tails_and_repeated_rows_are_multiplied = products::t13;
    t17_a_bias_above_all_steps_is_kept = products::t17;
    t18_depthwise_kernels_keep_a_scale_each = products::t18;
    t42_what_is_packed_again_has_the_same_codes = products::t42;
    t14_the_search_of_ranges_sees_a_short_last_block = numbers::t14;
    t15_blocks_that_do_not_divide_are_quantized = numbers::t15;
    t16_learned_rounding_of_a_short_block_stays_on_its_grid = numbers::t16;
    t20_experts_without_tokens_are_quantized_all_the_same = calibrating::t20;
    t21_projections_of_one_product_have_one_scale_of_the_tensor = calibrating::t21;
    t23_siblings_are_smoothed_where_some_are_off_or_absent = calibrating::t23;
    t24_nothing_is_folded_into_a_norm = calibrating::t24;
    t25_a_search_shows_float_weights_and_dead_channels_have_scales = calibrating::t25;
    t31_the_size_of_blocks_is_that_of_the_configuration = calibrating::t31;
    t32_a_range_is_that_of_all_batches = calibrating::t32;
    t33_shards_merge_into_what_one_process_sees = calibrating::t33;
    t35_tied_weights_stay_tied_and_equal_ones_stay_two = sharing::t35;
    t37_a_layer_that_is_called_twice_has_the_larger_range = sharing::t37;
    t38_an_expert_without_tokens_is_scored_like_its_siblings = sharing::t38_experts;
    t38_scores_do_not_overflow = sharing::t38_overflow;
    t39_a_layer_that_is_left_out_stays_out = sharing::t39;
    t41_training_resumes_where_it_stopped = records::t41;
}
