//! A server that lies: it stops in the middle, announces what never comes, and says what nobody asked. Whatever it does
//! becomes an error, in time and within the bounds.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use proptest::prelude::*;

use super::{settings, soon};
use crosspoint::database::postgres::wire::{Connection, Deadline, Error, Event, ResultFormat, Settings};

/// One client's server.
fn serve(script: impl FnOnce(&mut TcpStream) + Send + 'static) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        script(&mut stream);
    });
    (port, thread)
}

fn to(port: u16, rest: &str) -> Settings {
    settings(&format!("host=127.0.0.1 port={port} user=u password=geheim sslmode=disable {rest}"))
}

/// The body of what a client says first.
fn startup(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut body).unwrap();
    body
}

/// A message of a client.
fn request(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut tag = [0];
    stream.read_exact(&mut tag).unwrap();
    (tag[0], startup(stream))
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend((body.len() as u32 + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

fn authentication(kind: u32, body: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes(), body].concat())
}

/// Lets a client in.
fn greet(stream: &mut TcpStream) {
    startup(stream);
    let mut bytes = authentication(0, b"");
    bytes.extend(message(b'S', b"server_version\x0099\0"));
    bytes.extend(message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]));
    bytes.extend(message(b'Z', b"I"));
    stream.write_all(&bytes).unwrap();
}

/// Reads until the client has gone.
fn wait_for_end(stream: &mut TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

/// What a client makes of a server's first words.
fn refused(rest: &str, script: impl FnOnce(&mut TcpStream) + Send + 'static) -> Error {
    let (port, thread) = serve(script);
    let error = Connection::connect(&to(port, rest), soon()).unwrap_err();
    thread.join().unwrap();
    assert!(!error.to_string().contains("geheim"), "{error}");
    match error {
        Error::Connect(mut attempts) => attempts.remove(0).error,
        error => error,
    }
}

#[test]
fn bad_greetings() {
    let closed = refused("", |stream| drop(startup(stream)));
    assert!(
        matches!(&closed, Error::Closed { problem, .. } if problem == "the server closed it"),
        "{closed}"
    );
    let middle = refused("", |stream| {
        startup(stream);
        stream.write_all(&authentication(0, b"")[..7]).unwrap();
    });
    assert!(
        matches!(&middle, Error::Closed { problem, .. } if problem.contains("in the middle")),
        "{middle}"
    );
    for (bytes, expected) in [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "a message 'H' of"),
        (message(b'E', &vec![b'x'; 100_000]), "a message 'E' of 100000 bytes"),
        (message(b'E', b"Sno end"), "a malformed message 'E'"),
        (message(b'Z', b"I"), "a message 'Z', and nothing was asked"),
        (message(b'R', b"\0"), "a malformed message 'R'"),
        (message(0xff, b""), "an unknown message 0xff"),
        (message(b'v', &[0; 8]), "does not speak version 3.0"),
        ([authentication(0, b""), message(b'D', &[0, 0])].concat(), "a message 'D', and nothing was asked"),
        ([authentication(0, b""), message(b'K', &[0; 7])].concat(), "a malformed message 'K'"),
        (authentication(0, b"").into_iter().chain(message(b'S', b"a\0b\0").repeat(1100)).collect(), "no end"),
        (message(b'S', b"a\0b\0").repeat(100), "asks and asks"),
    ] {
        let error = refused("", move |stream| {
            startup(stream);
            let _ = stream.write_all(&bytes);
            wait_for_end(stream);
        });
        assert!(
            matches!(&error, Error::Protocol(problem) if problem.contains(expected)),
            "{expected}: {error}"
        );
    }
}

#[test]
fn whoever_cannot_prove_to_know_the_password_is_left() {
    const SASL: &[u8] = b"SCRAM-SHA-256\0\0";
    /// Begins SCRAM and hands over the client's nonce.
    fn begin(stream: &mut TcpStream) -> String {
        startup(stream);
        stream.write_all(&authentication(10, SASL)).unwrap();
        let (tag, body) = request(stream);
        assert_eq!(tag, b'p');
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(text.contains("n,,n=,r="), "{text}");
        text.split("r=").nth(1).unwrap().to_owned()
    }
    fn first(nonce: &str, rounds: u32) -> Vec<u8> {
        authentication(11, format!("r={nonce}more,s=c2FsdA==,i={rounds}").as_bytes())
    }
    let method = |error: Error| match error {
        Error::Authentication { method, problem, .. } => (method, problem),
        other => panic!("{other}"),
    };
    let unproved = |script: fn(&mut TcpStream)| {
        let (by, problem) = method(refused("", script));
        assert!(by == "scram-sha-256" && problem.contains("did not prove"), "{problem}");
        problem
    };
    unproved(|stream| {
        begin(stream);
        stream.write_all(&authentication(0, b"")).unwrap();
    });
    unproved(|stream| {
        let nonce = begin(stream);
        stream.write_all(&first(&nonce, 4096)).unwrap();
        request(stream);
        stream.write_all(&authentication(0, b"")).unwrap();
    });
    let wrong = unproved(|stream| {
        let nonce = begin(stream);
        stream.write_all(&first(&nonce, 4096)).unwrap();
        request(stream);
        stream.write_all(&authentication(12, b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")).unwrap();
    });
    assert!(wrong.contains("verification"), "{wrong}");
    let rounds = unproved(|stream| {
        let nonce = begin(stream);
        stream.write_all(&first(&nonce, u32::MAX)).unwrap();
    });
    assert!(rounds.contains("iteration count"), "nobody makes this client calculate for hours: {rounds}");
    unproved(|stream| {
        begin(stream);
        stream.write_all(&first("another", 4096)).unwrap();
    });

    let (_, problem) = method(refused("channel_binding=require", |stream| {
        startup(stream);
        stream.write_all(&authentication(0, b"")).unwrap();
    }));
    assert!(problem.contains("let us in without it"), "{problem}");
    let (_, problem) = method(refused("", |stream| {
        startup(stream);
        stream.write_all(&authentication(10, b"OAUTHBEARER\0\0")).unwrap();
    }));
    assert!(problem.contains("OAUTHBEARER"), "{problem}");
    let (_, problem) = method(refused("", |stream| {
        startup(stream);
        stream.write_all(&authentication(7, b"")).unwrap();
    }));
    assert!(problem.contains("gss"), "{problem}");
    let second = refused("cleartext_password=allow", |stream| {
        startup(stream);
        stream.write_all(&authentication(3, b"")).unwrap();
        let (_, body) = request(stream);
        assert_eq!(body, b"geheim\0");
        stream.write_all(&authentication(3, b"")).unwrap();
    });
    assert!(matches!(second, Error::Protocol(_)), "{second}");
}

#[test]
fn nothing_is_taken_for_encrypted_that_is_not() {
    let tls = |answer: &'static [u8]| {
        let (port, thread) = serve(move |stream| {
            startup(stream);
            stream.write_all(answer).unwrap();
            wait_for_end(stream);
        });
        let settings = settings(&format!("host=127.0.0.1 port={port} user=u sslmode=require"));
        let error = Connection::connect(&settings, soon()).unwrap_err();
        thread.join().unwrap();
        error
    };
    // A whole greeting behind the answer, which nobody may read as if it had been encrypted.
    let stuffed = tls(b"SR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
    assert!(matches!(stuffed, Error::Tls(_)), "{stuffed}");
    let none = tls(b"N");
    assert!(matches!(&none, Error::Tls(problem) if problem.contains("ssl=on")), "{none}");
    let error = tls(b"ESFATAL\0Mdisguised\0\0");
    assert!(!error.to_string().contains("disguised"), "a text of anybody's is not shown: {error}");
    assert!(tls(b"x").to_string().contains("is it a PostgreSQL server?"));
}

/// What a client makes of an answer to a call.
fn answered(bytes: Vec<u8>) -> Result<(), Error> {
    let (port, thread) = serve(move |stream| {
        greet(stream);
        for _ in 0..3 {
            request(stream);
        }
        let _ = stream.write_all(&bytes);
    });
    let mut connection = Connection::connect(&to(port, "message_bytes_max=100000"), soon()).unwrap();
    let requests = connection.requests();
    requests.bind("", "s1", &[], ResultFormat::Text).unwrap();
    requests.execute("", 0).unwrap();
    requests.sync();
    connection.send().unwrap();
    let mut read = || {
        loop {
            match connection.next(soon())? {
                Event::Row(row) => assert!(row.values().count() == row.len() && row.size() <= 100_000),
                Event::Columns(columns) => assert_eq!(columns.iter().count(), columns.len()),
                Event::Ready(_) => return Ok(()),
                _ => {}
            }
        }
    };
    let result: Result<(), Error> = read();
    if let Err(error) = &result {
        assert!(error.ends_connection() && connection.is_over(), "{error}");
        assert!(matches!(connection.ping(soon()), Err(Error::Closed { .. })), "it stays over");
    }
    drop(connection);
    thread.join().unwrap();
    result
}

#[test]
fn bad_answers() {
    let row = |body: &[u8]| [message(b'2', b""), message(b'D', body)].concat();
    for (bytes, expected) in [
        (row(&[0, 1, 0, 0, 0, 9, 1]), "a malformed message 'D'"),
        (row(&[255, 255]), "a malformed message 'D'"),
        (row(&[0, 1, 128, 0, 0, 0]), "a malformed message 'D'"),
        (row(&[0, 0, 0]), "a malformed message 'D'"),
        (message(b'D', &[0, 0]), "a message 'D' instead of an answer to Bind"),
        (message(b'Z', b"I"), "a message 'Z' instead of an answer to Bind"),
        (row(&[0, 0]).into_iter().chain(message(b'1', b"")).collect(), "instead of an answer to Execute"),
        (row(&[0, 0]).into_iter().chain(message(b'W', b"")).collect(), "instead of an answer to Execute"),
        (row(&[0, 0]).into_iter().chain(message(b'R', &[0; 4])).collect(), "instead of an answer to Execute"),
        ([b"2\0\0\0\x04".to_vec(), b"D\0\0\0\x03".to_vec()].concat(), "a length of 3"),
        ([b"2\0\0\0\x04".to_vec(), b"C\xff\xff\xff\xff".to_vec()].concat(), "a length of -1"),
        ([b"2\0\0\0\x04".to_vec(), b"T\x7f\xff\xff\xff".to_vec()].concat(), "more than message_bytes_max"),
        (message(b'Z', b"X"), "a malformed message 'Z'"),
        ([message(b'2', b""), message(b'C', b"SELECT 1")].concat(), "a malformed message 'C'"),
    ] {
        let error = answered(bytes).unwrap_err();
        assert!(
            matches!(&error, Error::Protocol(problem) if problem.contains(expected)),
            "{expected}: {error}"
        );
    }
    for bytes in [b"".to_vec(), b"2\0\0".to_vec(), row(&[0, 1, 0, 0, 0, 1, 7])[..14].to_vec()] {
        let error = answered(bytes).unwrap_err();
        assert!(matches!(&error, Error::Closed { .. }), "{error}");
    }
    // A row of a gigabyte that never comes: nothing is kept for it.
    let error = answered([b"2\0\0\0\x04".to_vec(), b"D\x40\0\0\0".to_vec()].concat()).unwrap_err();
    assert!(matches!(&error, Error::Closed { problem, .. } if problem.contains("in the middle")), "{error}");
}

#[test]
fn what_drips_is_cut_off_by_the_deadline() {
    let (port, thread) = serve(|stream| {
        startup(stream);
        let greeting = message(b'S', b"a\0b\0");
        for byte in greeting.iter().cycle() {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let error = Connection::connect(&to(port, ""), Deadline::after(Duration::from_millis(200))).unwrap_err();
    let Error::Connect(attempts) = error else { panic!("{error}") };
    assert!(matches!(attempts[0].error, Error::TimedOut { .. }), "{}", attempts[0]);
    thread.join().unwrap();
}

#[test]
fn what_comes_without_end_is_cut_off_by_the_deadline() {
    let notice = message(b'N', b"SNOTICE\0C00000\0Mand on\0\0");
    let row = [message(b'2', b""), message(b'D', &[0, 0]).repeat(100)].concat();
    for (begin, again) in [(notice.clone(), notice), (row, message(b'D', &[0, 0]))] {
        let (port, thread) = serve(move |stream| {
            greet(stream);
            let _ = stream.write_all(&begin);
            let many = again.repeat(1000);
            while stream.write_all(&many).is_ok() {}
        });
        let mut connection = Connection::connect(&to(port, ""), soon()).unwrap();
        let short = || Deadline::after(Duration::from_millis(100));
        let requests = connection.requests();
        requests.bind("", "s1", &[], ResultFormat::Text).unwrap();
        requests.execute("", 0).unwrap();
        requests.sync();
        let error = connection.drain(short(), usize::MAX).unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        let next = connection.next(short());
        assert!(matches!(next, Ok(Event::Row(_)) | Err(Error::TimedOut { .. })), "{next:?}");
        assert!(!connection.is_over());
        drop(connection);
        thread.join().unwrap();
    }
    let (port, thread) = serve(|stream| {
        greet(stream);
        let many = message(b'S', b"a\0b\0").repeat(1000);
        while stream.write_all(&many).is_ok() {}
    });
    let mut connection = Connection::connect(&to(port, ""), soon()).unwrap();
    let nothing = connection.wait_notification(Deadline::after(Duration::from_millis(100)));
    assert_eq!(nothing.unwrap(), None);
    drop(connection);
    thread.join().unwrap();
}

#[test]
fn a_session_without_a_key_says_that_it_cannot_be_cancelled() {
    let (port, thread) = serve(|stream| {
        startup(stream);
        let bytes = [authentication(0, b""), message(b'Z', b"I")].concat();
        stream.write_all(&bytes).unwrap();
        wait_for_end(stream);
    });
    let connection = Connection::connect(&to(port, ""), soon()).unwrap();
    assert!(matches!(connection.cancel_handle().cancel(soon()), Err(Error::Misuse(_))));
    drop(connection);
    thread.join().unwrap();
}

/// Messages as servers send them, with anything in them.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let tag = prop_oneof![proptest::sample::select(b"123ACDEGHIKNRSTWZcdnstv".to_vec()), any::<u8>(),];
    let body = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60),
        Just(b"I".to_vec()),
        Just(Vec::new()),
        Just(b"SELECT 1\0".to_vec()),
        Just(vec![0, 1, 0, 0, 0, 1, b'x']),
        Just(b"SERROR\0C22012\0Mno\0\0".to_vec()),
    ];
    let good = (tag, body).prop_map(|(tag, body)| message(tag, &body));
    let raw = proptest::collection::vec(any::<u8>(), 0..30);
    let pieces = proptest::collection::vec(prop_oneof![9 => good, 1 => raw], 0..10);
    // Most begin as an answer would, so that they get somewhere.
    (any::<bool>(), pieces).prop_map(|(begun, pieces)| {
        let mut bytes = if begun { message(b'2', b"") } else { Vec::new() };
        bytes.extend(pieces.concat());
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_answer_ends_in_an_answer_or_an_error(bytes in anything()) {
        // It neither panics nor hangs; that the inbox keeps its bound is checked where it is written.
        let _ = answered(bytes);
    }

    #[test]
    fn any_greeting_ends_in_an_error_or_a_session(bytes in anything(), let_in in any::<bool>()) {
        let (port, thread) = serve(move |stream| {
            startup(stream);
            let greeting = if let_in { authentication(0, b"") } else { Vec::new() };
            let _ = stream.write_all(&[greeting, bytes].concat());
        });
        let _ = Connection::connect(&to(port, ""), soon());
        thread.join().unwrap();
    }
}
