//! Faults that were found once, by number: each test says the right behaviour, and failed before it was mended.
//!
//! The bodies stand in one file per area; this is the index. `cargo test --test specification faults::f05` runs one.

mod recipes;
mod searching;

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
    f15_globs_of_a_search_that_match_nothing_are_errors = searching::f15;
    f23_scores_by_divergence_are_never_negative_nor_nan_and_are_saved_before_a_budget_can_fail = searching::f23;
    f23_distillation_of_logits_that_a_mask_rules_out_is_a_number = searching::f23_distillation;
    f29_a_layer_without_a_score_says_which_of_the_reasons_it_is = searching::f29;
    f29_a_loss_that_is_no_number_is_refused_and_batches_are_counted = searching::f29_numbers;
    f30_every_error_is_one_short_sentence = recipes::f30;
    f35_the_knapsack_ends_and_says_how_far_it_may_be_from_the_best = searching::f35;
    f36_algorithms_of_modelopt_are_read_with_the_options_that_it_writes = recipes::f36_algorithms;
    f36_axes_are_read_in_every_spelling_that_means_the_same = recipes::f36_axes;
    f36_rules_that_leave_no_weight_enabled_are_an_error = recipes::f36_none_enabled;
    f46_debug_of_an_error_is_its_sentence = recipes::f46;
    f47_layers_of_burn_under_a_rule_for_activations_get_the_advice_that_helps = recipes::f47;
    f54_a_recipe_starts_from_a_preset = recipes::f54_preset;
    f54_a_format_is_written_as_the_summary_prints_it = recipes::f54_formats;
    f54_an_algorithm_is_its_name_and_defaults_are_left_out = recipes::f54_algorithms;
    f54_a_recipe_of_an_earlier_release_is_read = recipes::f54_old;
    f54_a_name_that_is_not_there_lists_the_nearest = recipes::f54_near_misses;
    f54_recipes_of_modelopt_are_read_from_yaml = recipes::f54_yaml;
    f59_forward_and_loss_take_a_batch_in_the_same_way = searching::f59_loops;
    f59_a_report_says_one_pass_and_a_summary_shows_what_is_on = searching::f59_reports;
}
