"""What breaks each control: tests that do what must not be done, and see the refusal or alarm.

Data only, by control and by file under `tests`. `tools/controls.py` writes it into
`docs/controls.md` and fails where a control has none, or where one isn't there.
"""

from __future__ import annotations

from collections.abc import Mapping

BROKEN_BY: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "S1": {
        "silo/test_store.py": (
            "test_a_send_without_an_accepted_basis_hides_the_person_in_this_experiment",
            "test_an_opt_out_on_any_send_of_any_experiment_hides_the_person",
        ),
        "silo/test_policy.py": ("test_each_purpose_has_its_own_bases",),
        "silo/test_rewriting.py": ("test_purged_sends_are_gone_and_do_not_come_back",),
        "lab/test_trials.py": ("test_a_filter_that_lets_somebody_through_is_seen",),
    },
    "S1b": {
        "silo/test_rewriting.py": (
            "test_killed_at_any_act_on_the_disk_it_was_done_wholly_or_not_at_all",
            "test_erased_people_are_gone_from_every_file_and_stay_so",
            "test_a_tombstone_that_is_missing_or_older_is_found_out",
        ),
        "lab/test_subject_batches.py": (
            "test_whose_case_counts_is_not_missed_and_nobody_else_is_erased",
        ),
        "lab/test_watched.py": ("test_each_state_that_is_put_wrong_is_told_at_the_next_look",),
    },
    "S2": {
        "silo/test_store_at_rest.py": (
            "test_no_marked_value_is_in_any_byte_on_disk",
            "test_another_key_opens_nothing",
        ),
        "site/test_rotation.py": ("test_killed_at_any_write_the_site_opens_and_no_key_is_left",),
    },
    "S3": {
        "distributed/test_hosts.py": ("test_the_wire_shows_no_canary_and_no_plain_message",),
        "distributed/test_hostile_bundle.py": (
            "test_what_it_makes_up_and_its_flood_get_no_answer",
        ),
        "site/test_certificates.py": ("test_another_authority_is_not_believed",),
    },
    "S4": {
        "distributed/test_hosts.py": ("test_the_node_reaches_no_file_of_its_own_silo",),
        "distributed/test_hostile_bundle.py": ("test_it_reads_no_file_of_the_silo",),
        "site/test_files.py": ("test_each_bit_for_others_is_too_wide",),
    },
    "S5": {
        "distributed/test_hosts.py": ("test_plain_text_is_refused",),
        "distributed/test_provisioning.py": ("test_a_certificate_that_ran_out_is_said_so",),
        "site/test_certificates.py": ("test_out_of_its_time_it_does_not_hold",),
    },
    "S6": {
        "silo/test_store_at_rest.py": (
            "test_wider_permissions_are_refused",
            "test_a_folder_that_was_opened_to_others_is_refused_and_not_narrowed",
        ),
        "site/test_files.py": ("test_a_link_counts_as_what_it_points_to",),
        "lab/test_doctor.py": ("test_each_wrong_is_found_and_on_record",),
    },
    "S7": {
        "lab/test_doctor.py": (
            "test_each_wrong_is_found_and_on_record",
            "test_a_policy_can_ask_for_a_check_up_before_anything_is_answered",
        ),
    },
    "S8": {
        "coordinator/test_vault.py": (
            "test_nothing_of_it_can_be_read",
            "test_another_site_can_neither_make_nor_open_it",
        ),
        "lab/test_models.py": ("test_sealed_on_disk_and_nothing_of_it_readable",),
    },
    "S9": {
        "lab/test_models.py": (
            "test_it_leaves_approved_with_right_fresh_factor_and_purpose",
            "test_four_eyes_on_export_are_asked_for_counted_and_bound",
        ),
        "whole/test_scoring.py": ("test_a_frozen_model_scores_nobody",),
    },
    "S10": {
        "coordinator/test_vault.py": ("test_every_flipped_byte_is_found",),
        "lab/test_models.py": ("test_every_changed_byte_is_found_and_named",),
        "lab/test_watched.py": (
            "test_a_watch_that_goes_on_notices_a_run_that_is_changed_after_it_was_judged",
        ),
        "silo/test_checking.py": ("test_damage_is_found_in_its_part_and_hides_no_other",),
    },
    "S11": {
        "site/test_signin.py": ("test_each_code_counts_once_and_older_ones_no_more",),
        "site/test_attempts.py": ("test_lock_out_doubles_and_even_the_right_factors_wait",),
        "lab/test_trials.py": ("test_a_policy_that_takes_a_password_alone_is_seen",),
    },
    "S12": {
        "site/test_rights.py": ("test_a_rule_gives_its_cell_and_no_other",),
        "cli/test_authorised.py": ("test_without_sign_in_or_right_it_is_refused",),
        "lab/test_trials.py": ("test_every_pair_is_asked_and_a_judge_that_is_broken_is_seen",),
    },
    "S13": {
        "site/test_rights.py": ("test_an_overdue_review_alerts_then_blocks",),
        "silo/test_access.py": ("test_a_stop_takes_effect_at_the_next_message_and_is_timed",),
        "site/test_reviews.py": ("test_a_review_revokes_is_recorded_and_counts",),
    },
    "S14": {
        "site/test_alarms.py": ("test_each_rule_finds_what_is_injected_at_the_next_look",),
        "lab/test_watched.py": (
            "test_each_state_that_is_put_wrong_is_told_at_the_next_look",
            "test_a_byte_that_is_changed_in_a_store_is_told",
            "test_what_is_damaged_next_is_told_on_the_same_day",
        ),
        "lab/test_watching.py": (
            "test_an_update_that_is_too_long_is_named",
            "test_whoever_damages_what_the_watch_keeps_does_not_silence_it",
        ),
        "site/test_sinks.py": ("test_a_webhook_that_does_not_take_it_is_no_success",),
    },
    "S15": {
        "silo/test_frozen.py": (
            "test_freezes_take_effect_at_the_next_message_and_say_when",
            "test_a_frozen_silo_or_key_answers_nothing",
        ),
        "lab/test_responding.py": ("test_a_drill_that_does_not_contain_fails_and_says_so",),
        "site/test_incidents.py": ("test_it_is_closed_with_a_summary_once_the_law_is_satisfied",),
    },
    "S16": {
        "site/test_vendors.py": (
            "test_a_service_is_used_from_approval_to_review",
            "test_nobody_approves_their_own",
        ),
        "silo/test_key_service.py": (
            "test_a_silo_whose_keys_lie_with_a_vendor_answers_while_it_is_approved",
        ),
        "lab/test_pulling.py": (
            "test_a_tool_elsewhere_takes_https_and_a_vendor_and_is_not_asked_before",
        ),
        "lab/test_vendor_gates.py": (
            "test_a_service_is_usable_while_its_entry_is_approved_and_not_otherwise",
            "test_it_ends_with_its_day_and_with_offboarding",
        ),
    },
    "S17": {
        "site/test_vendors.py": (
            "test_an_agreement_that_ended_ends_the_use",
            "test_the_score_is_weighted_and_too_low_a_one_bars",
            "test_entries_that_say_too_little_are_refused",
        ),
    },
    "S18": {
        "lab/test_doctor.py": (
            "test_drift_from_the_lock_is_named",
            "test_advisories_that_cannot_be_asked_are_never_clean",
            "test_an_old_lock_is_told",
        ),
    },
    "S19": {
        "silo/test_frozen.py": ("test_a_silo_that_was_not_checked_in_time_answers_nothing",),
        "lab/test_doctor.py": (
            "test_a_policy_can_ask_for_a_check_up_before_anything_is_answered",
            "test_a_record_that_was_changed_is_found_out",
        ),
    },
    "S20": {
        "site/test_rights.py": ("test_a_role_without_its_training_is_off",),
    },
    "S21": {
        "site/test_audit.py": (
            "test_every_single_bit_flip_is_found",
            "test_removed_swapped_and_repeated_lines_are_named",
        ),
        "protocol/test_chain.py": ("test_the_first_entry_that_does_not_fit_is_named",),
        "lab/test_backups.py": ("test_an_old_backup_is_refused_with_an_explanation",),
        "lab/test_intake_killed.py": (
            "test_an_ingest_that_is_killed_before_it_is_logged_is_logged_late_and_as_a_change",
        ),
    },
    "S22": {
        "lab/test_records.py": (
            "test_a_transfer_without_a_basis_is_a_gap",
            "test_written_records_prove_themselves_and_a_changed_one_is_found",
        ),
    },
}
