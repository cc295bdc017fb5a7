//! Starting: where it listens, what it speaks there, what it tells people, and who is in the way.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;

use crate::harness::{
    Client, Folder, PATIENCE, ProcessState, Start, WebSocketClient, free_port, not_tested, processors,
    wait_until,
};

const SUBSCRIBE: &str = r#"[32,1,{},"com.topic"]"#;

#[test]
fn one_port_speaks_websocket_rawsocket_and_http() {
    let router = Start::new("").router();
    let mut raw = Client::join(router.address(), "realm1");
    let mut web = WebSocketClient::join(router.address(), "realm1");
    assert!(raw.ask(SUBSCRIBE).starts_with("[33,1,"));
    web.send(r#"[16,1,{},"com.topic",["hello"]]"#);
    assert!(raw.receive().message().contains(r#"["hello"]"#));
    let mut http = TcpStream::connect(router.address()).unwrap();
    http.set_read_timeout(Some(PATIENCE)).unwrap();
    http.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    http.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(router.counters().of("sessions_opened"), 2);
    router.stop();
}

#[test]
fn machines_read_json_a_line_and_no_greeting() {
    let router = Start::new("[node.log]\nlevel = \"trace\"\n").router();
    drop(Client::join(router.address(), "realm1"));
    router.counters();
    let log = router.stop();
    assert!(log.lines().count() >= 3, "{log}");
    for line in log.lines() {
        let mut bytes = line.as_bytes().to_vec();
        let value = simd_json::to_owned_value(&mut bytes).unwrap_or_else(|error| panic!("{error}: {line}"));
        for key in ["timestamp", "level", "message"] {
            assert!(value.try_get_key(key), "{key} is missing in {line}");
        }
    }
    assert!(!log.contains("Try it:"), "{log}");
}

/// Whether a JSON object has a key.
trait HasKey {
    fn try_get_key(&self, key: &str) -> bool;
}

impl HasKey for simd_json::OwnedValue {
    fn try_get_key(&self, key: &str) -> bool {
        matches!(self, Self::Object(object) if object.contains_key(key))
    }
}

#[test]
fn people_at_a_terminal_are_greeted_and_stop_it_with_ctrl_c() {
    let folder = Folder::new();
    let config = folder.path().join("crosspoint.toml");
    std::fs::write(&config, "[[listener]]\nport = 0\n").unwrap();
    // Ctrl-C goes to every process of the terminal: a shell that stayed there would end by it and hide the exit code.
    let command = format!("exec {} start {}", env!("CARGO_BIN_EXE_crosspoint"), config.display());
    // script(1) gives it a terminal, and its exit code back.
    let mut script = Command::new("script")
        .args(["-qfec", &command, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script(1), of Debian's package bsdutils");
    let shown = Arc::new(Mutex::new(String::new()));
    let mut output = script.stdout.take().unwrap();
    let reader = std::thread::spawn({
        let shown = Arc::clone(&shown);
        move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        }
    });
    let has = |text: &str| shown.lock().unwrap().contains(text);
    // Its terminal goes with script, and the router with its terminal.
    let mut script = Killed(script);
    wait_until("the greeting", || has("Ctrl-C stops."));
    let text = shown.lock().unwrap().clone();
    for piece in [
        concat!("Crosspoint ", env!("CARGO_PKG_VERSION"), " is ready."),
        "listens on  ws://127.0.0.1:",
        "/ws and rs://127.0.0.1:",
        "realms      realm1",
        "cores       ",
    ] {
        assert!(text.contains(piece), "{piece} is missing in:\n{text}");
    }
    assert!(!text.contains("{\"timestamp\""), "{text}");
    script.0.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    wait_until("the end", || script.0.try_wait().unwrap().is_some());
    reader.join().unwrap();
    assert!(has("stopping"), "{}", shown.lock().unwrap());
    assert_eq!(script.0.wait().unwrap().code(), Some(0));
}

/// A child that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn sigusr1_shows_what_the_cores_did_and_disturbs_nobody() {
    let router = Start::new("").router();
    let mut client = Client::join(router.address(), "realm1");
    for request in 1..=200 {
        if request % 20 == 0 {
            router.signal(Signal::USR1);
        }
        let answer = client.ask(&format!(r#"[48,{request},{{}},"com.nowhere"]"#));
        assert!(answer.starts_with(&format!("[8,48,{request},")), "{answer}");
    }
    // The answer to an earlier signal may come first.
    wait_until("200 calls are counted", || router.counters().of("call_errors") == 200);
    assert_eq!(router.counters().of("closed_protocol_violation"), 0);
    router.wait_for_log("HELLO");
    router.wait_for_log("CALL");
    let log = router.stop();
    let of_recorder: Vec<_> = log.lines().filter(|line| line.contains("recorder: ")).collect();
    assert!(of_recorder.iter().any(|line| line.contains(" CALL ") && line.contains(" bytes")), "{log}");
}

#[test]
fn a_port_in_use_is_said_with_its_holder() {
    let first = Start::new("").router();
    let config = format!("[[listener]]\nport = {}\n", first.address().port());
    let (code, said) = Start::new(&config).refusal();
    assert_eq!(code, Some(1), "{said}");
    for piece in [
        &format!("cannot listen on {}", first.address()),
        &format!("(process {})", first.pid().as_raw_nonzero()),
        "set another `port` in [[listener]]",
    ] {
        assert!(said.contains(piece), "{piece} is missing in:\n{said}");
    }
    // The first one did not lose a connection to the second.
    for _ in 0..20 {
        Client::join(first.address(), "realm1");
    }
    first.stop();
}

#[test]
fn an_address_of_another_machine_is_refused_with_the_way_to_find_ours() {
    let config = "[[realm]]\nname = \"r\"\n[[realm.role]]\nname = \"anonymous\"\n\
                  [[listener]]\nhost = \"192.0.2.1\"\nport = 8080\n";
    let (code, said) = Start::new(config).refusal();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("192.0.2.1") && said.contains("ip address"), "{said}");
}

#[test]
fn a_unix_socket_is_taken_over_from_the_dead_and_not_from_the_living_and_removed_at_the_end() {
    let folder = Folder::new();
    let path = folder.path().join("socket");
    let config = format!("[[listener]]\nunix = \"{}\"\n", path.display());
    let mut first = Start::new(&config).router();
    Client::connect_unix(&path).unwrap().with_session("realm1").unwrap();
    let (code, said) = Start::new(&config).refusal();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("(process {})", first.pid().as_raw_nonzero())), "{said}");
    Client::connect_unix(&path).unwrap();
    first.kill();
    assert!(path.exists(), "a killed router cannot remove it");
    let second = Start::new(&config).router();
    Client::connect_unix(&path).unwrap().with_session("realm1").unwrap();
    second.stop();
    assert!(!path.exists());
    // Somebody else's socket, and a file that is none.
    let _listener = UnixListener::bind(&path).unwrap();
    let (code, said) = Start::new(&config).refusal();
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("(process {})", std::process::id())), "{said}");
    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let (code, said) = Start::new(&format!("[[listener]]\nunix = \"{}\"\n", file.display())).refusal();
    assert_eq!(code, Some(1));
    assert!(said.contains("no socket"), "{said}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    let (code, said) = Start::new("[[listener]]\nunix = \"/nowhere/at/all/socket\"\n").refusal();
    assert_eq!(code, Some(1));
    assert!(said.contains("make its directory"), "{said}");
}

#[test]
fn a_listener_bound_to_a_core_is_served_by_it_alone() {
    let processors = processors();
    if processors.len() < 2 {
        not_tested("there is one processor only");
        return;
    }
    let config = format!("[node]\ncores = {processors:?}\n[[listener]]\nport = 0\ncores = [0]\n");
    let router = Start::new(&config).router();
    let pid = router.pid().as_raw_nonzero().get();
    let clients: Vec<_> = (0..100).map(|_| Client::join(router.address(), "realm1")).collect();
    // What each core did last, by itself.
    let joined = |log: &str, core: usize| {
        let of_core = format!("\"core\":{core}");
        let mut of_recorder = log.lines().filter(|line| line.contains("recorder: "));
        of_recorder.any(|line| line.contains(" HELLO ") && line.contains(&of_core))
    };
    wait_until("the recorder of core 0", || {
        router.counters();
        joined(&router.log(), 0)
    });
    drop(clients);
    for (core, processor) in processors.iter().enumerate() {
        let name = format!("shard-{core}");
        assert_eq!(ProcessState::processors_of_thread(pid, &name).unwrap(), processor.to_string());
    }
    let log = router.stop();
    assert!((1..processors.len()).all(|core| !joined(&log, core)), "another core has had a session: {log}");
}

#[test]
fn a_process_that_was_killed_starts_again_at_once_and_everybody_comes_back() {
    let folder = Folder::new();
    let path = folder.path().join("socket");
    let listener = format!("[[listener]]\nunix = \"{}\"\n[[listener]]\nport = ", path.display());
    let config = format!("{listener}{}\n", free_port());
    let mut router = Start::new(&config).router();
    let address = router.address();
    let mut reconnected = 0;
    for _ in 0..10 {
        let mut clients: Vec<_> = (0..20).map(|_| Client::join(address, "realm1")).collect();
        router.kill();
        for client in &mut clients {
            client.receive_within(PATIENCE);
        }
        router = Start::new(&config).router();
        for (number, client) in clients.iter_mut().enumerate() {
            *client = if number % 2 == 0 {
                Client::join(address, "realm1")
            } else {
                Client::connect_unix(&path).unwrap().with_session("realm1").unwrap()
            };
            assert!(client.ask(r#"[48,1,{},"com.nowhere"]"#).contains("no_such_procedure"));
            reconnected += 1;
        }
    }
    assert_eq!(reconnected, 200);
    router.stop();
    assert!(!path.exists());
}
