//! What SIGUSR1 tells of each realm.

use rustix::process::Signal;

use crate::harness::{Client, Router, Start, wait_until};

const REALMS: &str = r#"
[[realm]]
name = "busy"
[[realm.role]]
name = "anonymous"
[[realm.role.permission]]
uri = ""
match = "prefix"
allow = "all"
[[realm]]
name = "quiet"
[[realm.role]]
name = "anonymous"
[[realm]]
name = "empty"
[[realm.role]]
name = "anonymous"
"#;

/// The line of a realm in the last report; the report is there when the line of the node is.
fn line_of(router: &Router, realm: &str) -> Option<String> {
    let log = router.log();
    let report = &log[log.rfind("counters: ")?..];
    let is_of = |line: &&str| line.contains("of this realm: ") && line.contains(&format!("\"{realm}\""));
    report.lines().find(is_of).map(str::to_owned)
}

#[test]
fn each_realm_has_its_own_counters() {
    let router = Start::new(REALMS).router();
    let address = router.address();
    let mut subscribers: Vec<Client> = (0..3).map(|_| Client::join(address, "busy")).collect();
    for subscriber in &mut subscribers {
        assert!(subscriber.ask(r#"[32,1,{},"com.topic"]"#).starts_with("[33,"));
    }
    let mut publisher = Client::join(address, "busy");
    assert!(publisher.ask(r#"[64,1,{},"com.procedure"]"#).starts_with("[65,"));
    for request in 2..=5 {
        assert!(
            publisher
                .ask(&format!(r#"[16,{request},{{"acknowledge":true}},"com.topic"]"#))
                .starts_with("[17,")
        );
    }
    for subscriber in &mut subscribers {
        for _ in 0..4 {
            assert!(subscriber.receive().message().starts_with("[36,"));
        }
    }
    assert!(publisher.ask(r#"[48,6,{},"com.nobody"]"#).contains("no_such_procedure"));
    let mut stranger = Client::join(address, "quiet");
    assert!(stranger.ask(r#"[32,1,{},"com.topic"]"#).contains("not_authorized"));
    drop(subscribers.pop());
    wait_until("the report of a moment when one has left", || {
        let reports = router.log().matches("counters: ").count();
        router.signal(Signal::USR1);
        wait_until("the next report", || {
            let log = router.log();
            log.matches("counters: ").count() > reports && line_of(&router, "quiet").is_some()
        });
        line_of(&router, "busy").is_some_and(|line| line.contains("sessions=3 "))
    });
    let busy = line_of(&router, "busy").unwrap();
    let expected = "sessions=3 subscriptions=2 registrations=1 sessions_opened=4 publications=4 events=12 calls=1 \
                    errors=1 subscribed=3 registered=1";
    assert!(busy.contains(expected), "{busy}");
    let quiet = line_of(&router, "quiet").unwrap();
    let expected = "sessions=1 subscriptions=0 registrations=0 sessions_opened=1 publications=0 events=0 calls=0 \
                    errors=1 subscribed=0 registered=0";
    assert!(quiet.contains(expected), "{quiet}");
    // A realm that nobody has come to has no line.
    assert_eq!(line_of(&router, "empty"), None);
    router.stop();
}
