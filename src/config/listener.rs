//! `[[listener]]`: where clients come in.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use super::kinds::{
    Boolean, Fault, Integer, Kind, List, NAME, Optional, Or, Text, Words, Wrong, did_you_mean, put, single,
};
use super::node::CORES;
use super::realm::{ANONYMOUS, EXAMPLE};
use super::section::{Fields, Keys, Reader, Section, list_of, section};
use super::tree::{Node, Path, Table, Value};
use super::{
    AuthMethod, ListenAddress, Listener, ListenerMode, ListenerPage, Origins, Realm, authentication,
};
use crate::wamp::codec::Serializer;

/// How many listeners there may be.
pub(super) const LISTENERS_MAX: usize = 256;

/// How many roles a message names.
const ROLES_SHOWN_MAX: usize = 5;

/// Where the listener listens that there is without any configuration.
const DEFAULT_HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const DEFAULT_PORT: u16 = 8080;

const MODES: &[(&str, ListenerMode)] = &[("wamp", ListenerMode::Wamp), ("echo", ListenerMode::Echo)];

const PAGES: &[(&str, ListenerPage)] = &[("welcome", ListenerPage::Welcome), ("demo", ListenerPage::Demo)];

const SERIALIZERS: List<Words<Serializer>> = List {
    name: "serializers",
    of: Words(&[("json", Serializer::Json), ("msgpack", Serializer::MsgPack), ("cbor", Serializer::Cbor)]),
    count: 1..=Serializer::ALL.len(),
};

const HOST: Text<IpAddr> = Text { expects: "an IP address", parse: parse_host, print: IpAddr::to_string };

const PORT: Integer<u16> = Integer(0..=u16::MAX);

const SOCKET_PATH: Text<PathBuf> = Text {
    expects: "the path of a socket",
    parse: parse_socket_path,
    print: |path| path.to_string_lossy().into_owned(),
};

const URL_PATH: Text<String> =
    Text { expects: "a path such as \"/ws\"", parse: parse_url_path, print: String::clone };

section! {
    Listener {
        mode: Words(MODES), ListenerMode::Wamp;
        websocket: Boolean, true;
        rawsocket: Boolean, true;
        path: URL_PATH, "/ws".to_owned();
        serializers: SERIALIZERS, Serializer::ALL.to_vec();
        batched: Boolean, true;
        compression: Boolean, false;
        page: Words(PAGES), ListenerPage::Welcome;
        origins: OriginsKind, Origins::SameHost;
        role: NAME, ANONYMOUS.to_owned();
        authmethods: authentication::methods("all"), None;
        cores: Or("all", CORES), None;
        backlog: Integer(1..=65_535), 4_096;
        cookie: Optional(single()), None;
        ..address;
    }
}

impl Section for Listener {
    fn check(&mut self, fields: &mut Fields<'_, '_>) {
        if self.mode == ListenerMode::Echo {
            self.rawsocket &= fields.has("rawsocket");
            if self.rawsocket && fields.is_sound("rawsocket") {
                fields.problem("rawsocket", "mode \"echo\" speaks WebSocket only", "leave the key out");
            }
        }
        if !self.websocket && !self.rawsocket && fields.is_sound("websocket") {
            let hint = "leave out one of `websocket` and `rawsocket`";
            fields.problem("websocket", "the listener speaks nothing", hint);
        }
        if self.compression && !self.websocket && fields.is_sound("compression") {
            fields.problem(
                "compression",
                "only WebSocket has it, and `websocket` is off",
                "leave the key out",
            );
        }
        self.check_page(fields);
        self.check_cookie(fields);
    }
}

impl Listener {
    /// The page of the demo is for clients of WAMP in JSON over WebSocket, of which it is one.
    fn check_page(&self, fields: &mut Fields<'_, '_>) {
        if self.page != ListenerPage::Demo || !fields.is_sound("page") {
            return;
        }
        let missing = if self.mode == ListenerMode::Echo {
            "`mode` is \"echo\""
        } else if !self.websocket {
            "`websocket` is off"
        } else if !self.serializers.contains(&Serializer::Json) {
            "\"json\" is not among the `serializers`"
        } else {
            return;
        };
        let problem = format!("the page of the demo speaks WAMP in JSON over WebSocket, and {missing}");
        fields.problem("page", problem, "leave the key out");
    }

    /// A browser sends a cookie whatever page it shows: so which pages may connect must be known.
    fn check_cookie(&self, fields: &mut Fields<'_, '_>) {
        let names_cookies =
            self.authmethods.as_ref().is_some_and(|methods| methods.contains(&AuthMethod::Cookie));
        if names_cookies && !fields.has("cookie") && fields.is_sound("authmethods") {
            let hint = "add a table [listener.cookie]: it may be empty";
            fields.problem("authmethods", "nobody gets a cookie at this listener", hint);
        }
        if self.cookie.is_none() || !fields.is_sound("cookie") {
            return;
        }
        if self.mode == ListenerMode::Echo {
            fields.problem("cookie", "nobody logs in at an echo", "leave the table out");
        } else if !self.websocket && fields.is_sound("websocket") {
            fields.problem("cookie", "only WebSocket has it, and `websocket` is off", "leave the table out");
        }
        let lets_any_in = match &self.origins {
            Origins::SameHost => false,
            Origins::Any => true,
            Origins::List(list) => list.iter().any(|origin| origin == NO_ORIGIN),
        };
        if lets_any_in && fields.is_sound("origins") {
            let problem = "with a `cookie` a page of any origin could log in as who looks at it";
            fields.problem("origins", problem, "list the origins of your own pages");
        }
    }
}

impl Keys for ListenAddress {
    fn read(fields: &mut Fields<'_, '_>) -> Self {
        let host = fields.read("host", &HOST, DEFAULT_HOST);
        let port = fields.read("port", &PORT, DEFAULT_PORT);
        let Some(path) = fields.read("unix", &Optional(SOCKET_PATH), None) else {
            return Self::Tcp(host, port);
        };
        for key in ["host", "port"] {
            if fields.has(key) {
                let hint = "a socket needs no host and no port: write a second [[listener]] to have both";
                fields.problem(key, "`unix` is given too", hint);
            }
        }
        Self::Unix(path)
    }

    fn write(&self, table: &mut Table) {
        match self {
            Self::Tcp(host, port) => {
                put(table, "host", &HOST, host);
                put(table, "port", &PORT, port);
            }
            Self::Unix(path) => put(table, "unix", &SOCKET_PATH, path),
        }
    }
}

const SAME_HOST_OR_LIST: Or<List<Text<String>>> = Or(
    "same-host",
    List {
        name: "origins",
        of: Text { expects: "`scheme://host`", parse: parse_origin, print: String::clone },
        count: 0..=1_000,
    },
);

/// "same-host", or a list.
struct OriginsKind;

impl Kind for OriginsKind {
    type Value = Origins;

    fn read(&self, reader: &mut Reader<'_>, path: &Path, node: &Node) -> Result<Origins, Fault> {
        let Some(list) = SAME_HOST_OR_LIST.read(reader, path, node)? else { return Ok(Origins::SameHost) };
        if list == ["*"] {
            return Ok(Origins::Any);
        }
        let Some(index) = list.iter().position(|origin| origin == "*") else {
            return Ok(Origins::List(list));
        };
        let hint = "write `[\"*\"]`, or leave it out";
        reader.problem(&path.index(index), "\"*\" already allows every origin", Some(hint.to_owned()));
        Err(Fault::Noted)
    }

    fn write(&self, value: &Origins) -> Option<Value> {
        SAME_HOST_OR_LIST.write(&match value {
            Origins::SameHost => None,
            Origins::Any => Some(vec!["*".to_owned()]),
            Origins::List(list) => Some(list.clone()),
        })
    }

    fn expects(&self) -> String {
        SAME_HOST_OR_LIST.expects()
    }
}

/// What depends on the rest of the configuration.
pub(super) fn check_all(listeners: &[Listener], fields: &mut Fields<'_, '_>) {
    let path = fields.path.key("listener");
    let places = listeners.iter().map(|listener| match &listener.address {
        // Port 0 is another one each time.
        ListenAddress::Tcp(_, 0) => None,
        ListenAddress::Tcp(host, port) => {
            let address = std::net::SocketAddr::new(*host, *port).to_string();
            Some((address.clone(), format!("a listener on {address}")))
        }
        ListenAddress::Unix(_) => None,
    });
    fields.reader.refuse_duplicates(&path, &["port", "host", "unix"], places);
    let sockets = listeners.iter().map(|listener| match &listener.address {
        ListenAddress::Tcp(..) => None,
        ListenAddress::Unix(socket) => Some((socket, format!("a listener on {}", socket.display()))),
    });
    fields.reader.refuse_duplicates(&path, &["unix"], sockets);
}

/// Whether somebody on another machine can reach it.
fn is_exposed(listener: &Listener) -> bool {
    match &listener.address {
        ListenAddress::Tcp(host, _) => !host.to_canonical().is_loopback(),
        ListenAddress::Unix(_) => false,
    }
}

/// The role that anonymous sessions get must be one that a realm has.
pub(super) fn check_role(listener: &Listener, realms: &[Realm], reader: &mut Reader<'_>, path: &Path) {
    let path = path.key("role");
    let lets_in = |methods: &Option<Vec<AuthMethod>>| {
        methods.as_ref().is_none_or(|methods| methods.contains(&AuthMethod::Anonymous))
    };
    // An echo has no sessions, and where everybody has to log in nobody gets this role.
    let is_of_use = lets_in(&listener.authmethods) && realms.iter().any(|realm| lets_in(&realm.authmethods));
    if listener.mode == ListenerMode::Echo || !is_of_use || !reader.is_sound(&path) {
        return;
    }
    let roles: BTreeSet<&str> =
        realms.iter().flat_map(|realm| &realm.roles).map(|role| role.name.as_str()).collect();
    if roles.contains(listener.role.as_str()) {
        return;
    }
    let hint = did_you_mean(&listener.role, roles.iter().copied()).unwrap_or_else(|| {
        let few: Vec<&str> = roles.into_iter().take(ROLES_SHOWN_MAX).collect();
        format!("set `role` of the listener to one that there is, such as {}", list_of(&few, "or"))
    });
    reader.problem(&path, format!("no realm has the role `{}`", listener.role), Some(hint));
}

/// Others may come in only where somebody wrote down what they may do.
pub(super) fn check_exposure(listener: &Listener, reader: &mut Reader<'_>, path: &Path) {
    let path = path.key("host");
    if listener.mode == ListenerMode::Echo || !is_exposed(listener) || !reader.is_sound(&path) {
        return;
    }
    let problem = "others can reach this address, and the default realm allows everybody everything";
    let hint = format!("write down who may do what, as in\n\n[[realm]]\nname = \"realm1\"\n\n{EXAMPLE}");
    reader.problem(&path, problem, Some(hint));
}

fn parse_host(text: &str) -> Result<IpAddr, Wrong> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match (text.parse(), bare.parse::<IpAddr>()) {
        (Ok(address), _) => Ok(address),
        (Err(_), Ok(address)) => {
            Err(("expected an IP address without brackets".to_owned(), Some(format!("write \"{address}\""))))
        }
        (Err(_), Err(_)) => {
            let hint = match text {
                "localhost" => "write \"127.0.0.1\" or \"::1\"",
                "" | "*" => "write \"0.0.0.0\" for every address of this machine, \"::\" with IPv6",
                _ => {
                    "names are not looked up: write an address of this machine, or \"0.0.0.0\" for all of them"
                }
            };
            Err(("expected an IP address".to_owned(), Some(hint.to_owned())))
        }
    }
}

fn parse_socket_path(text: &str) -> Result<PathBuf, Wrong> {
    /// `sun_path` of unix(7) holds 108 bytes with the zero at the end.
    const PATH_BYTES_MAX: usize = 107;
    if text.is_empty() {
        return Err(("the path is empty".to_owned(), None));
    }
    if text.len() > PATH_BYTES_MAX {
        return Err((format!("a socket's path has at most {PATH_BYTES_MAX} bytes"), None));
    }
    if text.contains('\0') {
        return Err(("the path has a zero byte".to_owned(), None));
    }
    Ok(PathBuf::from(text))
}

fn parse_url_path(text: &str) -> Result<String, Wrong> {
    const PATH_BYTES_MAX: usize = 1_024;
    if !text.starts_with('/') {
        let hint = format!("write \"/{}\"", text.escape_debug());
        return Err(("the path does not begin with `/`".to_owned(), Some(hint)));
    }
    if text.len() > PATH_BYTES_MAX {
        return Err((format!("the path is longer than {PATH_BYTES_MAX} bytes"), None));
    }
    // It is compared with what stands in a request line, where these cannot be (RFC 9112, section 3.2).
    if let Some(wrong) =
        text.chars().find(|character| !character.is_ascii_graphic() || "?#".contains(*character))
    {
        return Err((format!("the path has the character {wrong:?}"), None));
    }
    Ok(text.to_owned())
}

/// What browsers send for pages that have no origin: those opened as files, and sandboxed frames.
const NO_ORIGIN: &str = "null";

/// An origin as browsers write it (RFC 6454, section 6.2), `null` included, a pattern for the hosts below one, or a star.
fn parse_origin(text: &str) -> Result<String, Wrong> {
    let wrong =
        |hint: String| Err(("expected an origin such as \"https://example.com\"".to_owned(), Some(hint)));
    if text == "*" || text == NO_ORIGIN {
        return Ok(text.to_owned());
    }
    if let Some(host) = text.strip_prefix("*.") {
        if is_host(host) {
            return Ok(text.to_owned());
        }
        return wrong("the hosts below one are written \"*.example.com\"".to_owned());
    }
    let Some((scheme, authority)) = text.split_once("://") else {
        if is_authority(text) {
            return wrong(format!("did you mean \"https://{text}\"?"));
        }
        return wrong("write the scheme, `://`, the host, and the port if it is unusual".to_owned());
    };
    let scheme_is_sound = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.')
        });
    if scheme_is_sound && is_authority(authority) {
        return Ok(text.to_owned());
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return wrong("browsers send origins in lower case".to_owned());
    }
    if authority.split_once('/').is_some_and(|(authority, _)| is_authority(authority)) {
        return wrong("an origin ends with the host or the port: leave out `/` and what follows".to_owned());
    }
    wrong("write the scheme, `://`, the host, and the port if it is unusual".to_owned())
}

/// `host[:port]`
fn is_authority(text: &str) -> bool {
    let is_port = |port: &str| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let port_is_sound = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return address.parse::<std::net::Ipv6Addr>().is_ok() && port_is_sound;
    }
    match text.split_once(':') {
        None => is_host(text),
        Some((host, port)) => is_host(host) && is_port(port),
    }
}

/// A name as browsers write it: in lower case, international ones in punycode.
fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        for good in [
            "*",
            "null",
            "*.example.com",
            "http://localhost",
            "http://localhost:3000",
            "https://a-b.example.com:8443",
            "http://[::1]:8080",
            "http://127.0.0.1",
            "chrome-extension://abcdefghijklmnop",
        ] {
            assert_eq!(parse_origin(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "Null",
            "null:1",
            "*.",
            "*.*.com",
            "https://",
            "https://a b",
            "https://a:0",
            "https://a:+1",
            "https://a:65536",
            "https://*.a",
            "https://a/",
            "HTTPS://a",
            "://a",
            "http://[::1",
            "http://[x]",
            "http://[::1]8080",
            "http://user@host",
        ] {
            assert!(parse_origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts() {
        assert_eq!(parse_host("::1"), Ok("::1".parse().unwrap()));
        assert!(parse_host("[::1]").unwrap_err().1.unwrap().contains("\"::1\""));
        for name in ["localhost", "", "*", "example.com", "127.0.0.1:80", "[", "[]"] {
            assert!(parse_host(name).unwrap_err().1.is_some(), "{name}");
        }
    }

    #[test]
    fn what_others_can_reach() {
        let exposed = |host: &str| {
            let address = ListenAddress::Tcp(host.parse().unwrap(), 80);
            is_exposed(&Listener { address, ..Listener::defaults() })
        };
        for open in ["0.0.0.0", "::", "192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"] {
            assert!(exposed(open), "{open}");
        }
        for loopback in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
            assert!(!exposed(loopback), "{loopback}");
        }
    }
}
