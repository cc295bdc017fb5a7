//! What waits, and what goes over the wire.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::queues::{Bounds, Work};
use super::session::{Came, Session};
use super::*;

fn wanted(id: i64, topic: &str) -> Wanted {
    let function = Function { name: format!("f{id}"), sql: format!("f{id}"), parameters: 1, timeout: None };
    Wanted { id, topic: topic.to_owned(), policy: MatchPolicy::Exact, function, attempts: None }
}

fn event(text: &str) -> Arc<Event> {
    deep_event(text, 0)
}

fn deep_event(text: &str, depth: u32) -> Arc<Event> {
    let (topic, args) = ("t".into(), text.into());
    Arc::new(Event { topic, args, kwargs: "{}".into(), details: "{}".into(), depth })
}

fn queues_of(queue_max: usize, bytes_max: usize, attempts: u32) -> Queues {
    Queues::new(Bounds { queue_max, bytes_max, attempts, depth_max: 3 })
}

fn answer(id: i64) -> Answer {
    let call = DatabaseCall { id, procedure: "p".to_owned(), ..DatabaseCall::default() };
    Answer::error(&call, "e", "text")
}

/// Of which subscription, and which events.
fn events_of(work: Option<Work>) -> Option<(i64, Vec<String>, Option<Failure>)> {
    match work? {
        Work::Events { id, events, spent, .. } => {
            Some((id, events.iter().map(|event| event.args.to_string()).collect(), spent))
        }
        Work::Answer { .. } => panic!("an answer"),
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn events_of_a_subscription_are_run_in_their_order_and_one_batch_at_a_time() {
    let now = Instant::now();
    let mut queues = queues_of(1_000, 1 << 30, 3);
    queues.subscribe(&[wanted(1, "a"), wanted(2, "b")]);
    for number in 0..150 {
        assert!(queues.push(1, &event(&number.to_string())));
    }
    queues.push(2, &event("x"));
    // Nobody has subscribed that any more.
    assert!(queues.push(3, &event("y")));
    let (id, first, _) = events_of(queues.take(now)).unwrap();
    assert_eq!((id, first.len(), first[0].as_str()), (1, 100, "0"));
    assert_eq!(events_of(queues.take(now)), Some((2, texts(&["x"]), None)), "the others go on");
    assert_eq!(events_of(queues.take(now)), None);
    queues.done(1, 100);
    queues.done(2, 1);
    let (id, rest, _) = events_of(queues.take(now)).unwrap();
    assert_eq!((id, rest.len(), rest[0].as_str()), (1, 50, "100"));
    queues.done(1, 50);
    assert!(queues.is_empty() && queues.take(now).is_none());
}

#[test]
fn what_fails_is_tried_alone_and_later_and_in_the_end_put_aside() {
    let mut now = Instant::now();
    let mut queues = queues_of(1_000, 1 << 30, 2);
    queues.subscribe(&[wanted(1, "a")]);
    for text in ["a", "b", "c"] {
        queues.push(1, &event(text));
    }
    assert_eq!(events_of(queues.take(now)), Some((1, texts(&["a", "b", "c"]), None)));
    queues.failed(1, 3, "together".to_owned(), now);
    // Each alone, at once.
    assert_eq!(events_of(queues.take(now)), Some((1, texts(&["a"]), None)));
    queues.done(1, 1);
    for attempts in 1..=2 {
        assert_eq!(events_of(queues.take(now)), Some((1, texts(&["b"]), None)));
        queues.failed(1, 1, "alone".to_owned(), now);
        assert_eq!(events_of(queues.take(now)), None, "not at once");
        let due = queues.next_due().unwrap();
        assert!(due > now && due <= now + Duration::from_millis(100 * attempts), "{attempts}");
        now = due;
    }
    let spent = Failure { attempts: 2, error: "alone".to_owned() };
    assert_eq!(events_of(queues.take(now)), Some((1, texts(&["b"]), Some(spent))));
    queues.done(1, 1);
    assert_eq!(events_of(queues.take(now)), Some((1, texts(&["c"]), None)));
    queues.done(1, 1);
    assert!(queues.is_empty());

    // An answer holds nobody up.
    queues.answer(answer(1));
    queues.answer(answer(2));
    let Some(Work::Answer { answer: first, failure: None, spent: false }) = queues.take(now) else {
        panic!()
    };
    queues.answer_failed(first, None, "no".to_owned(), now);
    assert!(matches!(queues.take(now), Some(Work::Answer { answer, .. }) if answer.id == 2));
    assert_eq!(queues.take(now), None);
    now = queues.next_due().unwrap();
    let Some(Work::Answer { answer: first, failure, spent: false }) = queues.take(now) else { panic!() };
    queues.answer_failed(first, failure, "no".to_owned(), now);
    now = queues.next_due().unwrap();
    let Some(Work::Answer { answer: first, failure: Some(failure), spent: true }) = queues.take(now) else {
        panic!()
    };
    assert_eq!((first.id, failure.attempts), (1, 2));
    // Nothing was tried: it comes first again.
    queues.put_back(Work::Answer { answer: first, failure: Some(failure), spent: true });
    assert!(matches!(queues.take(now), Some(Work::Answer { spent: true, .. })));
    assert!(queues.is_empty() && queues.next_due().is_none());
}

#[test]
fn queues_are_bounded_in_events_and_bytes() {
    let now = Instant::now();
    let mut queues = queues_of(2, 10_000, 2);
    queues.subscribe(&[wanted(1, "a"), wanted(2, "b")]);
    assert!(queues.push(1, &event("1")) && queues.push(1, &event("2")));
    assert!(!queues.push(1, &event("3")), "too many");
    assert!(!queues.push(2, &event(&"x".repeat(10_000))), "too long");
    assert!(queues.push(2, &event(&"x".repeat(9_000))));
    assert_eq!((queues.take_overflown(), queues.take_overflown()), (2, 0));
    // What a subscription held is free again with it, unless it runs at the moment: then it is when that ends.
    let (id, ..) = events_of(queues.take(now)).unwrap();
    assert_eq!(id, 1);
    queues.subscribe(&[]);
    assert_eq!(queues.take(now), None);
    queues.done(1, 2);
    queues.subscribe(&[wanted(4, "a")]);
    assert!(queues.push(4, &event(&"x".repeat(9_800))));
}

#[test]
fn calls_are_bounded_until_their_answers_are_noted() {
    let calls = Calls::new(2).unwrap();
    let call = |id| DatabaseCall { id, ..DatabaseCall::default() };
    calls.give(call(1));
    calls.give(call(1));
    calls.give(call(2));
    let (room, mut under_way) = calls.room();
    under_way.sort_unstable();
    assert_eq!((room, under_way), (0, vec![1, 2]));
    assert_eq!(calls.take().map(|call| call.id), Some(1), "once");
    calls.put_back(call(1));
    assert_eq!((calls.take().map(|call| call.id), calls.take().map(|call| call.id)), (Some(1), Some(2)));
    assert_eq!((calls.take(), calls.room().0), (None, 0));
    calls.done(1);
    assert_eq!(calls.room(), (1, vec![2]));
    calls.made();
    assert_eq!(calls.counts(), (1, 1));
}

/// A session, and the router's end of it.
fn pair() -> (Session, UnixStream) {
    let (client, router) = UnixStream::pair().unwrap();
    client.set_nonblocking(true).unwrap();
    (Session::new(client), router)
}

#[test]
fn a_session_speaks_rawsocket() {
    let (mut session, mut router) = pair();
    session.flush().unwrap();
    let mut hello = [0; 4];
    router.read_exact(&mut hello).unwrap();
    assert_eq!(hello, [0x7f, 0xf1, 0, 0]);
    assert!(!session.send("too early"));
    // A message of 512 bytes is taken, and in pieces what comes is put together.
    for byte in [0x7f, 0x01, 0, 0] {
        assert_eq!(session.next(), Ok(Came::Nothing));
        router.write_all(&[byte]).unwrap();
        assert!(session.receive().unwrap());
    }
    assert_eq!(session.next(), Ok(Came::Ready));
    assert!(session.send("[1]") && !session.send(&"x".repeat(513)));
    // A ping is answered, and does not show.
    router.write_all(b"\x01\0\0\x02hi\0\0\0\x03[2]\0\0\0\x03[3").unwrap();
    assert!(session.receive().unwrap());
    assert_eq!(session.next(), Ok(Came::Message("[2]".to_owned())));
    assert_eq!(session.next(), Ok(Came::Nothing));
    session.flush().unwrap();
    let mut sent = [0; 13];
    router.read_exact(&mut sent).unwrap();
    assert_eq!(&sent, b"\0\0\0\x03[1]\x02\0\0\x02hi");
    router.write_all(b"]").unwrap();
    drop(router);
    assert!(!session.receive().unwrap(), "its end");
    assert_eq!(session.next(), Ok(Came::Message("[3]".to_owned())), "and what came before");
    assert_eq!(session.next(), Ok(Came::Nothing));
}

#[test]
fn a_router_that_lets_nobody_in_is_understood() {
    for (answer, text) in [(*b"\x7f\x40\0\0", "as many connections"), (*b"HTTP", "no RawSocket")] {
        let (mut session, mut router) = pair();
        router.write_all(&answer).unwrap();
        session.receive().unwrap();
        let error = session.next().unwrap_err();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn a_subscription_may_be_tried_more_or_less_often_than_others() {
    let mut now = Instant::now();
    let mut queues = queues_of(10, 1 << 30, 5);
    queues.subscribe(&[Wanted { attempts: Some(1), ..wanted(1, "a") }, wanted(2, "a")]);
    for id in 1..=2 {
        queues.push(id, &event("x"));
        assert_eq!(events_of(queues.take(now)), Some((id, texts(&["x"]), None)));
        queues.failed(id, 1, "no".to_owned(), now);
    }
    now = queues.next_due().unwrap();
    let spent = Failure { attempts: 1, error: "no".to_owned() };
    assert_eq!(events_of(queues.take(now)), Some((1, texts(&["x"]), Some(spent))));
    assert_eq!(events_of(queues.take(now)), Some((2, texts(&["x"]), None)), "it is tried again");
}

#[test]
fn functions_get_no_event_that_too_many_events_led_to() {
    let now = Instant::now();
    let mut queues = queues_of(10, 1 << 30, 5);
    queues.subscribe(&[wanted(1, "a")]);
    for (text, depth) in [("a", 0), ("b", 2), ("c", 3), ("d", 1), ("e", u32::MAX)] {
        queues.push(1, &deep_event(text, depth));
    }
    assert_eq!(events_of(queues.take(now)), Some((1, texts(&["a", "b"]), None)));
    queues.done(1, 2);
    let (id, refused, why) = events_of(queues.take(now)).unwrap();
    let Failure { attempts, error } = why.unwrap();
    assert_eq!((id, refused, attempts), (1, texts(&["c"]), 0), "in its place, and not run at all");
    assert!(error.starts_with("3 events led to this one") && error.contains("`depth_max` (3)"), "{error}");
    queues.buried(1);
    assert_eq!(events_of(queues.take(now)), Some((1, texts(&["d"]), None)));
    queues.done(1, 1);
    assert!(events_of(queues.take(now)).unwrap().2.is_some());
    queues.buried(1);
    assert!(queues.is_empty());
    assert_eq!(queues.counts(), Counts { events: 5, dead_letters: 2, ..Counts::default() });
}

#[test]
fn what_becomes_of_events_and_answers_is_counted() {
    let mut now = Instant::now();
    let mut queues = queues_of(3, 1 << 30, 2);
    queues.subscribe(&[wanted(1, "a")]);
    for text in ["a", "b", "c", "d"] {
        queues.push(1, &event(text));
    }
    queues.answer(answer(1));
    let counts = Counts { events: 3, overflown: 1, waiting: 4, ..Counts::default() };
    assert_eq!(queues.counts(), counts);
    let Some(Work::Answer { answer, failure, .. }) = queues.take(now) else { panic!() };
    queues.answer_failed(answer, failure, "no".to_owned(), now);
    // All three, then the first alone, then that once more.
    queues.take(now);
    queues.failed(1, 3, "together".to_owned(), now);
    queues.take(now);
    queues.failed(1, 1, "alone".to_owned(), now);
    assert_eq!(queues.counts(), Counts { failures: 3, retries: 1, ..counts });
    now += Duration::from_secs(60);
    let Some(Work::Answer { spent: false, .. }) = queues.take(now) else { panic!() };
    queues.answer_buried();
    assert!(events_of(queues.take(now)).unwrap().2.is_none());
    queues.done(1, 1);
    let counts = Counts { failures: 3, retries: 3, dead_letters: 1, waiting: 2, ..counts };
    assert_eq!(queues.counts(), counts);
}
