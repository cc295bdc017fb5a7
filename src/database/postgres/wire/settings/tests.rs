//! What texts and variables mean, and where they are wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn parsed(text: &str) -> Settings {
    Settings::parse(text, &environment(&[("USER", "login")])).unwrap()
}

fn tcp(name: &str, port: u16) -> Host {
    Host::Tcp { name: name.to_owned(), address: None, port }
}

#[test]
fn urls_are_read() {
    let settings = parsed(
        "postgres://us%40er:p%3Aw%2F@one:1111,two,[::1]:3333/shop?target_session_attrs=read-write\
         &application_name=a%20b&connect_timeout=5&options=-c%20geqo%3Doff",
    );
    assert_eq!(settings.hosts, [tcp("one", 1111), tcp("two", 5432), tcp("::1", 3333)]);
    assert_eq!(settings.user, "us@er");
    assert_eq!(settings.password, Some(Password::new("p:w/")));
    assert_eq!(settings.database, "shop");
    assert_eq!(settings.target, TargetSession::ReadWrite);
    assert_eq!(settings.application_name.as_deref(), Some("a b"));
    assert_eq!(settings.connect_timeout, Some(Duration::from_secs(5)));
    assert_eq!(settings.options.as_deref(), Some("-c geqo=off"));

    let settings = parsed("postgresql://%2Frun%2Fpg:5433/db");
    assert_eq!(settings.hosts, [Host::Unix { directory: "/run/pg".into(), port: 5433 }]);
    assert_eq!((settings.user.as_str(), settings.password), ("login", None));
    assert_eq!(parsed("postgres://").hosts, [Host::Unix { directory: SOCKET_DIRECTORY.into(), port: 5432 }]);
    assert_eq!(parsed("postgres://?host=h&port=7").hosts, [tcp("h", 7)]);
    assert_eq!(parsed("postgres:///db?ssl=true").tls.mode, TlsMode::Require);
    assert_eq!(parsed("postgres://u@/db?host=/a,b").hosts.len(), 2);
    assert_eq!(parsed("postgres://u@h").database, "u");
}

#[test]
fn pairs_are_read() {
    let settings = parsed(r"host=a,b port = 1,2 user=u password='it\'s \\ a b' dbname = x\ y");
    assert_eq!(settings.hosts, [tcp("a", 1), tcp("b", 2)]);
    assert_eq!(settings.password, Some(Password::new(r"it's \ a b")));
    assert_eq!(settings.database, "x y");
    let settings =
        parsed("host=name hostaddr=10.0.0.7 keepalives_idle=5 message_bytes_max=65536 keepalives_count=2");
    let address = Some("10.0.0.7".parse().unwrap());
    assert_eq!(settings.hosts, [Host::Tcp { name: "name".to_owned(), address, port: 5432 }]);
    let keepalive = Keepalive { idle: Duration::from_secs(5), count: 2, ..Keepalive::default() };
    assert_eq!(settings.keepalive, Some(keepalive));
    assert_eq!(settings.message_bytes_max, 65536);
    assert_eq!(parsed("keepalives=0 user=u").keepalive, None);
    assert!(parsed("replication=database").replication);
    assert!(!parsed("").cleartext_password);
    assert!(parsed("cleartext_password=allow").cleartext_password);
}

#[test]
fn the_environment_says_what_the_text_leaves_open() {
    let variables = environment(&[
        ("PGHOST", "h1,h2"),
        ("PGPORT", "6000"),
        ("PGUSER", "me"),
        ("PGPASSWORD", "geheim"),
        ("PGDATABASE", "db"),
        ("PGSSLMODE", "require"),
        ("PGAPPNAME", "app"),
        ("PGCONNECT_TIMEOUT", "3"),
        ("PGCHANNELBINDING", "require"),
        ("PGTARGETSESSIONATTRS", "standby"),
        ("PGOPTIONS", "-c a=b"),
        ("USER", "login"),
    ]);
    let settings = Settings::parse("", &variables).unwrap();
    assert_eq!(settings.hosts, [tcp("h1", 6000), tcp("h2", 6000)]);
    assert_eq!((settings.user.as_str(), settings.database.as_str()), ("me", "db"));
    assert_eq!(settings.password, Some(Password::new("geheim")));
    assert_eq!(settings.tls.mode, TlsMode::Require);
    assert_eq!(settings.channel_binding, ChannelBinding::Require);
    assert_eq!(settings.target, TargetSession::Standby);
    let settings = Settings::parse("postgres://you@there/x?sslmode=disable", &variables).unwrap();
    assert_eq!(settings.hosts, [tcp("there", 6000)]);
    assert_eq!((settings.user.as_str(), settings.database.as_str()), ("you", "x"));
    assert_eq!(settings.tls.mode, TlsMode::Disable);
    // The address of another host is not that of this one.
    let variables = environment(&[("PGHOSTADDR", "10.1.1.1"), ("USER", "u")]);
    assert_eq!(Settings::parse("host=there", &variables).unwrap().hosts, [tcp("there", 5432)]);
}

#[test]
fn trust_is_never_less_than_was_asked_for() {
    assert_eq!(parsed("user=u").tls.mode, TlsMode::Prefer);
    assert_eq!(parsed("sslmode=require sslrootcert=r.pem").tls.mode, TlsMode::VerifyCa);
    let system = parsed("sslrootcert=system").tls;
    assert_eq!((system.mode, system.roots), (TlsMode::VerifyFull, Some(Roots::System)));
}

#[test]
fn mistakes_have_a_place() {
    for (text, at, problem, hint) in [
        ("hots=a", Some(1), "there is no setting `hots`", "did you mean `host`?"),
        ("user=u  prot=1", Some(9), "there is no setting `prot`", "did you mean `port`?"),
        ("postgres://ü@h/d?prt=1", Some(18), "there is no setting `prt`", "did you mean `port`?"),
        ("user=u sslcrl=x", Some(8), "sslcrl is not supported", "revoked certificates are not looked up"),
        ("host", Some(1), "`=` is missing", "postgres://"),
        ("password='a b", Some(10), "this quote is not closed", ""),
        ("postgres://u:a%zz@h", Some(15), "two hexadecimal digits", "%25"),
        ("postgres://[::1/x", Some(12), "`]` is missing", ""),
        ("postgres://[::1]x/x", Some(17), "only a port", ""),
        ("postgres://h:99999/x", Some(12), "a port is a number", ""),
        ("host=a port=0", Some(8), "a port is a number", ""),
        ("host=a,b port=1,2,3", Some(10), "3 ports for 2 hosts", "one for all"),
        ("host=a,b hostaddr=1.1.1.1", Some(10), "1 addresses for 2 hosts", ""),
        ("hostaddr=name", Some(1), "no IP address", "names go into host"),
        ("host=@abstract", Some(1), "abstract", ""),
        ("sslmode=allow", Some(1), "sslmode is one of disable, prefer, require, verify-ca, verify-full", ""),
        ("sslmode=verify-full", Some(1), "there is nobody to trust", "sslrootcert=FILE"),
        ("sslmode=require sslrootcert=system", Some(1), "asks for sslmode=verify-full", ""),
        ("sslcert=c", Some(1), "a certificate needs its key", "sslkey"),
        ("sslkey=k", Some(1), "a key needs its certificate", "sslcert"),
        ("connect_timeout=soon", Some(1), "connect_timeout is a number from 0", ""),
        ("message_bytes_max=1", Some(1), "message_bytes_max is a number from 16384", ""),
        ("client_encoding=LATIN1", Some(1), "client_encoding is one of", ""),
        ("gssencmode=require", Some(1), "gssencmode is one of", ""),
        ("replication=true", Some(1), "replication is one of database", ""),
        ("postgres://h?user", Some(14), "`=` is missing", ""),
    ] {
        let error = Settings::parse(text, &environment(&[("USER", "u")])).unwrap_err();
        assert_eq!(error.place, at.map_or(Place::Missing, Place::Text), "{text}: {error}");
        assert!(error.problem.contains(problem), "{text}: {error}");
        assert!(error.to_string().contains(hint), "{text}: {error}");
    }
    let error = Settings::parse("host=h", &BTreeMap::new()).unwrap_err();
    assert_eq!(error.to_string(), "database settings: there is no user (add user=NAME, or set PGUSER)");
    let error = Settings::parse("", &environment(&[("PGSERVICE", "x"), ("USER", "u")])).unwrap_err();
    assert_eq!(error.place, Place::Variable("PGSERVICE"));
}

#[test]
fn secrets_stay_inside() {
    let shown = format!("{:?}", parsed("postgres://u:geheim@h/d"));
    assert!(shown.contains("***") && !shown.contains("geheim"), "{shown}");
    for text in [
        "password=geheim x",
        "password=ge heim=geheim",
        "postgres://u:geheim%zz@h",
        "postgres://u:geheim@h:0/d",
        "password= geheim!geheim!geheim!geheim!geheim!geheim! =x",
        "password='geheim",
    ] {
        let error = Settings::parse(text, &environment(&[("USER", "u")])).unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("geheim,") && !error.to_string().contains("geheim!"),
            "{error}"
        );
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(postgres://)?[ -~äß'\\\\%=&?,:/@\\[\\]]{0,60}") {
        let read = Settings::parse(&text, &environment(&[("USER", "u")]));
        if let Err(SettingsError { place: Place::Text(at), .. }) = read {
            prop_assert!(at >= 1 && at <= text.chars().count() + 1, "{at} of {text:?}");
        }
    }

    #[test]
    fn quoting_loses_nothing(password in "\\PC{1,20}") {
        let pairs = format!("user=u password='{}'", password.replace('\\', "\\\\").replace('\'', "\\'"));
        prop_assert_eq!(parsed(&pairs).password, Some(Password::new(password.clone())));
        let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let url = format!("postgres://u:{encoded}@h/d");
        prop_assert_eq!(parsed(&url).password, Some(Password::new(password)));
    }
}
