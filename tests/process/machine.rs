//! A machine that gives less than it did: descriptors, memory, time. And what the router takes when it has nothing to do.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, prlimit};

use crate::harness::{
    Client, Folder, PATIENCE, Received, Router, Start, WebSocketClient, not_tested, wait_until,
};

/// Long enough to see that something does not happen. What happens late is no failure.
const A_WHILE: Duration = Duration::from_millis(400);

/// Sends a RawSocket handshake and does not wait for the answer.
fn knock(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.write_all(&[0x7F, 0xF1, 0, 0]).unwrap();
    stream
}

/// Whether the handshake is answered in time.
fn is_let_in(stream: &mut TcpStream, time: Duration) -> bool {
    stream.set_read_timeout(Some(time)).unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).is_ok() && answer[0] == 0x7F
}

#[test]
fn accepting_pauses_for_want_of_descriptors_and_goes_on_when_there_are_some() {
    let router = Start::new(
        "[limits]\nping_interval_ms = 0\nhandshake_timeout_ms = 600000\nhello_timeout_ms = 600000\n",
    )
    .router();
    let mut session = Client::join(router.address(), "realm1");
    // A core that has told its counters has the descriptors that it opens for itself.
    router.counters();
    let limit = |soft: u64| {
        let maximum = prlimit_of(&router).maximum;
        prlimit(Some(router.pid()), Resource::Nofile, Rlimit { current: Some(soft), maximum }).unwrap();
    };
    let before = prlimit_of(&router).current.unwrap();
    let began = Instant::now();
    limit(router.state().descriptors as u64 + 5);
    let mut clients: Vec<_> = (0..40).map(|_| knock(router.address())).collect();
    let line = router.wait_for_log("accepting paused for want of descriptors");
    assert!(line.contains("\"WARN\"") && line.contains("ulimit -n"), "{line}");
    // Nobody spins, and those who are in notice nothing.
    let idle = Idle::begin(&router);
    for request in 1..=10 {
        assert!(session.ask(&format!(r#"[48,{request},{{}},"com.nowhere"]"#)).contains("no_such_procedure"));
        std::thread::sleep(Duration::from_millis(150));
    }
    idle.end(&router);
    wait_until("it tries again", || router.counters().of("accept_paused") >= 2);
    let told = router.log().matches("accepting paused").count() as u64;
    assert!(told <= 3 + began.elapsed().as_secs(), "{told} lines");
    let is_outside = |client: &mut TcpStream| usize::from(!is_let_in(client, Duration::from_millis(1)));
    let outside: usize = clients.iter_mut().map(is_outside).sum();
    assert!(outside >= 30, "{outside} are outside");
    limit(before);
    drop(clients);
    let mut late = knock(router.address());
    assert!(is_let_in(&mut late, PATIENCE));
    drop((late, session));
    router.stop();
}

/// A while in which a router has next to nothing to do. A core that spins has thousands of turns a second on the slowest machine,
/// and a thread that spins has all that the scheduler gives it.
struct Idle {
    began: Instant,
    turns: u64,
    cpu_ticks: u64,
}

/// Of all cores together: what the tests do meanwhile, and what cores do by themselves.
const IDLE_TURNS_MAX: u64 = 200;
const IDLE_TURNS_A_SECOND_MAX: u64 = 100;

impl Idle {
    fn begin(router: &Router) -> Self {
        let turns = router.counters().of("turns");
        Self { began: Instant::now(), turns, cpu_ticks: router.state().cpu_ticks }
    }

    fn end(self, router: &Router) {
        let cpu_ticks = router.state().cpu_ticks - self.cpu_ticks;
        let turns = router.counters().of("turns") - self.turns;
        let took = self.began.elapsed();
        let turns_max = IDLE_TURNS_MAX + IDLE_TURNS_A_SECOND_MAX * took.as_secs();
        assert!(turns <= turns_max, "{turns} turns in {took:?}");
        let share = cpu_ticks as f64 / 100.0 / took.as_secs_f64();
        assert!(share < 0.25, "{share} of a processor in {took:?}");
    }
}

fn prlimit_of(router: &Router) -> Rlimit {
    let path = format!("/proc/{}/limits", router.pid().as_raw_nonzero());
    let limits = fs::read_to_string(path).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut numbers = line.split_whitespace().map(|word| word.parse().ok());
    Rlimit { current: numbers.next().unwrap(), maximum: numbers.next().unwrap() }
}

/// A router that believes a control group and a /proc/meminfo of the test's; `None` where no namespace can be made.
fn router_with_memory(folder: &Folder) -> Option<Router> {
    let meminfo = folder.path().join("meminfo");
    fs::write(&meminfo, "MemTotal: 1000000 kB\nMemAvailable: 900000 kB\n").unwrap();
    let script = "
        mount -t tmpfs none /sys/fs/cgroup && mount --bind \"$MEMINFO\" /proc/meminfo &&
        mkdir /sys/fs/cgroup/memory &&
        echo 1000000 | tee /sys/fs/cgroup/memory.max > /sys/fs/cgroup/memory/memory.limit_in_bytes &&
        echo 100000 | tee /sys/fs/cgroup/memory.current > /sys/fs/cgroup/memory/memory.usage_in_bytes &&
        exec \"$@\"";
    let flags = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    let wrapper = ["unshare", flags, "--propagation", "private", "sh", "-ec", script, "sh"];
    let tried = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg("true")
        .env("MEMINFO", &meminfo)
        .stderr(Stdio::null())
        .status();
    if !tried.is_ok_and(|status| status.success()) {
        not_tested(
            "no namespace of mounts can be made here, so nothing stands in for a control group that is short of memory",
        );
        return None;
    }
    let router = Start::new("[limits]\nslow_consumer_timeout_ms = 60000\n")
        .wrapper(&wrapper)
        .variable("MEMINFO", meminfo.to_str().unwrap())
        .router();
    Some(router)
}

/// Sets what the control group of the router uses, in percent of what it may.
fn set_memory_use(router: &Router, percent: u32) {
    let root = format!("/proc/{}/root/sys/fs/cgroup", router.pid().as_raw_nonzero());
    for file in ["memory.current", "memory/memory.usage_in_bytes"] {
        fs::write(format!("{root}/{file}"), format!("{}\n", percent * 10_000)).unwrap();
    }
}

#[test]
fn short_of_memory_publishers_wait_and_nobody_comes_in_and_then_the_largest_outbox_goes() {
    let folder = Folder::new();
    let Some(router) = router_with_memory(&folder) else { return };
    let mut stalled = Client::join_with_small_buffer(router.address(), "realm1");
    assert!(stalled.ask(r#"[32,1,{},"com.large"]"#).starts_with("[33,1,"));
    let mut publisher = Client::join(router.address(), "realm1");
    let mut caller = Client::join(router.address(), "realm1");
    let publish = |client: &mut Client, request: u32, topic: &str, bytes: usize| {
        let payload = "x".repeat(bytes);
        client.send(&format!(r#"[16,{request},{{"acknowledge":true}},"{topic}",["{payload}"]]"#));
    };
    for request in 1..=24 {
        publish(&mut publisher, request, "com.large", 64 << 10);
        assert!(publisher.receive().message().starts_with("[17,"));
    }
    set_memory_use(&router, 85);
    let line = router.wait_for_log("memory is short");
    assert!(line.contains("\"percent\":85") && line.contains("\"WARN\""), "{line}");
    // The cores hear of it behind the log. Then one publication finds out that memory is short; nothing behind it is read.
    let mut last = 24;
    wait_until("a publication that waits", || {
        last += 1;
        publish(&mut publisher, last, "com.small", 10);
        publisher.receive_within(A_WHILE) == Received::Nothing
    });
    let mut outside = knock(router.address());
    wait_until("nobody to be let in", || {
        let is_outside = !is_let_in(&mut outside, A_WHILE);
        if !is_outside {
            outside = knock(router.address());
        }
        is_outside
    });
    assert_eq!(publisher.receive_within(A_WHILE), Received::Nothing);
    // Who does not publish is served.
    assert!(caller.ask(r#"[48,1,{},"com.nowhere"]"#).contains("no_such_procedure"));
    assert_eq!(router.counters().of("closed_out_of_memory"), 0);
    set_memory_use(&router, 95);
    router.wait_for_log("memory is very short");
    wait_until("the largest outbox is closed", || router.counters().of("closed_out_of_memory") == 1);
    assert!(caller.ask(r#"[48,2,{},"com.nowhere"]"#).contains("no_such_procedure"));
    set_memory_use(&router, 20);
    router.wait_for_log("memory is no longer short");
    assert!(publisher.receive().message().starts_with(&format!("[17,{last},")));
    assert!(is_let_in(&mut outside, PATIENCE));
    drop((stalled, publisher, caller, outside));
    router.stop();
}

#[test]
fn a_machine_that_has_just_been_started() {
    // A namespace whose monotonic clock began a few seconds ago.
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let offset = (-(uptime as i64) + 3).to_string();
    let wrapper = ["unshare", "-rT", "--monotonic", &offset, "--fork", "--kill-child"];
    let tried = Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        not_tested("no namespace of time can be made here");
        return;
    }
    let router =
        Start::new("[limits]\nping_interval_ms = 300\nping_timeout_ms = 4000\nhello_timeout_ms = 4000\n")
            .wrapper(&wrapper)
            .router();
    let mut client = WebSocketClient::join(router.address(), "realm1");
    let mut silent = Client::connect(router.address()).unwrap();
    wait_until("pings", || {
        assert_eq!(client.receive_within(Duration::from_millis(100)), Received::Nothing);
        client.pings >= 2
    });
    assert!(matches!(silent.receive(), Received::Message(_) | Received::Closed(_)), "no HELLO is no session");
    assert!(client.ask(r#"[48,1,{},"com.nowhere"]"#).contains("no_such_procedure"));
}

#[test]
fn a_process_that_was_stopped_for_a_while_loses_nobody() {
    // The process is stopped for longer than a ping may be unanswered, and everything else takes less.
    let router = Start::new("[limits]\nping_interval_ms = 300\nping_timeout_ms = 5000\n").router();
    let address = router.address();
    let pings: Vec<_> = (0..20).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let (done, frozen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let threads: Vec<_> = pings
        .iter()
        .map(|pings| {
            let (done, frozen, pings) = (Arc::clone(&done), Arc::clone(&frozen), Arc::clone(pings));
            let mut client = WebSocketClient::join(address, "realm1");
            std::thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    if frozen.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(5));
                        continue;
                    }
                    let received = client.receive_within(Duration::from_millis(50));
                    assert_eq!(received, Received::Nothing);
                    pings.store(client.pings, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let all_have = |more: usize, than: &[usize]| {
        pings.iter().zip(than).all(|(pings, before)| pings.load(Ordering::Relaxed) >= before + more)
    };
    wait_until("pings for everybody", || all_have(2, &[0; 20]));
    // The clients stop a little earlier and go on a little later, as in a machine that is suspended: there are pings
    // that nobody has answered when the router looks at its clock again.
    frozen.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(60));
    let sent = router.counters().of("pings");
    wait_until("ten pings are not answered", || router.counters().of("pings") >= sent + 10);
    router.signal(Signal::STOP);
    std::thread::sleep(Duration::from_secs(7));
    router.signal(Signal::CONT);
    std::thread::sleep(Duration::from_millis(100));
    let before: Vec<_> = pings.iter().map(|pings| pings.load(Ordering::Relaxed)).collect();
    frozen.store(false, Ordering::Relaxed);
    // Of each one that was waited for, and of those that come now.
    wait_until("further pings for everybody", || {
        all_have(3, &before) || threads.iter().any(JoinHandle::is_finished)
    });
    done.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(router.counters().of("closed_ping_timeout"), 0);
    // The timeout itself works: this one answers nothing.
    let mut deaf = WebSocketClient::join(address, "realm1");
    wait_until("the deaf one is closed", || router.counters().of("closed_ping_timeout") == 1);
    deaf.receive();
    drop(deaf);
    router.stop();
}

#[test]
fn idle_sessions_cost_no_processor_time() {
    let router = Start::new("[limits]\nping_interval_ms = 0\n").router();
    let clients: Vec<_> = (0..100).map(|_| Client::join(router.address(), "realm1")).collect();
    let idle = Idle::begin(&router);
    std::thread::sleep(Duration::from_secs(5));
    idle.end(&router);
    drop(clients);
    router.stop();
}

#[test]
fn connections_that_ended_leave_nothing_behind() {
    let router = Start::new("").router();
    let address = router.address();
    let come_and_go = |count: usize| {
        let threads = (0..4).map(|_| {
            std::thread::spawn(move || {
                for number in 0..count / 4 {
                    let mut client = Client::join(address, "realm1");
                    let subscribed = client.ask(&format!(r#"[32,1,{{}},"com.topic.{number}"]"#));
                    assert!(subscribed.starts_with("[33,1,"), "{subscribed}");
                    if number % 2 == 0 {
                        assert!(client.ask(r#"[6,{},"wamp.close.close_realm"]"#).starts_with("[6,"));
                    }
                }
            })
        });
        for thread in threads.collect::<Vec<_>>() {
            thread.join().unwrap();
        }
    };
    come_and_go(400);
    // An executor opens some of its own only once it runs, so what there was at the start says nothing.
    let mut warm = router.state();
    wait_until("descriptors stay the same", || {
        std::thread::sleep(Duration::from_millis(500));
        let before = std::mem::replace(&mut warm, router.state());
        before.descriptors == warm.descriptors
    });
    assert!(warm.descriptors < 100, "{} descriptors are open and nobody is connected", warm.descriptors);
    come_and_go(4000);
    // Then some of the first ones may still have been closing.
    wait_until("descriptors are back", || router.state().descriptors <= warm.descriptors);
    let after = router.state();
    let grown = after.resident_bytes.saturating_sub(warm.resident_bytes);
    // The allocator takes 4 MiB at a time.
    assert!(grown <= 6 << 20, "{grown} bytes more");
    assert_eq!(after.threads, warm.threads);
    let counters = router.counters();
    assert_eq!((counters.of("sessions_opened"), counters.of("sessions_ended")), (4400, 4400));
    router.stop();
}
