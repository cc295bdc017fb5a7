//! Who is let in, by every method, over every way, and who is not.

use std::sync::Arc;

use super::{connect, settings, soon, try_connect, value};
use crate::database::server::{Certificates, Server, Setup};
use crosspoint::database::postgres::wire::{Connection, Error};

const USERS: &str = "
    set password_encryption = 'scram-sha-256';
    create role scram login password 'geheim äß';
    create role plain login password 'geheim';
    create role nobody login;
    set password_encryption = 'md5';
    create role hashed login password 'geheim';
    create role truster login;
    create role certified login;
";

fn methods(setup: Setup) -> Server {
    let server = setup
        .access("host all truster all trust")
        .access("host all scram all scram-sha-256")
        .access("host all hashed all md5")
        .access("host all plain all password")
        .access("local all plain password")
        .access("hostssl all certified all cert")
        .start();
    server.psql(USERS);
    server
}

/// The method that refused, and the whole text.
fn refusal(result: Result<Connection, Error>) -> (&'static str, String) {
    match result {
        Err(error @ Error::Authentication { method, .. }) => (method, error.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_method_lets_in_who_knows_the_password() {
    let server = methods(Setup::default());
    let url = |user: &str| format!("{}?sslmode=disable", server.url(user));
    for (user, name) in
        [("truster", "truster"), ("scram:geheim%20%C3%A4%C3%9F", "scram"), ("hashed:geheim", "hashed")]
    {
        let mut connection = try_connect(&url(user)).unwrap();
        assert_eq!(value(&mut connection, "select current_user"), name);
        assert!(!connection.is_encrypted());
    }
    // The password itself goes where nobody listens, or where that is allowed.
    let open = url("plain:geheim");
    let (method, text) = refusal(try_connect(&open));
    assert_eq!(method, "password");
    assert!(text.contains("cleartext_password=allow"), "{text}");
    try_connect(&format!("{open}&cleartext_password=allow")).unwrap();
    let (directory, port) = (server.directory().display(), server.port());
    let local = format!("host={directory} port={port} user=plain password=geheim dbname=postgres");
    try_connect(&local).unwrap();
}

#[test]
fn nobody_else_is_let_in() {
    let server = methods(Setup::default());
    let url = |user: &str| format!("{}?sslmode=disable&cleartext_password=allow", server.url(user));
    for (user, method) in
        [("scram:falsch", "scram-sha-256"), ("hashed:falsch", "md5"), ("plain:falsch", "password")]
    {
        let (refused_by, text) = refusal(try_connect(&url(user)));
        assert_eq!(refused_by, method);
        assert!(text.contains("the user or the password is wrong") && text.contains("28P01"), "{text}");
        assert!(!text.contains("falsch"), "{text}");
        let (refused_by, text) = refusal(try_connect(&url(user.split(':').next().unwrap())));
        assert_eq!(refused_by, method);
        assert!(text.contains("PGPASSWORD"), "{text}");
    }
    // Nobody's entry.
    let (_, text) = refusal(try_connect(&url("nobody")));
    assert!(text.contains("pg_hba.conf") && text.contains("28000"), "{text}");
    // Let in, but there is no such database.
    let error = try_connect(&url("truster").replace("/postgres?", "/nowhere?")).unwrap_err();
    assert_eq!(error.sqlstate(), Some("3D000"));
    assert!(matches!(&error, Error::Connect(attempts) if attempts.len() == 1), "{error}");
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
}

fn with_tls(certificate: &str, certificates: &Arc<Certificates>) -> Server {
    methods(Setup::default().certificate(certificates, certificate))
}

#[test]
fn certificates_are_looked_at_as_far_as_asked() {
    let certificates = Arc::new(Certificates::new());
    certificates.signed("good", "ca", "DNS:localhost,IP:127.0.0.1", 30);
    certificates.signed("elsewhere", "ca", "DNS:elsewhere.example", 30);
    certificates.signed("expired", "ca", "DNS:localhost,IP:127.0.0.1", -1);
    certificates.signed("stranger", "other", "DNS:localhost,IP:127.0.0.1", 30);
    certificates.self_signed("itself", Some("DNS:localhost,IP:127.0.0.1"), &["rsa:2048"]);
    let ca = certificates.path("ca.crt").display().to_string();
    let itself = certificates.path("itself.crt").display().to_string();

    let server = with_tls("good", &certificates);
    let url = |server: &Server, rest: &str| format!("{}?{rest}", server.url("truster"));
    let by_name = |server: &Server, rest: &str| url(server, rest).replace("127.0.0.1", "localhost");
    for rest in [
        "sslmode=prefer".to_owned(),
        String::new(),
        "sslmode=require".to_owned(),
        format!("sslmode=verify-ca&sslrootcert={ca}"),
        format!("sslmode=verify-full&sslrootcert={ca}"),
    ] {
        for text in [url(&server, &rest), by_name(&server, &rest)] {
            let mut connection = try_connect(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(connection.is_encrypted(), "{text}");
            let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
            assert_eq!(value(&mut connection, sql), "t", "the server agrees that it is");
        }
    }
    assert!(!try_connect(&url(&server, "sslmode=disable")).unwrap().is_encrypted());

    let problem = |text: &str| match try_connect(text) {
        Err(Error::Tls(problem)) => problem,
        other => panic!("{text}: {other:?}"),
    };
    let full = format!("sslmode=verify-full&sslrootcert={ca}");
    let only_signed = format!("sslmode=verify-ca&sslrootcert={ca}");
    // By a name that the certificate has not; the address is another matter.
    let text = url(&server, &full).replace("127.0.0.1", "wrong.example") + "&hostaddr=127.0.0.1";
    assert!(problem(&text).contains("another host"), "{}", problem(&text));
    drop(server);

    for (certificate, expected, signed_only) in [
        ("elsewhere", "another host", true),
        ("expired", "expired", false),
        ("stranger", "not signed by any in sslrootcert", false),
    ] {
        let server = with_tls(certificate, &certificates);
        let found = problem(&url(&server, &full));
        assert!(found.contains(expected), "{certificate}: {found}");
        assert_eq!(try_connect(&url(&server, &only_signed)).is_ok(), signed_only, "{certificate}");
        // Who asks for encryption alone gets it; who also names whom to trust is not given less.
        try_connect(&url(&server, "sslmode=require")).unwrap();
        let named = format!("sslmode=require&sslrootcert={ca}");
        assert_eq!(try_connect(&url(&server, &named)).is_ok(), signed_only, "{certificate}");
    }

    let server = with_tls("itself", &certificates);
    try_connect(&url(&server, &format!("sslmode=verify-full&sslrootcert={itself}"))).unwrap();
    // Trusted, but by another name; the one in its subject is none.
    let text = url(&server, &format!("sslmode=verify-full&sslrootcert={itself}&hostaddr=127.0.0.1"));
    let found = problem(&text.replacen("127.0.0.1", "itself", 1));
    assert!(found.contains("another host") && found.contains("subjectAltName"), "{found}");
    let found = problem(&url(&server, &full));
    assert!(found.contains("signed itself"), "another one is not trusted: {found}");
    let error = try_connect(&url(&server, "sslmode=verify-ca&sslrootcert=/nowhere/ca.crt")).unwrap_err();
    assert!(matches!(error, Error::Settings(_)), "{error}");
    assert!(error.to_string().starts_with("/nowhere/ca.crt: "), "{error}");
}

#[test]
fn a_server_without_tls_is_taken_only_where_that_is_allowed() {
    let server = Server::start();
    assert!(!connect(&server).is_encrypted());
    let error = try_connect(&format!("{}?sslmode=require", server.url("postgres"))).unwrap_err();
    assert!(matches!(&error, Error::Tls(problem) if problem.contains("ssl=on")), "{error}");
}

#[test]
fn clients_show_certificates() {
    let certificates = Arc::new(Certificates::new());
    certificates.signed("good", "ca", "DNS:localhost,IP:127.0.0.1", 30);
    certificates.signed("certified", "ca", "DNS:client", 30);
    certificates.signed("foreign", "other", "DNS:client", 30);
    let server = with_tls("good", &certificates);
    let path = |file: &str| certificates.path(file).display().to_string();
    let url = |client: &str, key: &str| {
        format!("{}?sslmode=require&sslcert={}&sslkey={}", server.url("certified"), path(client), path(key))
    };
    let mut connection = try_connect(&url("certified.crt", "certified.key")).unwrap();
    assert_eq!(value(&mut connection, "select current_user"), "certified");
    let (_, text) = refusal(try_connect(&format!("{}?sslmode=require", server.url("certified"))));
    assert!(text.contains("valid client certificate"), "{text}");
    let error = try_connect(&url("foreign.crt", "foreign.key")).unwrap_err();
    assert!(matches!(&error, Error::Tls(problem) if problem.contains("alert")), "{error:?}");
    for (certificate, key, expected) in [
        ("certified.crt", "certified.crt", "private key"),
        ("certified.crt", "foreign.key", "cannot be used with its key"),
        ("certified.key", "certified.key", "no certificate in it"),
    ] {
        let error = try_connect(&url(certificate, key)).unwrap_err();
        assert!(matches!(&error, Error::Settings(_)) && error.to_string().contains(expected), "{error}");
        assert!(!error.to_string().contains("BEGIN"), "{error}");
    }
}

#[test]
fn passwords_are_bound_to_the_certificate() {
    let certificates = Arc::new(Certificates::new());
    let hosts = "DNS:localhost,IP:127.0.0.1";
    // The hash is that of the signature, which is the authority's.
    certificates.self_signed("rsa", None, &["rsa:2048"]);
    let names = ["ec-sha256", "ec-sha384", "rsa-sha256", "rsa-sha512"];
    for name in names {
        let (authority, hash) = name.split_once('-').unwrap();
        let authority = if authority == "ec" { "ca" } else { authority };
        certificates.signed_with(name, authority, hosts, 30, &["rsa:2048"], &format!("-{hash}"));
    }
    for name in names {
        let server = with_tls(name, &certificates);
        let url = |rest: &str| format!("{}?{rest}", server.url("scram:geheim%20%C3%A4%C3%9F"));
        // The server knows whether the hash is right: it compares it with its own.
        for binding in ["require", "prefer", "disable"] {
            try_connect(&url(&format!("sslmode=require&channel_binding={binding}")))
                .unwrap_or_else(|error| panic!("{name} {binding}: {error}"));
        }
        if name == "ec-sha256" {
            let (_, text) = refusal(try_connect(&url("sslmode=disable&channel_binding=require")));
            assert!(text.contains("not encrypted"), "{text}");
            for user in ["hashed:geheim", "plain:geheim", "truster"] {
                let text = format!("{}?sslmode=require&channel_binding=require", server.url(user));
                let (_, text) = refusal(try_connect(&text));
                assert!(text.contains("channel_binding=require"), "{text}");
            }
            // Over TLS the password itself may be asked for.
            try_connect(&format!("{}?sslmode=require", server.url("plain:geheim"))).unwrap();
        }
    }
}

#[test]
fn prefer_goes_on_without_tls_where_only_that_is_let_in() {
    let certificates = Arc::new(Certificates::new());
    certificates.signed("good", "ca", "IP:127.0.0.1", 30);
    let server = Setup::default()
        .certificate(&certificates, "good")
        .access("hostnossl all postgres all trust")
        .access("hostssl all other all trust")
        .start();
    server.psql("create role other login");
    assert!(!connect(&server).is_encrypted());
    assert!(try_connect(&server.url("other")).unwrap().is_encrypted());
    let (_, text) = refusal(try_connect(&format!("{}?sslmode=require", server.url("postgres"))));
    assert!(text.contains("28000"), "{text}");
}

#[test]
fn debug_shows_no_secret() {
    let server = methods(Setup::default());
    let text = format!("{}?sslmode=disable", server.url("hashed:geheim"));
    let connection = try_connect(&text).unwrap();
    let shown = format!("{:?} {connection:?} {:?}", settings(&text), connection.cancel_handle());
    assert!(!shown.contains("geheim") && shown.contains("***"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    let mut connection = connection;
    connection.ping(soon()).unwrap();
}
