//! What a manager of services is told (sd_notify(3)): this test is the manager.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::faults;
use crate::harness::{Client, Folder, PATIENCE, Router, Start, not_tested, processors};

/// How long the manager waits for a sign of life.
const WATCHDOG: Duration = Duration::from_millis(400);

/// The socket that a router tells, in a folder of its own.
struct Manager {
    socket: UnixDatagram,
    path: String,
    _folder: Folder,
}

impl Manager {
    fn new() -> Self {
        let folder = Folder::new();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, path: path.to_str().unwrap().to_owned(), _folder: folder }
    }

    fn starts(&self, start: Start) -> Router {
        let watchdog_us = WATCHDOG.as_micros().to_string();
        start.variable("NOTIFY_SOCKET", &self.path).variable("WATCHDOG_USEC", &watchdog_us).router()
    }

    /// The next thing that it is told; `None` when it hears nothing in that time.
    fn hears_within(&self, patience: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = [0; 256];
        match self.socket.recv(&mut buffer) {
            Ok(count) => Some(String::from_utf8(buffer[..count].to_vec()).unwrap().trim_end().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn hears(&self) -> String {
        self.hears_within(PATIENCE).expect("it hears nothing")
    }
}

#[test]
fn it_is_told_when_the_router_is_ready_that_it_lives_and_when_it_stops() {
    let manager = Manager::new();
    // Whatever comes is kept for the manager from here on.
    let began = Instant::now();
    let mut router = manager.starts(Start::new(""));
    assert_eq!(manager.hears(), "READY=1");
    // Ready is who answers.
    let _client = Client::join(router.address(), "realm1");
    for _ in 0..20 {
        assert_eq!(manager.hears(), "WATCHDOG=1");
    }
    // One in half of its time is what it wants, one in a quarter is what may be.
    let took = began.elapsed();
    assert!(took > WATCHDOG * 4, "twenty signs of life in {took:?}: too often");
    router.signal(Signal::TERM);
    let mut told = manager.hears();
    while told == "WATCHDOG=1" {
        told = manager.hears();
    }
    assert_eq!(told, "STOPPING=1");
    assert_eq!(router.wait(PATIENCE).unwrap().code(), Some(0), "{}", router.log());
    while let Some(told) = manager.hears_within(Duration::from_millis(1)) {
        assert_eq!(told, "WATCHDOG=1", "stopping is said once");
    }
}

#[test]
fn a_core_that_is_stuck_gives_no_sign_of_life_until_it_goes_on() {
    for (fault, said) in [
        ("com.fault.until_released", "the core is stuck in a turn"),
        ("com.fault.deaf_until_released", "the core is stuck in its wait"),
    ] {
        a_core_is_stuck(fault, said);
    }
}

fn a_core_is_stuck(fault: &str, said: &str) {
    let processors = processors();
    let other_core = processors.len() - 1;
    if other_core == 0 {
        not_tested("there is one processor only, and no other core that could release the first");
        return;
    }
    let manager = Manager::new();
    let router = manager.starts(faults::start(&format!(
        "[node]\ncores = {processors:?}\n[[listener]]\nport = 0\ncores = [0]\n\
         [[listener]]\nport = 0\ncores = [{other_core}]\n"
    )));
    assert_eq!(manager.hears(), "READY=1");
    assert_eq!(manager.hears(), "WATCHDOG=1");
    let mut client = Client::join(router.addresses[0], "realm1");
    let mut other = Client::join(router.addresses[1], "realm1");
    client.send(&format!(r#"[48,1,{{}},"{fault}"]"#));
    faults::wait_for_core_0(&router, said);
    // What was said before it was seen to be stuck.
    while manager.hears_within(Duration::from_millis(1)).is_some() {}
    assert_eq!(manager.hears_within(WATCHDOG * 2), None, "a router with a stuck core says that it lives");
    // Where the realm is at home on the stuck core, the answer comes after that; of its own client it may have come before.
    other.send(r#"[48,1,{},"com.fault.release"]"#);
    assert!(other.receive().message().contains("no_such_procedure"));
    assert!(client.receive().message().contains("no_such_procedure"));
    assert_eq!(manager.hears(), "WATCHDOG=1");
    router.stop();
}

#[test]
fn a_manager_that_is_gone_or_does_not_listen_holds_nobody_up() {
    let router = Start::new("").variable("NOTIFY_SOCKET", "/nowhere/notify").router();
    router.wait_for_log("the service manager cannot be told");
    drop(Client::join(router.address(), "realm1"));
    router.stop();

    // What a socket holds for a reader is net.unix.max_dgram_qlen datagrams, and the manager reads none.
    let manager = Manager::new();
    let start = Start::new("").variable("NOTIFY_SOCKET", &manager.path).variable("WATCHDOG_USEC", "2000");
    let router = start.router();
    router.wait_for_log("the service manager cannot be told WATCHDOG=1");
    drop(Client::join(router.address(), "realm1"));
    router.stop();
}

#[test]
fn a_manager_may_have_an_abstract_name() {
    let name = format!("crosspoint-test-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let router = Start::new("").variable("NOTIFY_SOCKET", &format!("@{name}")).router();
    let mut buffer = [0; 64];
    let count = socket.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"READY=1");
    router.stop();
}
