//! What a browser gets to see at `/`.

use super::demo;
use super::http1::{Request, Response};
use super::websocket::handshake::offered;
use crate::config::{ListenAddress, Listener, ListenerMode, ListenerPage};

const PAGE: &str = include_str!("page.html");

/// It may show text and style of its own and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The page: by itself it says what this is and how to connect.
pub(super) fn answer(listener: &Listener, request: &Request<'_, '_>) -> Response {
    let endpoint = format!("ws://{}{}", host(listener, request), listener.path);
    if listener.mode == ListenerMode::Echo {
        let text = format!("Crosspoint. Every WebSocket message that is sent to {endpoint} comes back.");
        return Response::text("200 OK", text);
    }
    if listener.page == ListenerPage::Demo {
        return demo::page(listener);
    }
    let subprotocols: Vec<_> = offered(listener).map(|(name, _)| name).collect();
    let page = PAGE
        .replace("{version}", env!("CARGO_PKG_VERSION"))
        .replace("{subprotocols}", &escape(&subprotocols.join(", ")))
        .replace("{endpoint}", &escape(&endpoint));
    Response::page(page, POLICY)
}

/// The host that the client used; what the listener is bound to when it did not say.
fn host(listener: &Listener, request: &Request<'_, '_>) -> String {
    match (request.single("Host"), &listener.address) {
        (Ok(Some(host)), _) if !host.is_empty() => host.to_owned(),
        (_, ListenAddress::Tcp(address, port)) if address.is_ipv6() => format!("[{address}]:{port}"),
        (_, ListenAddress::Tcp(address, port)) => format!("{address}:{port}"),
        (_, ListenAddress::Unix(_)) => "localhost".to_owned(),
    }
}

/// Text as HTML, also within attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_html_would_read() {
        assert_eq!(escape("<a href=\"x\" b='&'>"), "&lt;a href=&quot;x&quot; b=&#39;&amp;&#39;&gt;");
    }

    #[test]
    fn the_page_has_nothing_that_its_policy_forbids() {
        for forbidden in ["<script", "<img", "<link", "src=", "http://", "url("] {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
        for placeholder in ["{version}", "{subprotocols}", "{endpoint}"] {
            assert!(PAGE.contains(placeholder), "{placeholder}");
        }
    }
}
