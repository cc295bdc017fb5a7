//! Which web pages may open a WebSocket. A page runs in the browser of somebody else, who may reach a router
//! that the page's author cannot; the Origin header (RFC 6454, RFC 6455 section 10.2) says where it came from.

use crate::config::Origins;

/// The hosts of the machine itself, as they stand in an origin.
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Whether a handshake with this Origin and Host may go on. No origin, no page: it is not a browser.
///
/// Under [`Origins::SameHost`] a name that is the same in both counts, but not on a listener of loopback: there it
/// would be a page whose name was made to point at this machine after it was loaded (DNS rebinding). An address
/// cannot be made to point elsewhere.
pub(super) fn is_allowed(
    origins: &Origins,
    is_loopback: bool,
    origin: Option<&str>,
    host: Option<&str>,
) -> bool {
    let Some(origin) = origin else { return true };
    match origins {
        Origins::Any => true,
        Origins::SameHost => {
            let Some(origin) = Origin::parse(origin) else { return false };
            let same = host.is_some_and(|host| origin.host.eq_ignore_ascii_case(split_port(host).0));
            origin.is_local() || (same && (!is_loopback || origin.is_address()))
        }
        Origins::List(list) => list.iter().any(|entry| matches_entry(entry, origin)),
    }
}

fn matches_entry(entry: &str, origin: &str) -> bool {
    // "null" is what sandboxed pages and files send: it has no parts, and is allowed only by its name.
    if entry.eq_ignore_ascii_case(origin) {
        return true;
    }
    let Some(origin) = Origin::parse(origin) else { return false };
    if let Some(parent) = entry.strip_prefix("*.") {
        return is_below(origin.host, parent);
    }
    Origin::parse(entry).is_some_and(|entry| {
        entry.scheme.eq_ignore_ascii_case(origin.scheme)
            && entry.host.eq_ignore_ascii_case(origin.host)
            && entry.port_or_default() == origin.port_or_default()
    })
}

/// Whether `host` is a name below `parent`, at least one label longer.
fn is_below(host: &str, parent: &str) -> bool {
    let (host, parent) = (host.as_bytes(), parent.as_bytes());
    let Some(rest) = host.len().checked_sub(parent.len()) else { return false };
    rest > 1 && host[rest - 1] == b'.' && host[rest..].eq_ignore_ascii_case(parent)
}

struct Origin<'o> {
    scheme: &'o str,
    host: &'o str,
    port: Option<&'o str>,
}

impl<'o> Origin<'o> {
    /// `scheme://host[:port]` and nothing more.
    fn parse(text: &'o str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let (host, port) = split_port(authority);
        let is_host = !host.is_empty() && !host.contains(['/', '@', '?', '#', '\\', ' ', ',']);
        let is_port = port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        (is_host && is_port).then_some(Self { scheme, host, port })
    }

    fn is_local(&self) -> bool {
        LOCAL_HOSTS.iter().any(|local| self.host.eq_ignore_ascii_case(local))
    }

    fn is_address(&self) -> bool {
        let address = self.host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        address.unwrap_or(self.host).parse::<std::net::IpAddr>().is_ok()
    }

    /// Browsers leave out the port that the scheme implies; people may write it.
    fn port_or_default(&self) -> Option<&str> {
        match self.port {
            Some(port) if !port.is_empty() => Some(port),
            _ if self.scheme.eq_ignore_ascii_case("http") => Some("80"),
            _ if self.scheme.eq_ignore_ascii_case("https") => Some("443"),
            _ => None,
        }
    }
}

/// Host and port of `host[:port]`, where a host may be an IPv6 address in brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    if authority.ends_with(']') {
        return (authority, None);
    }
    match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same_host(origin: &str, host: &str) -> bool {
        is_allowed(&Origins::SameHost, false, Some(origin), Some(host))
    }

    fn listed(entry: &str, origin: &str) -> bool {
        is_allowed(&Origins::List(vec![entry.to_owned()]), true, Some(origin), Some("router.example"))
    }

    #[test]
    fn no_origin_is_allowed_everywhere() {
        for origins in [Origins::SameHost, Origins::Any, Origins::List(Vec::new())] {
            assert!(is_allowed(&origins, true, None, Some("a.example")));
        }
    }

    #[test]
    fn same_host_whatever_the_port() {
        assert!(same_host("https://a.example", "a.example:8080"));
        assert!(same_host("http://A.example:3000", "a.EXAMPLE"));
        assert!(same_host("http://[2001:db8::1]:80", "[2001:db8::1]:8080"));
        assert!(same_host("http://[2001:db8::1]", "[2001:db8::1]"));
        assert!(!same_host("https://b.example", "a.example"));
        assert!(!same_host("https://a.example.evil.example", "a.example"));
        assert!(!same_host("https://evila.example", "a.example"));
        assert!(!same_host("null", "a.example"));
        assert!(!same_host("", ""));
        assert!(!same_host("http://", ""));
        assert!(!same_host("http://a.example@evil.example", "a.example"));
        assert!(!same_host("http://evil.example/a.example", "a.example"));
        assert!(!same_host("a.example", "a.example"));
        assert!(!is_allowed(&Origins::SameHost, false, Some("http://a.example"), None));
    }

    #[test]
    fn the_machine_itself_is_allowed() {
        for origin in ["http://localhost:3000", "http://127.0.0.1", "https://[::1]:8443", "http://LOCALHOST"]
        {
            assert!(same_host(origin, "router.example"), "{origin}");
        }
        for origin in
            ["http://localhost.evil.example", "http://127.0.0.1.evil.example", "http://notlocalhost"]
        {
            assert!(!same_host(origin, "router.example"), "{origin}");
        }
    }

    #[test]
    fn a_list_replaces_the_rule() {
        assert!(listed("https://a.example", "https://a.example"));
        assert!(listed("https://a.example:443", "https://a.example"));
        assert!(listed("http://a.example", "http://a.example:80"));
        assert!(listed("https://A.example", "https://a.Example"));
        assert!(!listed("https://a.example", "http://a.example"));
        assert!(!listed("https://a.example", "https://a.example:8443"));
        assert!(!listed("https://a.example", "https://router.example"));
        assert!(!listed("https://a.example", "http://localhost"));
        assert!(listed("null", "null"));
        assert!(!listed("https://a.example", "null"));
    }

    #[test]
    fn a_list_may_name_the_hosts_below_one() {
        assert!(listed("*.a.example", "https://x.a.example"));
        assert!(listed("*.a.example", "http://y.x.A.example:8080"));
        assert!(!listed("*.a.example", "https://a.example"));
        assert!(!listed("*.a.example", "https://.a.example"));
        assert!(!listed("*.a.example", "https://xa.example"));
        assert!(!listed("*.a.example", "https://x.a.example.evil.example"));
    }

    #[test]
    fn any_is_any() {
        for origin in ["null", "https://evil.example", "nonsense"] {
            assert!(is_allowed(&Origins::Any, true, Some(origin), None));
        }
    }

    #[test]
    fn a_name_that_was_made_to_point_at_loopback_is_not_the_same_host() {
        let on_loopback = |origin, host| is_allowed(&Origins::SameHost, true, Some(origin), Some(host));
        assert!(!on_loopback("http://evil.example", "evil.example:8080"));
        assert!(on_loopback("http://localhost:3000", "localhost:8080"));
        assert!(on_loopback("http://127.0.0.2", "127.0.0.2:8080"));
        assert!(on_loopback("http://[::1]:3000", "[::1]:8080"));
    }
}
