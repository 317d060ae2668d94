//! Faults that were found once, by number: each test says the right behaviour.
//!
//! The bodies stand in one file per area; this is the index. `cargo test --test specification faults::f05` runs one.

mod backends;
mod folding;
mod learning;
mod numbers;
mod observing;
mod placing;
mod plain;
mod recipes;
mod records;
mod searching;
mod solving;

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
    f01_a_branch_survives_what_comes_after_it = solving::a_branch_survives_what_comes_after_it;
    f02_what_leaves_as_burns_computes_the_same = plain::burns_layer_computes_the_same;
    f03_steps_that_undo_others_are_refused = solving::steps_that_undo_others_are_refused;
    f04_a_channel_without_weights_does_not_set_the_range = solving::a_channel_without_weights_does_not_set_the_range;
    f05_small_blocks_under_e4m3_scales_keep_their_values = numbers::f05;
    f06_output_channels_of_transposed_convolutions =
        placing::output_channels_of_transposed_convolutions_are_counted_in_each_group;
    f07_a_block_without_inputs_keeps_its_range = solving::a_block_without_inputs_keeps_its_range;
    f08_an_empty_loop_is_an_error = solving::an_empty_loop_is_an_error;
    f09_an_activation_of_zeros_is_a_warning = observing::an_activation_of_zeros_is_a_warning;
    f10_frozen_ranges_stay_frozen = plain::frozen_ranges_stay_frozen;
    f11_several_weights_of_one_struct_are_solved_apart = placing::several_weights_of_one_struct_are_solved_apart;
    f12_counts_do_not_wrap = observing::counts_do_not_wrap;
    f13_a_struct_is_not_burns_because_of_its_name = placing::a_struct_is_not_burns_because_of_its_name;
    f14_two_ranges_for_one_activation_are_refused = observing::two_ranges_for_one_activation_are_refused;
    f15_globs_of_a_search_that_match_nothing_are_errors = searching::f15;
    f16_a_clone_does_not_go_on_observing = observing::a_clone_does_not_go_on_observing;
    f17_tied_weights_do_not_diverge_under_one_id = plain::tied_weights_do_not_diverge_under_one_id;
    f18_burns_adapters_and_ours = plain::burns_adapters_and_ours;
    f19_blocks_of_kernels_lie_along_the_contracted_elements =
        placing::blocks_of_kernels_lie_along_the_contracted_elements;
    f20_local_hessian_falls_back_to_squared_error = solving::local_hessian_falls_back_to_squared_error;
    f21_gptq_follows_dynamic_ranges_of_channels = solving::gptq_follows_dynamic_ranges_of_channels;
    f21_one_range_clips_gradients_in_the_dtype_of_the_tensor = numbers::f21;
    f21_steps_are_decimal_numbers = solving::steps_are_decimal_numbers;
    f23_distillation_of_logits_that_a_mask_rules_out_is_a_number = searching::f23_distillation;
    f23_scores_by_divergence_are_never_negative_nor_nan_and_are_saved_before_a_budget_can_fail = searching::f23;
    f24_a_model_is_walked_through_a_few_times = observing::a_model_is_walked_through_a_few_times;
    f25_a_column_layout_is_known_before_the_weight_is_made =
        placing::a_column_layout_is_known_before_the_weight_is_made;
    f26_an_expert_without_tokens_can_learn_its_range = observing::an_expert_without_tokens_can_learn_its_range;
    f27_tensors_that_burn_quantized_do_not_panic = placing::tensors_that_burn_quantized_do_not_panic;
    f28_a_nan_is_where_the_error_says = observing::a_nan_is_where_the_error_says;
    f29_a_layer_without_a_score_says_which_of_the_reasons_it_is = searching::f29;
    f29_a_loss_that_is_no_number_is_refused_and_batches_are_counted = searching::f29_numbers;
    f30_every_error_is_one_short_sentence = recipes::f30;
    f31_a_prefix_is_not_a_name = observing::a_prefix_is_not_a_name;
    f32_impossible_numbers_end = plain::impossible_numbers_end;
    f33_hostile_records_are_errors_of_their_own = records::f33;
    f34_traversals_may_be_nested = observing::traversals_may_be_nested;
    f35_an_average_does_not_depend_on_threads = observing::an_average_does_not_depend_on_threads;
    f35_experts_borrow_ranges_and_no_matrices = observing::experts_borrow_ranges_and_no_matrices;
    f35_what_overflows_leaves_a_layer_as_it_is = solving::what_overflows_leaves_a_layer_as_it_is;
    f35_the_knapsack_ends_and_says_how_far_it_may_be_from_the_best = searching::f35;
    f36_algorithms_of_modelopt_are_read_with_the_options_that_it_writes = recipes::f36_algorithms;
    f36_axes_are_read_in_every_spelling_that_means_the_same = recipes::f36_axes;
    f36_rules_that_leave_no_weight_enabled_are_an_error = recipes::f36_none_enabled;
    f37_e4m3_scales_before_and_after_rounding_have_gradients_of_their_own = learning::e4m3_scales;
    f37_learned_ranges_are_saved_folded_and_kept_apart = learning::saved_and_folded;
    f37_learned_ranges_are_searched = learning::searched;
    f37_learned_ranges_of_modelopt_are_imported = learning::imported;
    f37_learned_ranges_that_cannot_be_are_errors_and_recipes_keep_them = learning::configured;
    f37_scales_before_and_after_rounding_have_gradients_of_their_own = learning::f32_scales;
    f37_training_changes_the_ranges_that_are_learned_and_no_other = learning::trained;
    f37_what_is_folded_for_a_while_is_as_it_was_afterwards = folding::f37_temporary_fold;
    f38_a_record_is_restored_in_part_and_under_other_paths = records::f38;
    f39_an_embedding_quantizes_the_rows_it_looks_up = plain::an_embedding_quantizes_the_rows_it_looks_up;
    f40_no_comparison_passes_by_nan = numbers::f40;
    f42_the_output_of_an_unquantized_model_is_not_the_expected_one = numbers::f42;
    f44_the_gate_runs_every_fuzz_target = records::f44;
    f46_an_error_of_the_store_is_printed_as_its_sentence = records::f46;
    f46_debug_of_an_error_is_its_sentence = recipes::f46;
    f47_layers_of_burn_under_a_rule_for_activations_get_the_advice_that_helps = recipes::f47;
    f48_a_folded_norm_is_gone_and_the_model_is_trained_saved_and_restored = folding::f48;
    f49_rules_are_for_products_unless_they_name_others = placing::rules_are_for_products;
    f50_what_stays_in_float_is_in_the_report = placing::what_stays_in_float_is_in_the_report;
    f51_awq_is_never_worse_than_nothing = solving::awq_is_never_worse_than_nothing;
    f51_weights_without_data_are_solved_all_the_same = solving::weights_without_data_are_solved_all_the_same;
    f52_a_role_that_does_not_suit_its_layer_is_an_error = placing::a_role_that_does_not_suit_its_layer_is_an_error;
    f52_a_quantizer_beside_a_convolution_of_burn_is_warned_of =
        placing::a_quantizer_beside_a_convolution_of_burn_is_warned_of;
    f53_a_folded_model_says_so = folding::f53;
    f54_a_format_is_written_as_the_summary_prints_it = recipes::f54_formats;
    f54_a_name_that_is_not_there_lists_the_nearest = recipes::f54_near_misses;
    f54_a_recipe_of_an_earlier_release_is_read = recipes::f54_old;
    f54_a_recipe_starts_from_a_preset = recipes::f54_preset;
    f54_an_algorithm_is_its_name_and_defaults_are_left_out = recipes::f54_algorithms;
    f54_recipes_of_modelopt_are_read_from_yaml = recipes::f54_yaml;
    f55_a_model_for_validation_rounds_once = plain::a_model_for_validation_rounds_once;
    f56_a_device_without_kernels_is_named = backends::f56;
    f57_paths_and_foreign_checkpoints_are_what_they_seem = records::f57;
    f59_a_report_says_one_pass_and_a_summary_shows_what_is_on = searching::f59_reports;
    f59_forward_and_loss_take_a_batch_in_the_same_way = searching::f59_loops;
    f60_burn_computes_a_wrong_gradient_of_strided_groups = backends::f60;
}
