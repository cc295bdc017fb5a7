//! Cancels what a session runs, from another thread.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{BufMut, BytesMut};

use super::connect::{Address, Encryption, dial, encrypt};
use super::deadline::Deadline;
use super::error::Error;

/// The code that stands where other connections have their version.
const CANCEL_REQUEST: i32 = 80_877_102;
/// What a server may say to it before it closes: an old one may complain.
const ANSWER_BYTES_MAX: usize = 4096;

/// Where a session is, and the key by which its statements are cancelled.
pub(super) struct Target {
    pub(super) address: Address,
    encryption: Option<Encryption>,
    user_timeout: Duration,
    process_id: i32,
    secret: Vec<u8>,
    pub(super) given_up: Arc<AtomicBool>,
}

impl Target {
    pub(super) fn new(address: Address, encryption: Option<Encryption>, user_timeout: Duration) -> Self {
        Self {
            address,
            encryption,
            user_timeout,
            process_id: 0,
            secret: Vec::new(),
            given_up: Arc::default(),
        }
    }

    pub(super) fn set_key(&mut self, process_id: i32, secret: Vec<u8>) {
        self.process_id = process_id;
        self.secret = secret;
    }
}

/// What cancels the statement that a session runs; any thread may have one.
#[derive(Clone)]
pub struct CancelHandle(Arc<Target>);

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelHandle")
            .field("address", &self.0.address)
            .field("process_id", &self.0.process_id)
            .finish_non_exhaustive()
    }
}

impl CancelHandle {
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self(target)
    }

    /// Ends the session from this side alone, for a server that says nothing: who waits for its answers is told within a
    /// second or so that there is no connection any more.
    pub fn give_up(&self) {
        self.0.given_up.store(true, Ordering::Relaxed);
    }

    /// Asks the server to cancel whatever the session runs now, and waits until it has.
    ///
    /// The server acts on it before it closes this connection of its own. So once this returns, whatever comes next on the
    /// session is safe from it; until then the session must not begin anything else, and after an error the session is
    /// better closed than used again. Whether anything was cancelled shows on the session alone: a statement that was not
    /// yet begun, or is over, is not touched, so the one who waits for its end asks again.
    ///
    /// # Errors
    /// The server cannot be reached, or the deadline passed.
    pub fn cancel(&self, deadline: Deadline) -> Result<(), Error> {
        let target = &*self.0;
        if target.secret.is_empty() {
            return Err(Error::Misuse("the server gave no key to cancel by"));
        }
        let mut stream = dial(&target.address, None, target.user_timeout, deadline)?;
        if let Some(encryption) = &target.encryption
            && !encrypt(&mut stream, encryption, deadline)?
        {
            return Err(Error::Tls(
                "the server had it for the session, and has none to cancel it".to_owned(),
            ));
        }
        let length = i32::try_from(12 + target.secret.len())
            .map_err(|_| Error::Misuse("the key to cancel by is too long"))?;
        let mut request = BytesMut::with_capacity(32);
        request.put_i32(length);
        request.put_i32(CANCEL_REQUEST);
        request.put_i32(target.process_id);
        request.extend_from_slice(&target.secret);
        stream.send_all(&mut request, deadline)?;
        let mut answer = [0; 256];
        let mut bytes = 0;
        loop {
            match stream.receive(&mut request, &mut answer, deadline, "the server to cancel") {
                Ok(0) => return Ok(()),
                Ok(more) => bytes += more,
                // It was reset: closed all the same.
                Err(Error::Closed { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
            if bytes > ANSWER_BYTES_MAX {
                return Err(Error::protocol("the server has much to say to a request to cancel"));
            }
        }
    }
}
