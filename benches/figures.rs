//! What do a call, an event, a connect and an idle session cost the router?
//!
//! `cargo bench --bench figures` starts the router on a free port, drives it over loopback with JSON over WebSocket
//! and 64-byte payloads, and prints the CPU time of the router's process per operation (user and system, from
//! /proc/PID/stat) and its memory per idle session. Wall time is not looked at: the generator shares the machine.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const PAYLOAD: &str = "[\"0123456789012345678901234567890123456789012345678901234567890123\"]";
const HELLO: &str =
    "[1,\"realm1\",{\"roles\":{\"caller\":{},\"callee\":{},\"publisher\":{},\"subscriber\":{}}}]";

/// The router as a child process, with one listener for each of two cores.
struct Router {
    process: Child,
    directory: PathBuf,
    ports: [u16; 2],
}

impl Router {
    fn start() -> Self {
        let directory = std::env::temp_dir().join(format!("crosspoint-figures-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a temporary directory");
        let ports = [free_port(), free_port()];
        let mut config = String::new();
        for (core, port) in ports.iter().enumerate() {
            config.push_str(&format!(
                "[[listener]]\nhost = \"127.0.0.1\"\nport = {port}\ncores = [{core}]\n\n"
            ));
        }
        let path = directory.join("config.toml");
        fs::write(&path, config).expect("a configuration");
        let process = Command::new(env!("CARGO_BIN_EXE_crosspoint"))
            .args(["start", "--config"])
            .arg(&path)
            .stdout(Stdio::null())
            .spawn()
            .expect("the router");
        let router = Self { process, directory, ports };
        for port in ports {
            while TcpStream::connect(address(port)).is_err() {
                thread::park_timeout(Duration::from_millis(10));
            }
        }
        router
    }

    /// CPU time so far, in microseconds.
    fn cpu_us(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("a process");
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        // Fields 14 and 15 of proc(5), in ticks of 10 ms; the name and the process id are cut off.
        (fields[11].parse::<f64>().unwrap_or(0.0) + fields[12].parse::<f64>().unwrap_or(0.0)) * 10_000.0
    }

    /// Resident memory, in bytes.
    fn memory(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("a process");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A client just good enough to make work: frames out, and the texts of frames in.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    out: Vec<u8>,
}

impl Client {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(address(port)).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        let mut client = Self { stream, buffer: Vec::new(), start: 0, out: Vec::new() };
        let request = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: wamp.2.json\r\n\r\n";
        client.stream.write_all(request.as_bytes()).expect("a request");
        while !client.buffer.windows(4).any(|window| window == b"\r\n\r\n") {
            client.fill();
        }
        let head = client.buffer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
        client.start = head + 4;
        client.say(HELLO);
        client.flush();
        assert!(client.next().starts_with("[2,"), "no WELCOME");
        client
    }

    fn fill(&mut self) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
        let before = self.buffer.len();
        self.buffer.resize(before + 64 * 1024, 0);
        let count = self.stream.read(&mut self.buffer[before..]).expect("bytes");
        assert!(count > 0, "the router closed the connection");
        self.buffer.truncate(before + count);
    }

    /// Queues a text frame, masked with zeros.
    fn say(&mut self, text: &str) {
        self.out.push(0x81);
        if text.len() < 126 {
            self.out.push(0x80 | text.len() as u8);
        } else {
            self.out.push(0x80 | 126);
            self.out.extend_from_slice(&(text.len() as u16).to_be_bytes());
        }
        self.out.extend_from_slice(&[0; 4]);
        self.out.extend_from_slice(text.as_bytes());
    }

    fn flush(&mut self) {
        self.stream.write_all(&self.out).expect("a write");
        self.out.clear();
    }

    /// The next text that is here already.
    fn poll(&mut self) -> Option<String> {
        let frame = &self.buffer[self.start..];
        let (head, length) = match frame.get(1)? {
            126 => (4, usize::from(u16::from_be_bytes([*frame.get(2)?, *frame.get(3)?]))),
            length => (2, usize::from(*length)),
        };
        let text = String::from_utf8(frame.get(head..head + length)?.to_vec()).expect("a text");
        self.start += head + length;
        Some(text)
    }

    fn next(&mut self) -> String {
        loop {
            if let Some(text) = self.poll() {
                return text;
            }
            self.flush();
            self.fill();
        }
    }
}

/// The number after the type code.
fn request(text: &str) -> &str {
    text.split([',', ']']).nth(1).unwrap_or_default()
}

/// Calls until `count` are answered, `flight` at a time.
fn caller(port: u16, procedure: &str, count: usize, flight: usize) {
    let mut client = Client::connect(port);
    let mut asked = 0;
    let mut answered = 0;
    while answered < count {
        while asked < count && asked - answered < flight {
            asked += 1;
            client.say(&format!("[48,{asked},{{}},\"{procedure}\",{PAYLOAD}]"));
        }
        let text = client.next();
        assert!(text.starts_with("[50,"), "no RESULT: {text}");
        answered += 1;
    }
}

/// Answers `count` invocations of a procedure.
fn callee(mut client: Client, count: usize) {
    for _ in 0..count {
        let text = client.next();
        assert!(text.starts_with("[68,"), "no INVOCATION: {text}");
        let answer = format!("[70,{},{{}},{PAYLOAD}]", request(&text));
        client.say(&answer);
    }
    client.flush();
    // The last answers are still under way.
    thread::park_timeout(Duration::from_millis(50));
}

/// CPU microseconds of the router per call.
fn calls(router: &Router, pairs: usize, flight: usize, count: usize, placement: [usize; 2]) -> f64 {
    // Names of their own: the callees of the run before may not be gone yet.
    static RUN: AtomicUsize = AtomicUsize::new(0);
    let run = RUN.fetch_add(1, Ordering::Relaxed);
    let callees: Vec<_> = (0..pairs)
        .map(|pair| {
            let mut client = Client::connect(router.ports[placement[0]]);
            client.say(&format!("[64,1,{{}},\"figures.procedure.{run}.{pair}\"]"));
            assert!(client.next().starts_with("[65,"), "no REGISTERED");
            thread::spawn(move || callee(client, count))
        })
        .collect();
    let before = router.cpu_us();
    let port = router.ports[placement[1]];
    let callers: Vec<_> = (0..pairs)
        .map(|pair| {
            thread::spawn(move || caller(port, &format!("figures.procedure.{run}.{pair}"), count, flight))
        })
        .collect();
    for thread in callers.into_iter().chain(callees) {
        thread.join().expect("a client");
    }
    (router.cpu_us() - before) / (pairs * count) as f64
}

/// CPU microseconds of the router per delivered event: one publisher waits for all subscribers now and then.
fn events(router: &Router, subscribers: usize, flight: usize, count: usize) -> f64 {
    let (sender, done) = std::sync::mpsc::sync_channel::<()>(subscribers * flight);
    let readers: Vec<_> = (0..subscribers)
        .map(|number| {
            let mut client = Client::connect(router.ports[(number + 1) % 2]);
            client.say("[32,1,{},\"figures.topic\"]");
            assert!(client.next().starts_with("[33,"), "no SUBSCRIBED");
            let sender = sender.clone();
            thread::spawn(move || {
                for _ in 0..count {
                    assert!(client.next().starts_with("[36,"), "no EVENT");
                    sender.send(()).expect("a publisher");
                }
            })
        })
        .collect();
    let mut publisher = Client::connect(router.ports[0]);
    let before = router.cpu_us();
    let mut open = 0;
    for number in 1..=count {
        publisher.say(&format!("[16,{number},{{}},\"figures.topic\",{PAYLOAD}]"));
        open += subscribers;
        if open >= flight * subscribers || number == count {
            publisher.flush();
            while open > (flight - 1) * subscribers || (number == count && open > 0) {
                done.recv().expect("a subscriber");
                open -= 1;
            }
        }
    }
    let cost = (router.cpu_us() - before) / (subscribers * count) as f64;
    for reader in readers {
        reader.join().expect("a client");
    }
    cost
}

fn main() {
    // `cargo bench -- --test` and `cargo test --benches` only ask whether it runs.
    let quick = std::env::args().any(|argument| argument == "--test");
    let scale = if quick { 100 } else { 1 };
    let router = Router::start();
    println!(
        "router CPU, microseconds per operation (JSON over WebSocket, 64-byte payload, loopback, two cores)"
    );
    let _ = calls(&router, 1, 8, 2000 / scale, [0, 1]);
    println!(
        "  call, 4 callers x 4 callees x 8 in flight   {:6.2}",
        calls(&router, 4, 8, 40_000 / scale, [0, 1])
    );
    for placement in [[0, 0], [1, 1], [0, 1], [1, 0]] {
        let cost = calls(&router, 1, 1, 10_000 / scale, placement);
        println!("  call, 1 in flight, callee on {}, caller on {} {cost:6.2}", placement[0], placement[1]);
    }
    println!("  event, 1 to 1, 16 in flight                 {:6.2}", events(&router, 1, 16, 100_000 / scale));
    println!("  delivery, 1 to 100, 4 in flight             {:6.2}", events(&router, 100, 4, 2000 / scale));
    drop(router);

    let router = Router::start();
    let (first, last) = if quick { (20, 40) } else { (4000, 15_000) };
    let mut idle: Vec<Client> = (0..first).map(|number| Client::connect(router.ports[number % 2])).collect();
    let (memory, cpu) = (router.memory(), router.cpu_us());
    idle.extend((first..last).map(|number| Client::connect(router.ports[number % 2])));
    let sessions = (last - first) as f64;
    println!("  session opened, TCP to WELCOME              {:6.2}", (router.cpu_us() - cpu) / sessions);
    println!("router memory, bytes per idle session (resident, slope from {first} to {last})");
    println!("  session                                     {:6.0}", (router.memory() - memory) / sessions);
    println!("  in all, with {last} sessions             {:9.0}", router.memory());
}
