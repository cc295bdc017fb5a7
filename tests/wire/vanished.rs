//! Peers that vanish without a word, because the network takes nothing to them any more (reliability row 29).
//!
//! For that a network of its own is needed: this program runs itself once more in one whose loopback it may switch off.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::client::{Client, RawSocket, WebSocket};
use super::router::Router;
use crate::harness::not_tested;

/// Says that this process has a network of its own.
const INSIDE: &str = "CROSSPOINT_TEST_OWN_NETWORK";

/// The kernel's patience is thirty seconds (`USER_TIMEOUT_MIN` of `src/shard/listener.rs`).
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn peers_that_vanish_are_closed() {
    let flags = if rustix::process::geteuid().is_root() { "-n" } else { "-rn" };
    let wrapper = ["unshare", flags, "sh", "-ec", "ip link set lo up && exec \"$@\"", "sh"];
    let own_network = |words: &[&str]| {
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).args(words).env(INSIDE, "1");
        command
    };
    let tried = own_network(&["true"]).stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        not_tested("no network of its own can be made here, so no peer can vanish from it");
        return;
    }
    let program = std::env::current_exe().unwrap();
    let output = own_network(&[program.to_str().unwrap()])
        .args(["--exact", "wire::vanished::in_a_network_of_its_own", "--nocapture"])
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
    assert!(said(&output.stdout).contains("1 passed"), "{}", said(&output.stdout));
}

/// What the test above runs; by itself it has nothing to do.
#[test]
fn in_a_network_of_its_own() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let router = Router::start("ping_interval_ms = 1000\nping_timeout_ms = 5000");
    let mut here = Client::join(&router.unix, WebSocket);
    let before = router.counters();
    let web = Client::join(&router.near, WebSocket);
    // One that is sent nothing, and one that is.
    let silent = Client::join(&router.far, RawSocket);
    let mut reader = Client::join(&router.near, RawSocket);
    reader.subscribe("a.topic");
    let status = Command::new("ip").args(["link", "set", "lo", "down"]).status().unwrap();
    assert!(status.success());
    here.publish_acknowledged("a.topic", "1");
    let began = Instant::now();
    loop {
        let closed = router.counters().closed_since(&before);
        let count = |reason: &str| closed.get(reason).copied().unwrap_or(0);
        if (count("ping_timeout"), count("reset")) == (1, 2) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{closed:?}");
        // Who is still there has to say so.
        here.publish_acknowledged("a.topic", "2");
        std::thread::sleep(Duration::from_millis(200));
    }
    here.leave();
    drop((web, silent, reader));
    router.stop();
}
