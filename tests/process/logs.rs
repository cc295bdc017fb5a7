//! Logs: bounded in rate, safe against what clients send, and never in anybody's way.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Client, PATIENCE, ProcessState, Router, Start, free_port, wait_until};

#[test]
fn clients_that_come_and_go_cost_a_line_a_second() {
    let router = Start::new("[node.log]\nlevel = \"trace\"\n").router();
    let started = Instant::now();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(router.address()).unwrap();
        stream.write_all(b"this is no protocol\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        // Whatever it answers: that it closes is what counts.
        let _ = stream.read_to_end(&mut answer);
    }
    let told = || {
        let log = router.log();
        let lines = log.lines().filter(|line| line.contains("connections were closed by the router"));
        let counts = lines.map(|line| {
            let (_, rest) = line.split_once("\"reasons\":\"").unwrap();
            rest.split(['=', ' ', '"']).filter_map(|word| word.parse::<u64>().ok()).sum::<u64>()
        });
        counts.collect::<Vec<_>>()
    };
    wait_until("all of them are told", || told().iter().sum::<u64>() == 300);
    let seconds = started.elapsed().as_secs() as usize;
    assert!(told().len() <= seconds + 1, "{:?} in {seconds} s", told());
    router.stop();
}

#[test]
fn what_clients_send_forges_no_line() {
    for format in ["text", "json"] {
        let router = Start::new(&format!("[node.log]\nlevel = \"trace\"\nformat = \"{format}\"\n")).router();
        let forged = "\\nFORGED\\r\\nFORGED\\u001b[31mFORGED\\u0000\\u2028FORGED";
        let mut client = Client::join(router.address(), "realm1");
        client.ask(&format!(r#"[48,1,{{}},"com.{forged}"]"#));
        client.ask(&format!(r#"[32,2,{{"match":"{forged}"}},"com.topic"]"#));
        client.send(&format!(r#"[6,{{"message":"{forged}"}},"wamp.close.{forged}"]"#));
        client.receive();
        let _ = Client::try_join(router.address(), forged);
        for head in [
            "GET /FORGED\x1b[31m HTTP/1.1\r\nHost: FORGED\r\n\r\n",
            "GET /ws HTTP/1.1\r\nHost: a\r\nOrigin: http://FORGED\x1b[31m\r\nUser-Agent: FORGED\r\n\r\n",
            "FORGED\nFORGED\x1b[31m\r\n\r\n",
        ] {
            let mut stream = TcpStream::connect(router.address()).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
        }
        router.wait_for_log("connections were closed by the router");
        router.counters();
        let log = router.stop();
        let is_clean = |c: char| c == '\n' || !c.is_control();
        assert!(log.chars().all(is_clean), "{log:?}");
        assert!(!log.lines().any(|line| line.starts_with("FORGED")), "{log}");
    }
}

/// A router whose log goes into a pipe; nobody reads it before the test does.
fn router_in_a_pipe() -> (Router, SocketAddr) {
    // The pipe hides where it listens, so the port is chosen here.
    let port = free_port();
    let config = format!(
        "[node]\nshutdown_timeout_ms = 3000\n[node.log]\nlevel = \"trace\"\n[[listener]]\nport = {port}\n"
    );
    let router = Start::new(&config).stdout(Stdio::piped()).spawn();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_until("it listens", || Client::try_join(address, "realm1").is_ok());
    (router, address)
}

/// Fills the flight recorders.
fn talk(address: SocketAddr) {
    for _ in 0..8 {
        let mut client = Client::join(address, "realm1");
        for request in 1..=1500 {
            client.send(&format!(r#"[16,{request},{{}},"com.topic"]"#));
        }
        assert!(client.ask(r#"[48,1501,{},"com.nowhere"]"#).contains("no_such_procedure"));
    }
}

/// CPU time that it takes to write the lines of a flight recorder, at the least; to look around takes less, in this time.
const WRITING_NS: u64 = 2_000_000;
const A_LOOK: Duration = Duration::from_millis(100);

/// Makes the router write its flight recorders, and waits until it has begun and has nothing to do any more.
fn write_recorders(router: &Router) {
    let used = || {
        let main = ProcessState::cpu_ns_of_thread(router.pid().as_raw_nonzero().get(), "crosspoint");
        main.expect("the router has a main thread")
    };
    let before = used();
    router.signal(Signal::USR1);
    wait_until("the recorders are being written", || used() > before + WRITING_NS);
    let mut last = 0;
    wait_until("the recorders are written", || {
        std::thread::sleep(A_LOOK);
        let earlier = std::mem::replace(&mut last, used());
        last < earlier + WRITING_NS
    });
}

#[test]
fn a_log_that_nobody_reads_holds_up_nothing_not_even_the_end() {
    let (mut router, address) = router_in_a_pipe();
    talk(address);
    let mut client = Client::join(address, "realm1");
    // Each of these writes thousands of lines: far more than a pipe and the queue before it hold.
    for request in 1..=8 {
        write_recorders(&router);
        assert!(client.ask(&format!(r#"[48,{request},{{}},"com.nowhere"]"#)).contains("no_such_procedure"));
    }
    for _ in 0..500 {
        let mut stream = TcpStream::connect(address).unwrap();
        let _ = stream.write_all(b"\x7f\xff\xff\xff");
    }
    assert!(client.ask(r#"[48,9,{},"com.nowhere"]"#).contains("no_such_procedure"));
    let memory = router.state().resident_bytes;
    assert!(memory < 300 << 20, "{memory} bytes");
    drop(client);
    router.signal(Signal::TERM);
    let status = router.wait(PATIENCE).expect("it does not end while nobody reads its log");
    assert_eq!(status.code(), Some(0), "{}", router.log());
    assert_eq!(router.log(), "", "nothing on standard error");
}

#[test]
fn a_log_whose_reader_comes_back_says_how_much_was_lost() {
    let (mut router, address) = router_in_a_pipe();
    talk(address);
    for _ in 0..8 {
        write_recorders(&router);
    }
    let output = BufReader::new(router.stdout());
    let (found, lost) = channel();
    std::thread::spawn(move || {
        let mut lines = output.lines().map_while(Result::ok);
        let _ = found.send(lines.find(|line| line.contains("log lines were lost")));
        // Read on, or it would be blocked again.
        lines.for_each(drop);
    });
    let lost = lost.recv_timeout(PATIENCE).unwrap().expect("it does not say that lines were lost");
    assert!(lost.contains("\"lines\":"), "{lost}");
    router.signal(Signal::TERM);
    assert_eq!(router.wait(PATIENCE).unwrap().code(), Some(0));
}

#[test]
fn a_log_that_is_closed_ends_nobody() {
    let (mut router, address) = router_in_a_pipe();
    let mut client = Client::join(address, "realm1");
    // As `crosspoint | head -1`.
    let mut output = BufReader::new(router.stdout());
    let mut line = String::new();
    while !line.contains("Crosspoint is ready") {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0);
    }
    drop(output);
    for request in 1..=10 {
        router.signal(Signal::USR1);
        assert!(client.ask(&format!(r#"[48,{request},{{}},"com.nowhere"]"#)).contains("no_such_procedure"));
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(client);
    router.signal(Signal::PIPE);
    assert!(Client::try_join(address, "realm1").is_ok());
    router.signal(Signal::TERM);
    assert_eq!(router.wait(PATIENCE).unwrap().code(), Some(0));
    assert_eq!(router.log(), "", "nothing on standard error");
}
