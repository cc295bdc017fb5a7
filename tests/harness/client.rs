//! Clients: RawSocket and WebSocket with JSON, blocking, a message at a time.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tungstenite::protocol::{WebSocket, WebSocketConfig};
use tungstenite::{ClientRequestBuilder, Message};

use super::PATIENCE;

/// What a client received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A WAMP message.
    Message(String),
    /// The link ended in the orderly way: WebSocket's Close with its code, or the end of the stream.
    Closed(Option<u16>),
    /// The connection was reset.
    Reset,
    /// Nothing came in time.
    Nothing,
}

impl Received {
    /// The message; fails if it is none.
    pub fn message(self) -> String {
        match self {
            Self::Message(text) => text,
            other => panic!("expected a message, got {other:?}"),
        }
    }
}

/// A stream of bytes.
pub trait Stream: Read + Write + Send {
    fn set_patience(&self, patience: Duration) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience))
    }
}

impl Stream for UnixStream {
    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience))
    }
}

fn hello(realm: &str) -> String {
    format!(r#"[1,"{realm}",{{"roles":{{"caller":{{}},"callee":{{}},"publisher":{{}},"subscriber":{{}}}}}}]"#)
}

/// A client over RawSocket (specification, RawSocket transport).
pub struct Client {
    stream: Box<dyn Stream>,
    partial: Vec<u8>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// A link, and no session.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        Self::handshake(Box::new(stream), PATIENCE)
    }

    /// A session whose kernel takes little of what it does not read.
    pub fn join_with_small_buffer(address: SocketAddr, realm: &str) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).unwrap();
        Self::handshake(Box::new(TcpStream::from(socket)), PATIENCE).unwrap().with_session(realm).unwrap()
    }

    /// A link over a Unix socket, and no session.
    pub fn connect_unix(path: &Path) -> io::Result<Self> {
        Self::handshake(Box::new(UnixStream::connect(path)?), PATIENCE)
    }

    fn handshake(mut stream: Box<dyn Stream>, patience: Duration) -> io::Result<Self> {
        stream.set_patience(patience)?;
        // The longest messages, and JSON.
        stream.write_all(&[0x7F, 0xF1, 0, 0])?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        if answer[0] != 0x7F || answer[1] & 0x0F != 1 {
            return Err(io::Error::other(format!("the answer to the handshake is {answer:x?}")));
        }
        Ok(Self { stream, partial: Vec::new() })
    }

    /// A session.
    pub fn join(address: SocketAddr, realm: &str) -> Self {
        Self::try_join(address, realm).unwrap()
    }

    /// A session, and its id.
    pub fn join_and_tell(address: SocketAddr, realm: &str) -> (Self, u64) {
        let mut client = Self::connect(address).unwrap();
        client.send(&hello(realm));
        let welcome = client.receive().message();
        let id = welcome.strip_prefix("[2,").and_then(|rest| rest.split(',').next());
        let id = id.and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("no WELCOME: {welcome}"));
        (client, id)
    }

    pub fn try_join(address: SocketAddr, realm: &str) -> io::Result<Self> {
        Self::connect(address)?.with_session(realm)
    }

    /// Says HELLO and waits for WELCOME.
    pub fn with_session(mut self, realm: &str) -> io::Result<Self> {
        self.try_send(&hello(realm))?;
        match self.receive() {
            Received::Message(text) if text.starts_with("[2,") => Ok(self),
            other => Err(io::Error::other(format!("expected WELCOME, got {other:?}"))),
        }
    }

    pub fn send(&mut self, message: &str) {
        self.try_send(message).unwrap();
    }

    pub fn try_send(&mut self, message: &str) -> io::Result<()> {
        let mut frame = (message.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(message.as_bytes());
        self.stream.write_all(&frame)
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub fn receive(&mut self) -> Received {
        self.receive_within(PATIENCE)
    }

    pub fn receive_within(&mut self, patience: Duration) -> Received {
        self.stream.set_patience(patience).unwrap();
        match self.frame() {
            Ok(Some((0, payload))) => Received::Message(String::from_utf8(payload).unwrap()),
            Ok(Some(other)) => panic!("a frame that is no message: {other:?}"),
            Ok(None) => Received::Closed(None),
            Err(error) if is_timeout(&error) => Received::Nothing,
            Err(_) => Received::Reset,
        }
    }

    /// Sends a request and receives its answer.
    pub fn ask(&mut self, message: &str) -> String {
        self.send(message);
        self.receive().message()
    }

    /// The next frame; `None` at the end of the stream.
    fn frame(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        loop {
            if let Some(head) = self.partial.first_chunk::<4>() {
                let length = (u32::from_be_bytes(*head) & 0x00FF_FFFF) as usize;
                if self.partial.len() >= 4 + length {
                    let kind = self.partial[0];
                    let rest = self.partial.split_off(4 + length);
                    let payload = std::mem::replace(&mut self.partial, rest).split_off(4);
                    return Ok(Some((kind, payload)));
                }
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer)? {
                0 => return Ok(None),
                count => self.partial.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A client over WebSocket.
pub struct WebSocketClient {
    socket: WebSocket<TcpStream>,
    /// Pings that it answered while it received.
    pub pings: usize,
}

impl fmt::Debug for WebSocketClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketClient").finish_non_exhaustive()
    }
}

impl WebSocketClient {
    /// A link at `/ws` with this subprotocol and these further headers, and no session.
    pub fn connect(address: SocketAddr, headers: &[(&str, &str)]) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let uri = format!("ws://{address}/ws").parse().map_err(io::Error::other)?;
        let mut request = ClientRequestBuilder::new(uri).with_sub_protocol("wamp.2.json");
        for (name, value) in headers {
            request = request.with_header(*name, *value);
        }
        let mut config = WebSocketConfig::default();
        // A test may have thousands.
        config.read_buffer_size = 512;
        config.write_buffer_size = 0;
        let (socket, _) = tungstenite::client::client_with_config(request, stream, Some(config))
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { socket, pings: 0 })
    }

    /// A session.
    pub fn join(address: SocketAddr, realm: &str) -> Self {
        let mut client = Self::connect(address, &[]).unwrap();
        client.send(&hello(realm));
        let welcome = client.receive().message();
        assert!(welcome.starts_with("[2,"), "{welcome}");
        client
    }

    /// Sends a request and receives its answer.
    pub fn ask(&mut self, message: &str) -> String {
        self.send(message);
        self.receive().message()
    }

    pub fn send(&mut self, message: &str) {
        self.socket.send(Message::text(message)).unwrap();
    }

    pub fn receive(&mut self) -> Received {
        self.receive_within(PATIENCE)
    }

    pub fn receive_within(&mut self, patience: Duration) -> Received {
        self.socket.get_ref().set_read_timeout(Some(patience)).unwrap();
        loop {
            match self.socket.read() {
                // The answer leaves with the next read.
                Ok(Message::Ping(_)) => self.pings += 1,
                Ok(Message::Text(text)) => return Received::Message(text.to_string()),
                Ok(Message::Close(frame)) => return Received::Closed(frame.map(|frame| frame.code.into())),
                Ok(_) => {}
                Err(tungstenite::Error::ConnectionClosed) => return Received::Closed(None),
                Err(tungstenite::Error::Io(error)) if is_timeout(&error) => return Received::Nothing,
                Err(_) => return Received::Reset,
            }
        }
    }
}
