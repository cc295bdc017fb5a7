//! Starting: where it listens, what it speaks there, and what is in the way.

use crate::harness::{Client, Start};

#[test]
fn a_router_starts_and_stops() {
    let router = Start::new("").router();
    let _client = Client::join(router.address(), "realm1");
    assert_eq!(router.counters().of("sessions_opened"), 1);
    router.stop();
}
