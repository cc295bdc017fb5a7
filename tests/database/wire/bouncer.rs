//! PgBouncer in between is found out.

use std::time::Duration;

use super::{connect, settings, soon};
use crate::database::server::{Bouncer, Server};
use crosspoint::database::postgres::wire::{Connection, Deadline, Pooling, probe};

#[test]
fn poolers_are_told_from_servers() {
    let server = Server::start();
    let mut direct = connect(&server);
    let url = settings(&server.url("postgres"));
    assert_eq!(probe(&mut direct, &url, soon()).unwrap(), Pooling::None);

    for (mode, pooling) in [("transaction", Pooling::Transaction), ("session", Pooling::Session)] {
        let bouncer = Bouncer::start(&server, mode);
        let url = settings(&bouncer.url("postgres"));
        let mut connection = Connection::connect(&url, soon()).unwrap();
        let found = probe(&mut connection, &url, soon()).unwrap();
        assert_eq!(found, pooling);
        assert_eq!(found.keeps_sessions(), mode == "session");
        // What the refusal is about: in transaction mode a statement that was prepared is lost.
        let statement = connection.prepare("select 'mine'", &[], soon()).unwrap();
        let mut other = Connection::connect(&url, soon()).unwrap();
        other.simple_query("begin", soon(), |_| {}).unwrap();
        let executed = connection.execute(&statement, &[], Deadline::after(Duration::from_secs(30)), |_| {});
        assert_eq!(executed.is_ok(), mode == "session", "{executed:?}");
    }
    let text = Pooling::Transaction.to_string();
    assert!(text.contains("pool_mode=session") && text.contains("LISTEN"), "{text}");
}
