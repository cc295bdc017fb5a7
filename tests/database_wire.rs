//! The PostgreSQL wire client against real servers, and against one that lies.
//!
//! Every test starts servers of its own (`database/server.rs`) and ends them. No time is measured: deadlines only keep a
//! test from hanging, but where a deadline is what is tested.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::disallowed_methods, reason = "servers live in real time")]

mod database {
    pub(crate) mod server;
    mod wire {
        mod authentication;
        mod bouncer;
        mod cancel;
        mod fake;
        mod hosts;
        mod lifetime;
        mod replication;
        mod requests;
        mod results;

        use std::collections::BTreeMap;
        use std::time::Duration;

        use crosspoint::database::postgres::wire::{Connection, Deadline, Error, Settings};

        use super::server::Server;

        /// For what has to happen, on a busy machine.
        fn soon() -> Deadline {
            Deadline::after(Duration::from_secs(60))
        }

        fn settings(text: &str) -> Settings {
            Settings::parse(text, &BTreeMap::new()).unwrap()
        }

        fn try_connect(text: &str) -> Result<Connection, Error> {
            Connection::connect(&settings(text), soon())
        }

        fn connect(server: &Server) -> Connection {
            try_connect(&server.url("postgres")).unwrap()
        }

        /// The first value of a statement's last row.
        fn value(connection: &mut Connection, sql: &str) -> String {
            connection.simple_value(sql, soon()).unwrap().unwrap()
        }
    }
}
