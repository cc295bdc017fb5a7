//! Stopping: everybody is told, nobody can prevent it.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{
    Client, Folder, PATIENCE, Received, Router, Start, WebSocketClient, free_port, wait_until,
};

const THREADS: usize = 4;

/// Patience with what ends at once, less than any other reason to end could take.
const AT_ONCE: Duration = Duration::from_secs(40);

fn is_goodbye(received: &Received) -> bool {
    matches!(received, Received::Message(text)
        if text.starts_with("[6,") && text.contains("wamp.close.system_shutdown"))
}

#[test]
fn two_thousand_clients_are_told() {
    let router = Start::new("[node]\nshutdown_timeout_ms = 600000\n").router();
    let address = router.address();
    let (joined, all_joined) = std::sync::mpsc::channel();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let joined = joined.clone();
            std::thread::spawn(move || {
                let raw: Vec<_> = (0..250).map(|_| Client::join(address, "realm1")).collect();
                let web: Vec<_> = (0..250).map(|_| WebSocketClient::join(address, "realm1")).collect();
                joined.send(()).unwrap();
                let mut told = 0;
                for mut client in raw {
                    let goodbye = client.receive();
                    assert!(is_goodbye(&goodbye), "{goodbye:?}");
                    assert_eq!(client.receive(), Received::Closed(None));
                    told += 1;
                }
                for mut client in web {
                    let goodbye = client.receive();
                    assert!(is_goodbye(&goodbye), "{goodbye:?}");
                    assert_eq!(client.receive(), Received::Closed(Some(1001)));
                    told += 1;
                }
                told
            })
        })
        .collect();
    for _ in 0..THREADS {
        all_joined.recv().unwrap();
    }
    router.stop();
    let told: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(told, 2000);
}

/// A call that its callee has, and has not answered.
fn call_under_way(address: SocketAddr) -> (Client, Client) {
    let (mut caller, mut callee) = (Client::join(address, "realm1"), Client::join(address, "realm1"));
    assert!(callee.ask(r#"[64,1,{},"com.slow"]"#).starts_with("[65,1,"));
    caller.send(r#"[48,1,{},"com.slow"]"#);
    let invocation = callee.receive().message();
    assert!(invocation.starts_with("[68,1,"), "{invocation}");
    (caller, callee)
}

#[test]
fn calls_under_way_finish_and_everybody_else_is_told_at_once() {
    let mut router = Start::new("[node]\nshutdown_timeout_ms = 600000\n").router();
    let mut idle = Client::join(router.address(), "realm1");
    let (mut caller, mut callee) = call_under_way(router.address());
    router.signal(Signal::TERM);
    let goodbye = idle.receive();
    assert!(is_goodbye(&goodbye), "{goodbye:?}");
    assert_eq!(callee.receive_within(Duration::from_millis(300)), Received::Nothing);
    callee.send("[70,1,{},[42]]");
    assert_eq!(caller.receive().message(), "[50,1,{},[42]]");
    for client in [&mut caller, &mut callee] {
        let goodbye = client.receive();
        assert!(is_goodbye(&goodbye), "{goodbye:?}");
        assert_eq!(client.receive(), Received::Closed(None));
    }
    drop((idle, caller, callee));
    let status = router.wait(PATIENCE).unwrap_or_else(|| panic!("it goes on:\n{}", router.log()));
    assert_eq!(status.code(), Some(0), "{}", router.log());
}

#[test]
fn a_call_that_is_never_answered_has_half_of_the_time() {
    let mut router = Start::new("[node]\nshutdown_timeout_ms = 8000\n").router();
    let (mut caller, mut callee) = call_under_way(router.address());
    let started = Instant::now();
    router.signal(Signal::TERM);
    // Which of the two is told first is open, and so is whether the caller hears of its callee's end before that.
    let goodbye = loop {
        let received = caller.receive();
        if !matches!(&received, Received::Message(text) if text.starts_with("[8,48,1,")) {
            break received;
        }
    };
    assert!(is_goodbye(&goodbye), "{goodbye:?}");
    assert!(started.elapsed() >= Duration::from_millis(3900), "{:?}", started.elapsed());
    while !is_goodbye(&callee.receive()) {}
    drop((caller, callee));
    let status = router.wait(PATIENCE).unwrap_or_else(|| panic!("it goes on:\n{}", router.log()));
    assert_eq!(status.code(), Some(0), "{}", router.log());
    assert!(!router.log().contains("the time to stop in is over"), "{}", router.log());
}

/// A session that subscribed and reads nothing any more, with more on its way than the kernel takes.
fn stalled(address: SocketAddr) -> Client {
    let mut reader = Client::join_with_small_buffer(address, "realm1");
    assert!(reader.ask(r#"[32,1,{},"com.topic"]"#).starts_with("[33,1,"));
    let mut publisher = Client::join(address, "realm1");
    let payload = "x".repeat(64 << 10);
    for request in 1..=24 {
        let answer =
            publisher.ask(&format!(r#"[16,{request},{{"acknowledge":true}},"com.topic",["{payload}"]]"#));
        assert!(answer.starts_with("[17,"), "{answer}");
    }
    reader
}

fn ends(router: &mut Router) {
    router.signal(Signal::TERM);
    let status = router.wait(AT_ONCE).unwrap_or_else(|| panic!("it does not end:\n{}", router.log()));
    assert_eq!(status.code(), Some(0), "{}", router.log());
}

#[test]
fn a_client_that_reads_nothing_does_not_prevent_the_end() {
    // The reader itself would be waited for for longer.
    let patient = "[limits]\nlinger_timeout_ms = 60000\nslow_consumer_timeout_ms = 600000\n";
    let mut router = Start::new(&format!("[node]\nshutdown_timeout_ms = 1500\n{patient}")).router();
    let _reader = stalled(router.address());
    let mut other = Client::join(router.address(), "realm1");
    ends(&mut router);
    assert!(is_goodbye(&other.receive()));
    assert!(router.log().contains("the time to stop in is over"), "{}", router.log());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut router = Start::new("[node]\nshutdown_timeout_ms = 600000\n[limits]\nlinger_timeout_ms = 60000\nslow_consumer_timeout_ms = 600000\n").router();
    let _reader = stalled(router.address());
    router.signal(Signal::INT);
    router.wait_for_log("stopping");
    assert!(router.wait(Duration::from_millis(500)).is_none(), "there is a client to wait for");
    ends(&mut router);
}

#[test]
fn nobody_comes_in_while_it_stops() {
    let folder = Folder::new();
    let path = folder.path().join("socket");
    let listeners =
        |port| format!("[[listener]]\nport = {port}\n[[listener]]\nunix = \"{}\"\n", path.display());
    let node = "[node]\nshutdown_timeout_ms = 600000\n";
    let mut router = Start::new(&format!("{node}{}", listeners(free_port()))).router();
    let address = router.address();
    let _reader = stalled(address);
    router.signal(Signal::TERM);
    // The cores hear of it one after the other, and the last one that listens has all who come.
    let is_refused = |result: io::Result<()>| {
        matches!(
            result.map_err(|error| error.kind()),
            Err(ErrorKind::ConnectionRefused | ErrorKind::NotFound)
        )
    };
    wait_until("TCP refuses", || is_refused(TcpStream::connect(address).map(drop)));
    wait_until("the Unix socket refuses", || is_refused(UnixStream::connect(&path).map(drop)));
    // Others may have its places before its last client is gone, and keep them when it goes.
    let next = Start::new(&listeners(address.port())).router();
    Client::join(address, "realm1");
    assert!(router.wait(Duration::ZERO).is_none(), "there is a client to wait for");
    router.stop();
    Client::join(address, "realm1");
    Client::connect_unix(&path).unwrap().with_session("realm1").unwrap();
    next.stop();
    assert!(!path.exists());
}
