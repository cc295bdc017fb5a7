//! The page of `crosspoint demo` at `/`: it calls procedures of a database, and shows what the database publishes.

use std::sync::LazyLock;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use sha2::{Digest as _, Sha256};

use super::http1::Response;
use super::page::escape;
use crate::config::Listener;

const PAGE: &str = include_str!("demo.html");
const SCRIPT: &str = include_str!("demo.js");

/// It may run its one script, as it stands here, and connect to where it came from.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = BASE64_STANDARD.encode(Sha256::digest(SCRIPT));
    format!(
        "default-src 'none'; script-src 'sha256-{hash}'; style-src 'unsafe-inline'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// The page.
pub(super) fn page(listener: &Listener) -> Response {
    let page = PAGE
        .replace("{version}", env!("CARGO_PKG_VERSION"))
        .replace("{path}", &escape(&listener.path))
        .replace("{script}", SCRIPT);
    Response::page(page, &POLICY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_nothing_that_its_policy_forbids() {
        for forbidden in ["<img", "<link", "<iframe", "src=", "onclick=", "onload=", "http://", "url("] {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
        // One script, which is the one of the hash.
        assert_eq!(
            (PAGE.matches("<script").count(), PAGE.matches("<script>{script}</script>").count()),
            (1, 1)
        );
        for placeholder in ["{version}", "{path}", "{script}"] {
            assert!(PAGE.contains(placeholder), "{placeholder}");
            assert!(!SCRIPT.contains(placeholder), "{placeholder} would change the script");
        }
    }

    #[test]
    fn a_browser_reads_the_script_as_it_is_hashed() {
        // The first two end a script or hide its end, and HTML makes line feeds of carriage returns.
        for forbidden in ["</script", "<!--", "\r", "\0"] {
            assert!(!SCRIPT.to_ascii_lowercase().contains(forbidden), "{forbidden:?}");
        }
        for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!SCRIPT.contains(forbidden), "{forbidden} would make HTML of data");
        }
    }
}
