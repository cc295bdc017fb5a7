//! The contract of databases: what clients of a router can rely on, whatever database is behind it.
//!
//! Each case runs for each database through a router process of its own, with a database of its own. What a database cannot
//! have stands in the table at the end, with the reason. The cases are in `tests/database/contract`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::disallowed_methods, reason = "clients and servers live in real time")]

mod harness;

mod database {
    #[cfg(feature = "oracle")]
    pub(crate) mod oracle;
    pub(crate) mod server;

    pub(crate) mod contract {
        pub(crate) mod backend;
        pub(crate) mod client;
        #[cfg(feature = "oracle")]
        pub(crate) mod oracle;
        pub(crate) mod stage;

        pub(crate) mod calls;
        pub(crate) mod crash;
        pub(crate) mod events;
        pub(crate) mod replay;
        pub(crate) mod results;
        pub(crate) mod routers;
        pub(crate) mod servers;
        pub(crate) mod values;
    }
}

/// A test of each case for each database, so that what fails is named: `postgresql::a_row_is_the_first_one`.
macro_rules! contract {
    (
        of every database { $($group:ident { $($case:ident)* })* }
        $(not of sqlite, $reason:literal { $($server_group:ident { $($server_case:ident)* })* })*
    ) => {
        mod sqlite {
            use std::sync::Arc;

            use crate::database::contract::backend::{Backend as _, Shared, Sqlite};

            $($(
                #[test]
                fn $case() {
                    let database: Shared = Arc::new(Sqlite::new());
                    crate::database::contract::$group::$case(&database);
                }
            )*)*
        }

        mod postgresql {
            use std::sync::Arc;

            use crate::database::contract::backend::{Backend as _, Postgres, Shared};

            $($(
                #[test]
                fn $case() {
                    let database: Shared = Arc::new(Postgres::new());
                    crate::database::contract::$group::$case(&database);
                }
            )*)*

            $(
                // $reason
                $($(
                    #[test]
                    fn $server_case() {
                        assert!(!$reason.is_empty());
                        crate::database::contract::$server_group::$server_case();
                    }
                )*)*
            )*
        }

        /// All cases of every database, by their names; `database/contract/oracle.rs` runs those of Oracle.
        #[cfg(feature = "oracle")]
        const CASES: &[(&str, fn(&database::contract::backend::Shared))] = &[
            $($((stringify!($case), database::contract::$group::$case),)*)*
        ];
    };
}

contract! {
    of every database {
    values {
        integers_are_exact
        floats_are_exact
        texts_are_what_they_were
        booleans_are_booleans
        bytes_are_bytes
        json_keeps_its_shape
        null_is_null_whatever_the_type
        a_text_of_a_mebibyte
        bytes_of_a_mebibyte
        a_number_beyond_its_type_is_refused
        arguments_by_position_and_by_name
        an_argument_that_is_missing_is_named
        more_arguments_than_parameters_are_refused
        a_name_that_no_parameter_has_is_refused
        an_argument_that_is_given_twice_is_refused
        one_parameter_may_stand_in_two_places
        what_looks_like_a_parameter_in_a_text_is_none
    }
    results {
        rows_are_objects
        no_rows_are_an_empty_list
        a_row_is_the_first_one
        a_value_is_the_first_column
        no_row_is_null
        nothing_is_no_argument
        what_changes_rows_tells_how_many
        what_returns_rows_gives_them
        a_result_that_is_too_long_is_refused
        large_sets_come_in_parts_in_order
        a_small_set_comes_whole
        a_set_that_is_cancelled_between_parts_ends
        an_error_behind_the_first_parts_ends_a_set
        a_key_that_is_there_has_its_error
        a_key_that_is_not_there_has_its_error
        null_where_there_must_be_a_value_is_an_invalid_argument
        what_a_check_refuses_is_an_invalid_argument
        what_a_trigger_refuses_is_an_error_of_the_application
        errors_of_ones_own_have_their_uri
        a_procedure_comes_with_its_table
        what_every_database_offers_is_a_registration
    }
    calls {
        a_call_is_done_whole_or_not_at_all
        what_others_commit_is_seen_and_nothing_before
        who_waits_for_a_lock_waits_no_longer_than_its_time
        a_call_that_is_killed_stops
        a_write_that_is_killed_leaves_nothing
        who_does_not_wait_for_the_end_is_answered_at_once
        what_is_skipped_goes_on
        a_late_cancel_stops_no_other
        a_call_that_waits_is_cancelled_without_having_begun
        who_leaves_takes_its_calls_along
        a_procedure_has_its_time
        a_caller_has_its_time
        a_database_has_its_time
        who_waits_for_a_connection_waits_no_longer_than_its_time
        a_full_queue_is_an_answer_at_once
        what_waits_is_bounded_in_bytes
        slow_procedures_with_a_bound_leave_connections_to_others
        one_at_a_time_is_in_order
        a_slow_call_leaves_the_other_connection
        stalled_readers_of_large_sets_leave_connections_to_others
        stalled_readers_that_fill_the_pool_give_it_back_with_their_time
        every_call_of_many_callers_is_answered_once
        who_calls_is_known_inside
        who_says_nothing_is_known_as_anonymous
        who_calls_cannot_be_said_by_the_caller
        a_role_calls_what_it_may
        calls_go_on_beside_a_call_that_fails_again_and_again
        what_cannot_be_had_of_a_database_is_said
    }
    events {
        an_event_comes_with_the_commit
        what_fails_publishes_nothing
        what_is_cancelled_publishes_nothing
        what_a_savepoint_takes_back_is_not_published
        events_of_one_writer_come_in_order
        many_writers_lose_nothing_and_keep_their_order
        an_event_of_a_mebibyte
        what_another_program_publishes_comes_as_well
        changes_of_a_table_are_events
        who_calls_does_not_hear_itself_unless_it_wants_to
        events_go_to_whom_they_are_meant_for
        what_is_no_publication_fails_at_once
        events_reach_subscribers_of_every_core_and_pattern
        a_slow_subscriber_holds_up_nobody_for_long
        what_is_committed_without_a_router_is_offered_by_the_next
    }
    routers {
        what_was_answered_is_there_after_a_kill
        what_ran_when_a_router_was_killed_is_done_whole_or_not_at_all
        a_router_that_is_stopped_ends_its_calls_and_the_next_goes_on
    }
    replay {
        what_came_meanwhile_comes_first
        behind_nothing_comes_all_that_is_kept
        behind_the_last_comes_what_is_new
        patterns_resume_in_one_order
        nobody_misses_anything_while_others_write
        who_was_with_another_router_resumes_with_the_next
        a_router_that_is_killed_again_and_again_costs_no_event
        what_is_resumed_again_is_the_same
        who_was_not_meant_is_not_meant_later
        what_was_rolled_back_is_not_there_later
        a_position_that_nobody_has_seen_is_refused
        resuming_waits_for_no_call
    }
    crash {
        every_committed_event_comes_however_often_the_router_is_killed
    }
    }

    not of sqlite, "it runs inside the router: there is no server to be killed, stopped or missed, but the router itself, whose cases are above" {
    servers {
        a_server_that_is_killed_is_away_and_comes_back
        a_server_that_is_stopped_answers_late_and_nobody_waits_for_it
        who_cancels_on_a_stopped_server_does_not_hold_others_up
        a_router_ends_although_its_server_says_nothing
        a_server_that_was_restarted_is_called_as_if_nothing_had_been
        nothing_that_was_published_is_lost_when_a_server_is_killed
        nothing_that_was_published_is_lost_when_a_server_is_stopped
        a_server_that_is_not_there_at_the_start_is_waited_for
    }
    }

    not of sqlite, "one router alone publishes what is in a file" {
    servers {
        of_two_routers_one_publishes_and_the_other_takes_over
        a_router_that_lost_its_place_misses_nothing
    }
    }

    not of sqlite, "as above: it has no server" {
    crash {
        every_committed_event_comes_however_often_router_and_server_are_killed
        every_committed_event_comes_through_the_log_of_the_server
    }
    }

    not of sqlite, "its procedures are SQL of the configuration, whose parameters have no defaults and are not many" {
    servers {
        functions_have_defaults_and_lists_of_arguments
    }
    }

    not of sqlite, "it has no roles: whoever may open the file may do everything, and the router's permissions are all there is" {
    servers {
        a_call_runs_with_the_rights_of_its_callers_role
    }
    }
}

#[cfg(not(feature = "oracle"))]
#[test]
fn oracle() {
    harness::not_tested("the contract of databases, of Oracle: this was compiled without it");
}
