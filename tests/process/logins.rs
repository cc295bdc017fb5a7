//! Very many logins at once whose tickets are slow to check.

use crosspoint::password::PasswordHash;
use rustix::process::Signal;

use crate::harness::{Client, Received, Start, raise_descriptors};

const LOGINS: usize = 500;
/// How many wait for a check at most. All of these checks together take far longer than what the cores do meanwhile.
const WAITING_MAX: usize = 8;
const MEMORY_KIB: u32 = 32 << 10;

/// The threads take what they can, the rest is sent away at once, and the cores go on meanwhile.
#[test]
fn slow_tickets_cost_the_cores_nothing() {
    raise_descriptors();
    let hash = PasswordHash::argon2id("pencil", b"saltsalt", 1, MEMORY_KIB).unwrap();
    let router = Start::new(&format!(
        "[limits]\nchecks_waiting_max = {WAITING_MAX}\nhello_timeout_ms = 600000\n[[realm]]\nname = \"realm1\"\n\
         [[realm.role]]\nname = \"anonymous\"\n[[realm.role.permission]]\nuri = \"\"\nmatch = \"prefix\"\nallow = \"all\"\n\
         [[realm.user]]\nauthid = \"joe\"\nrole = \"anonymous\"\n\
         ticket_hash = \"{hash}\"\n"
    ))
    .router();
    let address = router.address();
    let mut bystander = Client::join(address, "realm1");
    let mut clients: Vec<Client> = (0..LOGINS)
        .map(|_| {
            let mut client = Client::connect(address).unwrap();
            let hello = r#"[1,"realm1",{"roles":{"caller":{}},"authmethods":["ticket"],"authid":"joe"}]"#;
            assert!(client.ask(hello).starts_with("[4,"));
            client
        })
        .collect();
    // All of them at once, however slow this test is.
    router.signal(Signal::STOP);
    for client in &mut clients {
        client.send(r#"[5,"pencil",{}]"#);
    }
    for request in 1..=50 {
        bystander.send(&format!(r#"[48,{request},{{}},"com.nobody"]"#));
    }
    router.signal(Signal::CONT);
    for _ in 1..=50 {
        let answer = bystander.receive().message();
        assert!(answer.contains("wamp.error.no_such_procedure"), "{answer}");
    }
    let meanwhile = router.counters();
    let mut outcomes = [0; 2];
    for client in &mut clients {
        match client.receive() {
            Received::Message(text) if text.starts_with("[2,") => outcomes[0] += 1,
            Received::Message(text) if text.contains("wamp.error.unavailable") => outcomes[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    let after = router.counters();
    assert_eq!((after.of("checks"), after.of("checks_refused")), (outcomes[0], outcomes[1]));
    assert_eq!(outcomes[0] + outcomes[1], LOGINS as u64);
    // So many fit in, whatever the threads are like.
    assert!(outcomes[0] >= WAITING_MAX as u64 && outcomes[1] > 0, "{outcomes:?}");
    assert!(
        meanwhile.of("call_errors") == 50 && meanwhile.of("sessions_opened") < after.of("sessions_opened")
    );
    router.stop();
}
