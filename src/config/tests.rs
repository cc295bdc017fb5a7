//! What holds for every text and every configuration.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::database::Shape;

/// One realm with one role, and these `[[realm.user]]`.
pub(crate) fn with_users(users: &str) -> Config {
    let realm = "[[realm]]\nname = \"realm1\"\n[[realm.role]]\nname = \"anonymous\"\n";
    parse("", &format!("{realm}{users}"), &[]).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn nothing_at_all_is_the_default() {
    let config = Config::default();
    assert_eq!(parse("", "", &[]), Ok(config.clone()));
    let [realm] = config.realms.as_slice() else { panic!("{:?}", config.realms) };
    let [role] = realm.roles.as_slice() else { panic!("{:?}", realm.roles) };
    assert_eq!((realm.name.as_str(), role.name.as_str()), ("realm1", "anonymous"));
    let [permission] = role.permissions.as_slice() else { panic!("{:?}", role.permissions) };
    assert!(permission.uri.is_empty() && permission.match_policy == MatchPolicy::Prefix);
    assert!(permission.publish && permission.subscribe && permission.call && permission.register);
    assert!(!permission.disclose_caller && !permission.disclose_publisher);
    assert!(realm.disclose_me && role.trust_level.is_none());
    let [listener] = config.listeners.as_slice() else { panic!("{:?}", config.listeners) };
    assert_eq!(listener.address, ListenAddress::Tcp(IpAddr::from([127, 0, 0, 1]), 8080));
    assert_eq!((listener.path.as_str(), listener.origins.clone()), ("/ws", Origins::SameHost));
    assert_eq!(listener.serializers, Serializer::ALL);
    assert!(listener.websocket && listener.rawsocket && listener.batched);
    assert_eq!(config.node.cores, None);
    assert_eq!(config.limits.message_bytes_max, 1 << 20);
    assert_eq!(config.limits.ping_interval, Duration::from_secs(30));
}

#[test]
fn an_echo_speaks_websocket_unless_told_otherwise() {
    let config = parse("", "[[listener]]\nmode = \"echo\"", &[]).unwrap();
    assert!(config.listeners[0].websocket && !config.listeners[0].rawsocket);
}

#[test]
fn of_very_many_problems_the_first_are_shown() {
    let text: String = (0..103).map(|number| format!("unknown_{number} = 0\n")).collect();
    let errors = parse("file", &text, &[]).unwrap_err();
    assert_eq!((errors.errors.len(), errors.left_out), (100, 3));
    assert!(errors.errors.iter().enumerate().all(|(index, error)| error.line == index + 1));
    assert!(errors.to_string().ends_with("error: the configuration has 103 problems, 3 of them not shown"));
}

#[test]
fn large_files_take_no_longer_than_they_are() {
    let text: String = (0..20_000).map(|number| format!("unknown_{number} = 0\n")).collect();
    assert_eq!(parse("", &text, &[]).unwrap_err().left_out, 19_900);
    let origins: String = (0..20_000).map(|number| format!("\"https://host-{number}\", ")).collect();
    let errors = parse("", &format!("[[listener]]\norigins = [{origins}]"), &[]).unwrap_err().errors;
    assert_eq!(errors[0].problem, "the list has 20000 values; at most 1000");
    let long = "#".repeat(17 << 20);
    assert_eq!(
        parse("", &long, &[]).unwrap_err().errors[0].problem,
        "the file is longer than 16777216 bytes"
    );
}

#[test]
fn errors_are_values_too() {
    let environment = [("CROSSPOINT__NODE__RUNTIME".to_owned(), "x".into())];
    let errors = parse("file", "[[realm]]\n  nam = 1", &environment).unwrap_err().errors;
    let [realm, name, runtime] = errors.as_slice() else { panic!("{errors:?}") };
    assert_eq!((realm.line, realm.column, realm.path.as_str()), (1, 1, "realm[0]"));
    assert_eq!((name.line, name.column, name.path.as_str()), (2, 3, "realm[0].nam"));
    assert_eq!((name.file.as_str(), name.problem.as_str()), ("file", "unknown key"));
    assert_eq!(name.hint.as_deref(), Some("did you mean `name`?"));
    assert_eq!((runtime.line, runtime.variable.as_deref()), (0, Some("CROSSPOINT__NODE__RUNTIME")));
}

#[test]
fn no_text_nests_deep_enough_to_overflow_the_stack() {
    for text in [
        format!("{}a = 1", "a.".repeat(200_000)),
        format!("[{}a]", "a.".repeat(200_000)),
        format!("a = {}", "[".repeat(200_000)),
        format!("a = {}", "{ a = ".repeat(200_000)),
        format!("a = {}{}", "[".repeat(70), "]".repeat(70)),
    ] {
        assert!(parse("", &text, &[]).is_err());
        let name = format!("{PREFIX}{}A", "A__".repeat(100_000));
        assert!(parse("", "", &[(name, text.into())]).is_err());
    }
}

/// Text that has a good chance to get past the parser.
fn toml_like() -> impl Strategy<Value = String> {
    let keys = select(vec![
        "node",
        "limits",
        "realm",
        "listener",
        "role",
        "permission",
        "cores",
        "log",
        "name",
        "uri",
        "match",
        "allow",
        "host",
        "port",
        "unix",
        "origins",
        "message_bytes_max",
        "ping_interval_ms",
        "x",
        "\"\"",
    ]);
    let values = select(vec![
        "1",
        "-1",
        "0",
        "\"\"",
        "\"auto\"",
        "\"1 MiB\"",
        "[]",
        "[0, 1]",
        "[\"json\"]",
        "{}",
        "{ name = \"a\" }",
        "[{}]",
        "[{ uri = \"\" }]",
        "true",
        "1.5",
        "1979-05-27",
        "99999999999999999999",
        "\"::1\"",
        "'''\na'''",
    ]);
    let line = prop_oneof![
        4 => (keys.clone(), values).prop_map(|(key, value)| format!("{key} = {value}")),
        1 => keys.clone().prop_map(|key| format!("[{key}]")),
        1 => keys.clone().prop_map(|key| format!("[[{key}]]")),
        1 => (keys.clone(), keys.clone()).prop_map(|(outer, inner)| format!("[[{outer}.{inner}]]")),
        1 => (keys.clone(), keys).prop_map(|(outer, inner)| format!("[{outer}.{inner}]")),
        1 => any::<String>(),
    ];
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

/// Variables, most of which lead somewhere.
fn variables() -> impl Strategy<Value = Vec<(String, OsString)>> {
    let step = select(vec![
        "NODE", "CORES", "LIMITS", "REALM", "LISTENER", "ROLE", "NAME", "PORT", "0", "1", "", "é", "\u{1b}",
    ]);
    let path = prop::collection::vec(step, 0..5).prop_map(|steps| format!("{PREFIX}{}", steps.join("__")));
    let value = prop_oneof![
        select(vec!["", "0", "0,1", "auto", "[0, 1]", "{ name = 1 }", "[{}]", "true", "\"a\""])
            .prop_map(str::to_owned),
        any::<String>(),
    ];
    prop::collection::vec((path, value.prop_map(OsString::from)), 0..5)
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_\"\\\\é日-]{1,12}"
}

fn permission() -> impl Strategy<Value = Permission> {
    let uri = prop_oneof![
        ("[a-z0-9_]{1,8}(\\.[a-z0-9_]{1,8}){0,4}", Just(MatchPolicy::Exact)),
        ("[a-z0-9_.]{0,16}", select(vec![MatchPolicy::Prefix, MatchPolicy::Wildcard])),
    ];
    (uri, any::<[bool; 6]>()).prop_map(|((uri, match_policy), flags)| {
        let [publish, subscribe, call, register, disclose_caller, disclose_publisher] = flags;
        Permission {
            uri,
            match_policy,
            publish,
            subscribe,
            call,
            register,
            disclose_caller,
            disclose_publisher,
        }
    })
}

/// The first of those that share a key.
fn distinct<T, K: Ord>(items: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut seen = std::collections::BTreeSet::new();
    items.into_iter().filter(|item| seen.insert(key(item))).collect()
}

fn role() -> impl Strategy<Value = Role> {
    let slow = select(vec![SlowPolicy::Close, SlowPolicy::Drop]);
    let authorizer = prop::option::of("[a-v][a-z0-9_]{1,8}(\\.[a-z0-9_]{1,8}){0,4}");
    let authorizer_cache = (0..100_000_u64).prop_map(Duration::from_millis);
    let dynamic = (authorizer, authorizer_cache);
    let permissions = prop::collection::vec(permission(), 0..4);
    let trust_level = prop::option::of(0..=crate::wamp::id::ID_MAX);
    let rest = (slow, trust_level);
    (name(), rest, dynamic, permissions).prop_map(|(name, (slow, trust_level), dynamic, permissions)| Role {
        name,
        slow,
        trust_level,
        authorizer: dynamic.0,
        authorizer_cache: dynamic.1,
        permissions: distinct(permissions, |permission| {
            (permission.uri.clone(), permission.match_policy.as_str())
        }),
    })
}

fn methods() -> impl Strategy<Value = Option<Vec<AuthMethod>>> {
    prop::option::of(subsequence(AuthMethod::ALL.to_vec(), 1..=AuthMethod::ALL.len()))
}

fn history() -> impl Strategy<Value = History> {
    let policy = select(vec![MatchPolicy::Prefix, MatchPolicy::Wildcard]);
    ("[a-z0-9_.]{0,16}", policy, 1..=100_000_usize, 1_usize << 10..1 << 40, 0..=31_536_000_000_u64).prop_map(
        |(uri, match_policy, limit, bytes_max, age_ms)| History {
            uri,
            match_policy,
            limit,
            bytes_max,
            age_max: Duration::from_millis(age_ms),
        },
    )
}

fn realm() -> impl Strategy<Value = Realm> {
    let rule = select(vec![UriRule::Loose, UriRule::Strict]);
    let roles = prop::collection::vec(role(), 1..4);
    let histories = prop::collection::vec(history(), 0..3);
    let home = (prop::option::of(0..2_usize), histories);
    (name(), home, rule, any::<[bool; 3]>(), methods(), roles).prop_map(
        |(name, (home, histories), uri_rule, flags, authmethods, roles)| Realm {
            name,
            home,
            uri_rule,
            strict_request_ids: flags[0],
            // One needs the other.
            authenticator: authmethods.as_ref().map(|_| "com.example.authenticate".to_owned()),
            authmethods,
            authenticator_realm: None,
            users_file: None,
            // tests/config has those.
            token: None,
            users: Vec::new(),
            disclose_me: flags[1],
            meta_api: flags[2],
            histories: distinct(histories, |history| (history.uri.clone(), history.match_policy)),
            roles: distinct(roles, |role| role.name.clone()),
        },
    )
}

fn address() -> impl Strategy<Value = ListenAddress> {
    prop_oneof![
        (any::<[u8; 4]>(), any::<u16>())
            .prop_map(|(host, port)| ListenAddress::Tcp(IpAddr::from(host), port)),
        (any::<u128>(), any::<u16>())
            .prop_map(|(host, port)| { ListenAddress::Tcp(IpAddr::V6(Ipv6Addr::from_bits(host)), port) }),
        "[^\u{0}]{1,20}".prop_map(|path| ListenAddress::Unix(PathBuf::from(path))),
    ]
}

fn listener() -> impl Strategy<Value = Listener> {
    let origins = prop_oneof![
        Just(Origins::SameHost),
        Just(Origins::Any),
        subsequence(vec!["https://a.example", "http://[::1]:1", "*.b.example"], 0..=3)
            .prop_map(|list| Origins::List(list.into_iter().map(str::to_owned).collect())),
    ];
    let spoken = select(vec![
        (ListenerMode::Echo, true, false),
        (ListenerMode::Wamp, true, true),
        (ListenerMode::Wamp, true, false),
        (ListenerMode::Wamp, false, true),
    ]);
    let serializers = subsequence(Serializer::ALL.to_vec(), 1..=3);
    let cores = prop::option::of(subsequence(vec![0, 1], 1..=2));
    let switches = any::<(bool, bool)>();
    ((address(), spoken, "/[a-z/%&=]{0,8}", serializers), (switches, origins, cores, 1..=65_535, methods()))
        .prop_map(
            |(
                (address, (mode, websocket, rawsocket), path, serializers),
                ((batched, compression), origins, cores, backlog, authmethods),
            )| {
                let role = String::new();
                let is_of_demo =
                    mode == ListenerMode::Wamp && websocket && serializers.contains(&Serializer::Json);
                let page = if batched && is_of_demo { ListenerPage::Demo } else { ListenerPage::Welcome };
                let may_have_cookie = mode == ListenerMode::Wamp && websocket && origins == Origins::SameHost;
                let cookie = may_have_cookie.then(|| CookieConfig {
                    name: if batched { "__Host-id" } else { "id" }.to_owned(),
                    max_age: Duration::from_secs(1 + backlog as u64),
                    same_site: if batched { SameSite::None } else { SameSite::Strict },
                    http_only: compression,
                    secure: batched,
                });
                let authmethods =
                    authmethods.filter(|methods| cookie.is_some() || !methods.contains(&AuthMethod::Cookie));
                Listener {
                    address,
                    mode,
                    websocket,
                    rawsocket,
                    path,
                    serializers,
                    page,
                    batched,
                    compression: compression && websocket,
                    origins,
                    role,
                    authmethods,
                    cores,
                    backlog,
                    cookie,
                }
            },
        )
}

fn node() -> impl Strategy<Value = Node> {
    let cores = prop::option::of(prop::collection::btree_set(0..1_024_usize, 2..5));
    let runtime = select(vec![Runtime::Auto, Runtime::Glommio, Runtime::Thread]);
    let level =
        select(vec![LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace]);
    let format = select(vec![LogFormat::Auto, LogFormat::Text, LogFormat::Json]);
    (cores, runtime, 0..600_000_u64, level, format).prop_map(|(cores, runtime, timeout, level, format)| {
        Node {
            cores: cores.map(|cores| cores.into_iter().collect()),
            runtime,
            shutdown_timeout: Duration::from_millis(timeout),
            log: Log { level, format },
        }
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    let off_or_on = prop_oneof![Just(0), 100..86_400_000_u64];
    (prop::option::of(1..1_000_000_usize), 1024..1_048_577_usize, 256..65_537_usize, off_or_on, 1..80_u8)
        .prop_map(|(connections_max, message, kib, ping, high)| Limits {
            connections_max,
            hello_bytes_max: message,
            message_bytes_max: message,
            uri_bytes_max: 64,
            uri_bytes_per_session_max: kib * 1024,
            ping_interval: Duration::from_millis(ping),
            memory_high_percent: high,
            ..Limits::default()
        })
}

/// One that says everything, and one that says little.
fn databases_of(realm: &str, role: &str) -> Vec<Database> {
    let little = Database {
        name: "a".to_owned(),
        kind: DatabaseKind::Sqlite,
        realm: realm.to_owned(),
        url: DatabaseUrl::default(),
        connections: 8,
        exposed: Vec::new(),
        roles: Vec::new(),
        client_path: None,
        connection_class: None,
        wamp_schema: None,
        json_columns: Vec::new(),
        path: Some("a.db".into()),
        readers: 4,
        queue_max: 1_024,
        queue_bytes_max: 64 << 20,
        result_bytes_max: 1 << 20,
        refresh: Duration::from_secs(2),
        timeout: Duration::from_secs(60),
        replay_timeout: Duration::from_secs(5),
        large_as_text: true,
        exact_as_float: false,
        publish: false,
        feedback: false,
        inside: None,
        subscriptions: Vec::new(),
        procedures: Vec::new(),
        watches: Vec::new(),
    };
    let procedure = DatabaseProcedure {
        uri: "com.p".to_owned(),
        sql: "select 1;\nselect \"two\"".to_owned(),
        shape: Shape::Value,
        timeout: Some(Duration::from_millis(5)),
        concurrency: 3,
    };
    let subscription = DatabaseSubscription {
        topic: "t".to_owned(),
        match_policy: MatchPolicy::Prefix,
        function: None,
        sql: Some("insert into t values (:topic);\nselect 2".to_owned()),
        attempts: Some(3),
        timeout: Some(Duration::from_millis(7)),
    };
    let much = Database {
        name: "b".to_owned(),
        inside: Some(DatabaseInside {
            role: role.to_owned(),
            own_events: true,
            connections: 1,
            attempts: 2,
            depth_max: 3,
            timeout: Duration::from_secs(4),
            queue_max: 5,
            queue_bytes_max: 6 << 20,
            calls_max: 7,
            call_timeout: Duration::from_secs(8),
        }),
        subscriptions: vec![subscription],
        readers: 1,
        timeout: Duration::ZERO,
        publish: true,
        procedures: vec![procedure],
        watches: vec![DatabaseWatch { table: "t".to_owned(), topic: "com.t".to_owned() }],
        ..little.clone()
    };
    vec![little, much]
}

fn config() -> impl Strategy<Value = Config> {
    let realms = prop::collection::vec(realm(), 1..3);
    (node(), limits(), realms, prop::collection::vec(listener(), 1..4)).prop_map(
        |(node, limits, realms, listeners)| {
            let mut realms = distinct(realms, |realm| realm.name.clone());
            let mut listeners = distinct(listeners, |listener| format!("{:?}", listener.address));
            let is_given = listeners.iter().any(|listener| listener.cookie.is_some());
            for methods in realms.iter_mut().filter_map(|realm| realm.authmethods.as_mut()) {
                if !is_given && methods.contains(&AuthMethod::Cookie) {
                    *methods = vec![AuthMethod::Ticket];
                }
            }
            for listener in &mut listeners {
                listener.role.clone_from(&realms[realms.len() - 1].roles[0].name);
            }
            let databases = databases_of(&realms[0].name, &realms[0].roles[0].name);
            Config { node, limits, realms, listeners, databases }
        },
    )
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(text: String, bytes: Vec<u8>, variables in variables()) {
        for text in [text, String::from_utf8_lossy(&bytes).into_owned()] {
            let shown = parse("", &text, &variables).map_err(|errors| errors.to_string());
            // A terminal gets no control sequence out of a file or a variable.
            prop_assert!(!shown.err().unwrap_or_default().contains(|c: char| c.is_control() && c != '\n'));
        }
    }

    #[test]
    fn whatever_is_read_is_printed_and_read_again(text in toml_like(), variables in variables()) {
        match parse("file", &text, &variables) {
            Ok(config) => prop_assert_eq!(parse("", &config.to_toml(), &[]), Ok(config)),
            Err(errors) => {
                prop_assert!(!errors.errors.is_empty());
                prop_assert!(!errors.to_string().is_empty());
                for error in errors.errors {
                    prop_assert!(error.line <= text.matches('\n').count() + 1);
                    prop_assert_eq!(error.line == 0, error.column == 0);
                }
            }
        }
    }

    #[test]
    fn whatever_is_printed_is_read_as_the_same(config in config()) {
        let printed = config.to_toml();
        match parse("printed", &printed, &[]) {
            Ok(read) => prop_assert_eq!(read, config),
            Err(errors) => prop_assert!(false, "{errors}\n{printed}"),
        }
    }

    #[test]
    fn a_variable_does_what_the_file_does(port: u16, ping in 100..1_000_000_u64, cores in subsequence(vec![0, 1, 5], 1..=3)) {
        let list = cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let text = format!("[node]\ncores = [{list}]\n[limits]\nping_interval_ms = {ping}\n[[listener]]\nport = {port}");
        let environment = [("LISTENER__0__PORT", port.to_string()), ("LIMITS__PING_INTERVAL_MS", ping.to_string()), ("NODE__CORES", list)];
        let environment = environment.map(|(name, value)| (format!("{PREFIX}{name}"), value.into()));
        let from_file = parse("", &text, &[]);
        prop_assert!(from_file.is_ok());
        prop_assert_eq!(parse("", "", &environment), from_file);
    }
}
