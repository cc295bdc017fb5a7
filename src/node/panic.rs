//! The end of a process with a bug.

use std::io;
use std::sync::mpsc::channel;
use std::time::Duration;

/// A panic ends the process (a corrupt table is worse than a restart), and says what its core did last.
pub(super) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("a thread").to_owned();
        let text = format!(
            "{}{name} panicked: {panic}\nThis is a bug of Crosspoint. The lines above say what the core did last.\n",
            crate::shard::recorder::dump()
        );
        // Standard error may be a pipe that nobody reads: the process ends all the same.
        let (written, done) = channel();
        let writer = std::thread::Builder::new().spawn(move || {
            use std::io::Write as _;
            let _ = io::stderr().write_all(text.as_bytes());
            let _ = written.send(());
        });
        if writer.is_ok() {
            let _ = done.recv_timeout(Duration::from_secs(1));
        }
        // However the program was built: a router that lost a core is worse than none.
        std::process::abort();
    }));
}
