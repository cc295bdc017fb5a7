//! What the machine must allow: said with its cause and its remedy before anything is opened, with exit code 2.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Client, Start, not_tested, processors, wait_until};

/// Why the router may not use io_uring on this machine; `None` where it may.
fn io_uring_is_denied() -> Option<String> {
    let (code, said) =
        Start::new("[node]\nruntime = \"glommio\"\n[[listener]]\nunix = \"/nowhere/at/all\"\n").refusal();
    // Where it may, it comes as far as the socket that it cannot make.
    (code == Some(2)).then_some(said)
}

/// Runs with memory for no ring: on threads.
fn runs_on_threads(runtime: &str, wrapper: &[&str]) {
    let router = Start::new(&format!("[node]\nruntime = \"{runtime}\"\n")).wrapper(wrapper).router();
    Client::join(router.address(), "realm1");
    let log = router.stop();
    assert!(log.contains(r#""host":"threads""#), "{log}");
}

#[test]
fn memory_that_cannot_be_locked() {
    let limited = ["prlimit", "--memlock=65536:65536"];
    // The remedy works.
    runs_on_threads("thread", &limited);
    if let Some(said) = io_uring_is_denied() {
        // Then it does not matter, and is not what people are told.
        assert!(said.contains("io_uring") && !said.contains("MEMLOCK"), "{said}");
        runs_on_threads("auto", &limited);
        not_tested("io_uring is denied here, so nothing asks for memory to lock");
        return;
    }
    for runtime in ["auto", "glommio"] {
        let config = format!("[node]\nruntime = \"{runtime}\"\n");
        let (code, said) = Start::new(&config).wrapper(&limited).refusal();
        assert_eq!(code, Some(2), "{said}");
        for piece in ["RLIMIT_MEMLOCK is 65536", "ulimit -l", "LimitMEMLOCK=", "node.runtime to \"thread\""] {
            assert!(said.contains(piece), "{piece} is missing in:\n{said}");
        }
    }
}

#[test]
fn descriptors_for_fewer_connections_than_are_configured() {
    let (code, said) =
        Start::new("[limits]\nconnections = 1000\n").wrapper(&["prlimit", "--nofile=300:300"]).refusal();
    assert_eq!(code, Some(2), "{said}");
    for piece in ["limits.connections is 1000", "allows 44", "LimitNOFILE="] {
        assert!(said.contains(piece), "{piece} is missing in:\n{said}");
    }
    let (code, said) = Start::new("").wrapper(&["prlimit", "--nofile=64:64"]).refusal();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("RLIMIT_NOFILE is 64"), "{said}");
    // A low soft limit is no obstacle: it is raised.
    let router =
        Start::new("[limits]\nconnections = 500\n").wrapper(&["prlimit", "--nofile=64:1024"]).router();
    let clients: Vec<_> = (0..100).map(|_| Client::join(router.address(), "realm1")).collect();
    drop(clients);
    router.stop();
}

#[test]
fn connections_beyond_the_number_that_is_configured_are_refused_and_said() {
    let processors = processors();
    let cores = processors.len();
    let config = format!("[node]\ncores = {processors:?}\n[limits]\nconnections = {}\n", 2 * cores);
    let router = Start::new(&config).router();
    let clients: Vec<_> = (0..8 * cores).map(|_| Client::connect(router.address())).collect();
    assert!(clients.iter().filter(|client| client.is_ok()).count() <= 2 * cores);
    let line = router.wait_for_log("connections were refused");
    assert!(line.contains("limits.connections") && line.contains("\"WARN\""), "{line}");
    let counters = router.counters();
    assert!(counters.of("connections_refused") >= 6 * cores as u64);
    drop(clients);
    wait_until("there is room again", || Client::try_join(router.address(), "realm1").is_ok());
    router.stop();
}

/// Whether a Python that can deny system calls is there; without it the caller's test has to pass.
fn deny_io_uring(errno: &str) -> Option<[String; 3]> {
    let works = Command::new("python3").arg("--version").stdout(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        not_tested("there is no python3 to deny io_uring");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process/deny_io_uring.py");
    Some(["python3".to_owned(), script.display().to_string(), errno.to_owned()])
}

/// Whether the system has the program that makes a kernel call itself 2.6.
fn old_kernel() -> Option<[String; 2]> {
    let wrapper = ["setarch".to_owned(), "--uname-2.6".to_owned()];
    let works = Command::new(&wrapper[0]).args([&wrapper[1], "true"]).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("not tested: there is no setarch");
        return None;
    }
    Some(wrapper)
}

#[test]
fn without_io_uring_the_cores_run_on_threads_with_one_warning() {
    let denied = |errno, cause| deny_io_uring(errno).map(|wrapper| (wrapper.to_vec(), cause));
    let wrappers = [
        denied("EPERM", "seccomp"),
        denied("ENOSYS", "the kernel is older than"),
        old_kernel().map(|wrapper| (wrapper.to_vec(), "lacks operations that glommio needs")),
    ];
    for (wrapper, cause) in wrappers.into_iter().flatten() {
        let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
        let router = Start::new("").wrapper(&wrapper).router();
        let mut callee = Client::join(router.address(), "realm1");
        let mut caller = Client::join(router.address(), "realm1");
        assert!(callee.ask(r#"[64,1,{},"com.add"]"#).starts_with("[65,1,"));
        caller.send(r#"[48,1,{},"com.add",[1,2]]"#);
        let invocation = callee.receive().message();
        assert!(invocation.starts_with("[68,1,"), "{invocation}");
        callee.send("[70,1,{},[3]]");
        assert_eq!(caller.receive().message(), "[50,1,{},[3]]");
        drop((callee, caller));
        let log = router.stop();
        let warnings: Vec<_> = log.lines().filter(|line| line.contains("\"WARN\"")).collect();
        assert_eq!(warnings.len(), 1, "{log}");
        for piece in ["io_uring", cause, "plain pinned threads", "node.runtime"] {
            assert!(warnings[0].contains(piece), "{piece} is missing in:\n{}", warnings[0]);
        }
        assert!(log.contains(r#""host":"threads""#), "{log}");
    }
}

#[test]
fn who_insists_on_glommio_is_told_why_it_cannot_be() {
    let Some(wrapper) = deny_io_uring("EPERM") else { return };
    let wrapper = wrapper.each_ref().map(String::as_str);
    let (code, said) = Start::new("[node]\nruntime = \"glommio\"\n").wrapper(&wrapper).refusal();
    assert_eq!(code, Some(2), "{said}");
    for piece in ["node.runtime is \"glommio\"", "io_uring", "seccomp", "set node.runtime to \"auto\""] {
        assert!(said.contains(piece), "{piece} is missing in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn cores_that_are_not_there() {
    for (config, problem) in [
        ("[[listener]]\nport = 0\ncores = [700]\n", "listener[0].cores names core 700"),
        (
            "[[realm]]\nname = \"r\"\nhome = 700\n[[realm.role]]\nname = \"anonymous\"\n",
            "realm[0].home names core 700",
        ),
        ("[node]\ncores = [999]\n", "node.cores names processor 999"),
    ] {
        let (code, said) = Start::new(config).refusal();
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(problem), "{said}");
    }
}

#[test]
fn a_port_for_the_privileged() {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if first.trim() == "0" {
        not_tested("this machine has no privileged ports");
        return;
    }
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"];
    let wrapper: &[&str] = if rustix::process::geteuid().is_root() { &nobody } else { &[] };
    if let [setpriv, flags @ ..] = wrapper {
        let mut command = Command::new(setpriv);
        command.args(flags).arg(env!("CARGO_BIN_EXE_crosspoint")).arg("--version");
        if !command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        {
            not_tested("this is root, and nobody else can be made to run the router");
            return;
        }
    }
    let (code, said) = Start::new("[[listener]]\nport = 1\n").wrapper(wrapper).refusal();
    assert_eq!(code, Some(1), "{said}");
    for piece in ["cannot listen on 127.0.0.1:1", "Permission denied", "CAP_NET_BIND_SERVICE"] {
        assert!(said.contains(piece), "{piece} is missing in:\n{said}");
    }
}
