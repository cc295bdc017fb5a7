//! How often something happened, so that what never did is noticed.

/// What a run should have seen, counted.
macro_rules! happened {
    ($($(#[$about:meta])* $name:ident,)*) => {
        /// How often something happened that a run should have seen.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct Happened {
            $($(#[$about])* pub $name: u64,)*
        }

        impl Happened {
            /// That of another run.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

happened! {
    events,
    invocations,
    results,
    errors,
    interrupts,
    progress,
    parts,
    late_parts,
    timeouts,
    disclosed,
    events_lost,
    /// Retained events that came, and events that said who published them.
    retained,
    publishers_disclosed,
    rerouted,
    joins,
    leaves,
    /// Logins that were well, and that were denied; sessions ended by others; registrations that successors took.
    logins,
    denials,
    kills,
    silent_ends,
    takeovers,
    testaments,
    /// Meta events of subscriptions and registrations.
    news,
    /// Sealed messages received, and resources whose node was found out.
    sealed,
    placed,
    kept,
    /// Sessions opened by a cookie.
    cookies,
    /// Calls that databases were given, and answers to them.
    queries,
    query_answers,
    /// Events of databases, those of them to who had resumed, and who had to give up.
    database_events,
    resumed_events,
    resumptions_lost,
}
