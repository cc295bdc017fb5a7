//! What does a turn cost when there is nothing to do, and when there is one message; and what does it cost to be woken?
//!
//! In a world without a kernel: an idle turn beside none and beside 10,000 idle connections, and one with a PUBLISH that
//! nobody gets. In the real one: the thread of a shard sleeps in epoll until one request comes over loopback TCP and is
//! answered; its CPU time is what waking, receiving and sending add, the handing over to the client included.

#[path = "setting/cpu_time.rs"]
mod cpu_time;
#[path = "setting/stand.rs"]
mod stand;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use criterion::Criterion;
use crosspoint::shard::Shard;
use crosspoint::shard::kernel::Kernel;
use crosspoint::shard::listener::{TcpOptions, listen_tcp};
use crosspoint::shard::mesh::{Doorbell, SharedDoorbell};
use crosspoint::shard::poller::{EventDoorbell, Poller};

use cpu_time::{CpuTime, by_cpu_time, thread_cpu_ns};
use stand::{HELLO, Stand, UPGRADE, append_frame, shard};

/// So many messages are prepared at a time.
const PREPARED_MAX: u64 = 1024;

fn idle(criterion: &mut Criterion<CpuTime>, connections: usize) {
    let mut stand = Stand::new();
    for _ in 0..connections {
        stand.connect();
    }
    let name = format!("turn/idle, {connections} connections");
    criterion.bench_function(&name, |bencher| bencher.iter(|| stand.turn()));
}

fn one_message(criterion: &mut Criterion<CpuTime>, connections: usize) {
    let mut stand = Stand::new();
    let publisher = stand.connect();
    for _ in 1..connections {
        stand.connect();
    }
    let mut requests = 0;
    let name = format!("turn/one PUBLISH that nobody gets, {connections} connections");
    criterion.bench_function(&name, |bencher| {
        bencher.iter_custom(|count| {
            let (mut done, mut spent_ns) = (0, 0);
            while done < count {
                let prepared = (count - done).min(PREPARED_MAX);
                let (mut frames, mut lengths) = (Vec::new(), Vec::new());
                for _ in 0..prepared {
                    requests += 1;
                    let before = frames.len();
                    append_frame(&format!("[16,{requests},{{}},\"com.example.topic\"]"), &mut frames);
                    lengths.push(frames.len() - before);
                }
                stand.prepare(publisher, frames);
                let begun_ns = thread_cpu_ns();
                for length in &lengths {
                    stand.arrive(publisher, *length);
                    stand.turn();
                }
                spent_ns += thread_cpu_ns() - begun_ns;
                done += prepared;
            }
            spent_ns
        });
    });
}

/// A shard on real sockets, and a client on a thread of its own that asks as often as it is told to.
struct Woken {
    shard: Shard<Kernel>,
    commands: Sender<u64>,
    is_done: Arc<AtomicBool>,
}

impl Woken {
    fn new() -> Self {
        let doorbell = EventDoorbell::new().expect("an eventfd");
        let poller = Poller::new(Arc::clone(&doorbell)).expect("an epoll set");
        let patience = Duration::from_secs(60);
        let options = TcpOptions::new(16, Duration::ZERO, patience, patience);
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let (mut listening, address) = listen_tcp(loopback, &options, 1).expect("a free port");
        let kernel = Kernel::new(poller, vec![listening.pop()]).expect("a watched listener");
        let shard = shard(kernel, Arc::clone(&doorbell) as SharedDoorbell);
        let (commands, orders) = mpsc::channel();
        let is_done = Arc::<AtomicBool>::default();
        let told = Arc::clone(&is_done);
        thread::spawn(move || ask(address, &orders, &told, &doorbell));
        Self { shard, commands, is_done }
    }

    /// What one request took of the CPU time of this thread, which is the shard's.
    fn serve(&mut self, requests: u64) -> u64 {
        self.commands.send(requests).expect("a client");
        let begun_ns = thread_cpu_ns();
        while !self.is_done.swap(false, Ordering::Acquire) {
            self.shard.turn(true);
        }
        thread_cpu_ns() - begun_ns
    }
}

/// The client: connects, then answers every order by so many requests, one after the other.
fn ask(address: SocketAddr, orders: &Receiver<u64>, is_done: &AtomicBool, doorbell: &EventDoorbell) {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("an option");
    let mut buffer = [0; 4096];
    let mut converse = |bytes: &[u8]| {
        stream.write_all(bytes).expect("a router that reads");
        let count = stream.read(&mut buffer).expect("a router that answers");
        assert!(count > 0, "the router closed the connection");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    let upgraded = converse(UPGRADE);
    assert!(upgraded.starts_with("HTTP/1.1 101"), "{upgraded}");
    let mut frame = Vec::new();
    append_frame(HELLO, &mut frame);
    let welcome = converse(&frame);
    assert!(welcome.contains("[2,"), "{welcome}");
    let mut request = 0;
    for count in orders {
        for _ in 0..count {
            request += 1;
            frame.clear();
            append_frame(
                &format!("[16,{request},{{\"acknowledge\":true}},\"com.example.topic\"]"),
                &mut frame,
            );
            let published = converse(&frame);
            assert!(published.contains("[17,"), "{published}");
        }
        is_done.store(true, Ordering::Release);
        doorbell.ring();
    }
}

fn woken(criterion: &mut Criterion<CpuTime>) {
    let mut woken = Woken::new();
    // Connecting is not measured.
    woken.serve(1);
    criterion.bench_function("turn/woken by one request over TCP", |bencher| {
        bencher.iter_custom(|requests| woken.serve(requests));
    });
}

fn main() {
    let mut criterion = by_cpu_time(Duration::from_secs(2));
    for connections in [0, 10_000] {
        idle(&mut criterion, connections);
    }
    for connections in [1, 10_000] {
        one_message(&mut criterion, connections);
    }
    woken(&mut criterion);
    criterion.final_summary();
}
