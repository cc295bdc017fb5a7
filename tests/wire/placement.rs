//! Sessions wherever they come in: both cores, both protocols, TCP, IPv6 and Unix sockets.

use super::client::{Address, Client, Framing, RawSocket, WebSocket};
use super::router::{Router, Settings, open_realm};

/// Two realms that everybody may use, with their dealers on core 0 and on the last core.
fn realms_with_homes() -> String {
    let cores = crate::harness::processors().len().clamp(1, 2);
    let realm = |name, home: usize| open_realm(name, &format!("home = {home}"), "");
    realm("realm.near", 0) + &realm("realm.far", cores - 1)
}

fn places(router: &Router) -> [(&Address, Framing); 6] {
    [
        (&router.near, WebSocket),
        (&router.far, WebSocket),
        (&router.near, RawSocket),
        (&router.far, RawSocket),
        (&router.unix, WebSocket),
        (&router.ipv6, RawSocket),
    ]
}

#[test]
fn calls_and_events_get_through_in_order_from_everywhere_to_everywhere() {
    let realms = realms_with_homes();
    let router = Router::start_with(Settings { realms: &realms, ..Settings::default() });
    for realm in ["realm.near", "realm.far"] {
        for (here, framing) in places(&router) {
            let mut one = Client::join_realm(here, framing, realm);
            for (there, framing) in places(&router) {
                let mut other = Client::join_realm(there, framing, realm);
                other.register("sum");
                other.subscribe("news");
                // All at once, and across topics and procedures: order is by pairs of sessions.
                other.register("product");
                other.subscribe("sports");
                for index in 0..10 {
                    one.publish(if index % 2 == 0 { "news" } else { "sports" }, &index.to_string());
                }
                let events: Vec<_> = (0..10).map(|_| other.message()[4][0].to_string()).collect();
                assert_eq!(events, (0..10).map(|index| index.to_string()).collect::<Vec<_>>());
                let requests: Vec<_> = (0..10)
                    .map(|index| one.call(if index % 2 == 0 { "sum" } else { "product" }, &index.to_string()))
                    .collect();
                for index in 0..10 {
                    let invocation = other.echo_invocation();
                    assert_eq!((&invocation[1], &invocation[4][0]), (&(index + 1).into(), &index.into()));
                }
                for (index, request) in requests.iter().enumerate() {
                    let result = one.message();
                    assert_eq!((&result[1], &result[3][0]), (&(*request).into(), &index.into()));
                }
                other.leave();
            }
            one.leave();
        }
    }
    router.stop();
}

#[test]
fn both_protocols_on_a_unix_socket_that_goes_with_the_router() {
    let router = Router::start("");
    let Address::Unix(path) = router.unix.clone() else { panic!("the address of a Unix socket is a path") };
    for framing in [WebSocket, RawSocket] {
        let clients: Vec<_> = (0..20).map(|_| Client::join(&router.unix, framing)).collect();
        for client in clients {
            client.leave();
        }
    }
    assert!(path.exists());
    router.stop();
    assert!(!path.exists());
}

#[test]
fn plain_threads_do_the_same_as_executors() {
    let router = Router::start_with(Settings { node: "runtime = \"thread\"", ..Settings::default() });
    let mut bystanders = super::bystanders::Bystanders::join(&router);
    for _ in 0..20 {
        bystanders.check();
    }
    bystanders.leave();
    router.stop();
}

#[test]
fn a_session_may_end_and_another_begin_on_the_same_connection() {
    let router = Router::start("");
    let mut subscriber = Client::join(&router.far, WebSocket);
    subscriber.subscribe("rounds");
    for framing in [WebSocket, RawSocket] {
        let mut client = Client::connect(&router.near, framing);
        let mut sessions = Vec::new();
        for round in 0..5 {
            client.send(&super::client::hello("realm1"));
            sessions.push(client.message()[1].to_string());
            // Request ids begin anew, and so does everything else.
            client.send(r#"[32,1,{},"rounds"]"#);
            assert_eq!(client.message()[0], 33);
            client.send(&format!(r#"[16,2,{{}},"rounds",[{round}]]"#));
            assert_eq!(subscriber.message()[4][0], round);
            client.send(r#"[6,{},"wamp.close.close_realm"]"#);
            assert_eq!(client.message()[2], "wamp.close.goodbye_and_out");
        }
        sessions.sort_unstable();
        sessions.dedup();
        assert_eq!(sessions.len(), 5, "five sessions, five ids");
    }
    subscriber.leave();
    router.stop();
}

#[test]
fn a_core_is_told_only_of_what_somebody_there_may_want() {
    let router = Router::start("");
    let mut publisher = Client::join(&router.near, WebSocket);
    let mut near = Client::join(&router.near, WebSocket);
    let mut far = Client::join(&router.far, WebSocket);
    near.subscribe("news.a");
    let crossed = |publisher: &mut Client| {
        let before = router.counters().get("peer_messages");
        for number in 0..20 {
            publisher.publish_acknowledged("news.a", &number.to_string());
        }
        router.counters().get("peer_messages") - before
    };
    assert_eq!(crossed(&mut publisher), 0);
    let other = far.subscribe("news.b");
    assert_eq!(crossed(&mut publisher), 0, "another topic");
    // Wanted from SUBSCRIBED on, and no longer once it is left.
    let topic = far.subscribe("news.a");
    assert_eq!(crossed(&mut publisher), 20);
    for number in 0..20 {
        assert_eq!(far.message()[4][0], number);
    }
    assert_eq!(far.ask(|request| format!("[34,{request},{topic}]"))[0], 35);
    assert_eq!(crossed(&mut publisher), 0);
    // Any pattern may match.
    let pattern = far.ask(|request| format!(r#"[32,{request},{{"match":"prefix"}},"other"]"#));
    assert_eq!(pattern[0], 33);
    assert_eq!(crossed(&mut publisher), 20);
    assert_eq!(far.ask(|request| format!("[34,{request},{other}]"))[0], 35);
    far.leave();
    assert_eq!(crossed(&mut publisher), 0, "what a session leaves is wanted by nobody");
    for number in 0..120 {
        assert_eq!(near.message()[4][0], number % 20);
    }
    publisher.leave();
    near.leave();
    router.stop();
}
