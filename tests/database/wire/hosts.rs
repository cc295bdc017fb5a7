//! Where servers are: Unix sockets, several hosts, addresses that swallow everything, and which one is wanted.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::{settings, soon, try_connect, value};
use crate::database::server::{Server, Setup, free_port};
use crosspoint::database::postgres::wire::{Connection, Deadline, Error, Settings};

#[test]
fn unix_sockets_and_variables() {
    let server = Server::start();
    let variables: BTreeMap<String, String> = [
        ("PGHOST", server.directory().display().to_string()),
        ("PGPORT", server.port().to_string()),
        ("PGUSER", "postgres".to_owned()),
        ("PGAPPNAME", "by variable".to_owned()),
        ("PGOPTIONS", "-c geqo=off -c search_path=pg_catalog".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    let mut settings = Settings::parse("", &variables).unwrap();
    settings.parameters.insert("TimeZone".to_owned(), "Asia/Tokyo".to_owned());
    let mut connection = Connection::connect(&settings, soon()).unwrap();
    assert!(connection.address().ends_with(&format!(".s.PGSQL.{}", server.port())));
    assert_eq!(value(&mut connection, "show application_name"), "by variable");
    assert_eq!(value(&mut connection, "show geqo"), "off");
    assert_eq!(value(&mut connection, "show search_path"), "pg_catalog");
    assert_eq!(value(&mut connection, "select inet_server_addr() is null"), "t");
    assert_eq!(connection.parameter("TimeZone"), Some("Asia/Tokyo"));
    connection.simple_query("set timezone = 'UTC'", soon(), |_| {}).unwrap();
    assert_eq!(connection.parameter("TimeZone"), Some("UTC"), "it follows what the server reports");
    assert_eq!(connection.process_id().to_string(), value(&mut connection, "select pg_backend_pid()"));
}

#[test]
fn the_first_host_that_answers_is_taken() {
    let server = Server::start();
    let closed = free_port();
    let (up, directory) = (server.port(), server.directory().display());
    let text = format!("host=127.0.0.1,127.0.0.1 port={closed},{up} user=postgres");
    assert_eq!(try_connect(&text).unwrap().address(), format!("127.0.0.1:{up}"));
    let text = format!("host=/nowhere,{directory} port={up} user=postgres");
    assert!(try_connect(&text).unwrap().address().contains("PGSQL"));
    let error =
        try_connect(&format!("host=127.0.0.1,/nowhere,127.0.0.1 port={closed} user=postgres")).unwrap_err();
    let Error::Connect(attempts) = &error else { panic!("{error:?}") };
    assert_eq!(attempts.len(), 3, "every address that was tried: {error}");
    assert!(error.to_string().contains(&format!("127.0.0.1:{closed}: ")), "{error}");
    assert!(
        error.to_string().contains("refused") && error.to_string().contains("/nowhere/.s.PGSQL"),
        "{error}"
    );
}

#[test]
fn a_host_that_swallows_everything_leaves_time_for_the_next() {
    let server = Server::start();
    // The kernel takes the connection and nobody ever reads it.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let text = format!("host=127.0.0.1,127.0.0.1 port={silent_port},{} user=postgres", server.port());
    for text in [format!("{text} connect_timeout=1"), format!("{text} sslmode=disable connect_timeout=1")] {
        assert_eq!(try_connect(&text).unwrap().address(), format!("127.0.0.1:{}", server.port()));
    }
    // Without a time of its own it has its share of the whole.
    let connection = Connection::connect(&settings(&text), Deadline::after(Duration::from_secs(8))).unwrap();
    assert_eq!(connection.address(), format!("127.0.0.1:{}", server.port()));
    // And if there is nobody else, the deadline holds.
    let alone = settings(&format!("host=127.0.0.1 port={silent_port} user=postgres"));
    let begun = Instant::now();
    let error = Connection::connect(&alone, Deadline::after(Duration::from_millis(300))).unwrap_err();
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let Error::Connect(attempts) = &error else { panic!("{error:?}") };
    assert!(matches!(attempts[0].error, Error::TimedOut { .. }), "{error}");
}

#[test]
fn names_that_do_not_exist_are_told() {
    let error = try_connect("host=nowhere.invalid user=u").unwrap_err();
    let Error::Connect(attempts) = &error else { panic!("{error:?}") };
    assert_eq!((attempts.len(), attempts[0].address.as_ref()), (1, None), "{error}");
    assert!(error.to_string().contains("nowhere.invalid:5432: "), "{error}");
}

#[test]
fn the_wanted_kind_of_server_is_found() {
    let mut primary = Server::start();
    let standby = Setup::default().standby_of(&primary).start();
    let (first, second) = (primary.port(), standby.port());
    let found = |ports: [u16; 2], target: &str| {
        let [one, other] = ports;
        let text = format!(
            "host=127.0.0.1,127.0.0.1 port={one},{other} user=postgres target_session_attrs={target}"
        );
        try_connect(&text).map(|connection| connection.address())
    };
    let at = |port: u16| format!("127.0.0.1:{port}");
    for ports in [[first, second], [second, first]] {
        assert_eq!(found(ports, "any").unwrap(), at(ports[0]));
        for target in ["read-write", "primary"] {
            assert_eq!(found(ports, target).unwrap(), at(first), "{target}");
        }
        for target in ["read-only", "standby", "prefer-standby"] {
            assert_eq!(found(ports, target).unwrap(), at(second), "{target}");
        }
    }
    assert_eq!(found([first, first], "prefer-standby").unwrap(), at(first), "there is no other");
    let error = found([first, first], "standby").unwrap_err();
    assert!(matches!(&error, Error::Connect(attempts) if attempts.len() == 2), "{error}");
    assert!(error.to_string().contains("it is no standby"), "{error}");
    assert!(found([second, second], "read-write").unwrap_err().to_string().contains("it is read-only"));
    // The other one takes over.
    primary.kill();
    assert!(found([first, second], "read-write").is_err());
    standby.psql("select pg_promote()");
    assert_eq!(found([first, second], "read-write").unwrap(), at(second));
}

#[test]
fn read_only_by_default_is_read_only() {
    let server = Setup::default().setting("default_transaction_read_only", "on").start();
    let url = |target: &str| format!("{}?target_session_attrs={target}", server.url("postgres"));
    try_connect(&url("read-only")).unwrap();
    try_connect(&url("primary")).unwrap();
    assert!(try_connect(&url("read-write")).is_err());
}
