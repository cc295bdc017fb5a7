//! What glommio has under way on this thread: timers, files, blocking calls.
//!
//! While nothing is counted here the shard blocks the executor's thread in its own epoll, and whatever glommio had to do would
//! starve for ever. So each operation goes through [`while_pending`].

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::task::{Context, Poll, Waker};

thread_local! {
    static STATE: State = const { State { count: Cell::new(0), ended: Cell::new(false), waiter: Cell::new(None) } };
}

struct State {
    /// Operations under way.
    count: Cell<usize>,
    /// One of them has ended since the shard last waited.
    ended: Cell<bool>,
    /// The shard, while it waits.
    waiter: Cell<Option<Waker>>,
}

/// One operation, from the time that it is made until it is dropped. It counts on the thread where it began.
struct Pending(PhantomData<*const ()>);

impl Pending {
    fn begin() -> Self {
        STATE.with(|state| state.count.set(state.count.get() + 1));
        Self(PhantomData)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        STATE.with(|state| {
            state.count.set(state.count.get() - 1);
            state.ended.set(true);
            if let Some(waiter) = state.waiter.take() {
                waiter.wake();
            }
        });
    }
}

/// Lets glommio do something while the shard of this thread takes its turns: every timer, file and blocking call of glommio goes
/// through here, in a task of its own (`glommio::spawn_local`). It counts from this call on and not from the first poll,
/// for nobody polls a task beside a shard that blocks. When it has ended the shard takes a turn, and finds what it left.
///
/// Not for what may never end, such as a channel that is waited on: the shard would never sleep in its own epoll again.
pub fn while_pending<F: Future>(operation: F) -> impl Future<Output = F::Output> {
    let pending = Pending::begin();
    async move {
        let output = operation.await;
        drop(pending);
        output
    }
}

/// Whether glommio has something to do on this thread.
pub(super) fn is_any() -> bool {
    STATE.with(|state| state.count.get() > 0)
}

/// Waits until `poll` is ready, or an operation ends.
pub(super) async fn ended_or(mut poll: impl FnMut(&mut Context<'_>) -> Poll<()>) {
    poll_fn(|context| {
        STATE.with(|state| {
            if state.ended.take() {
                return Poll::Ready(());
            }
            state.waiter.set(Some(context.waker().clone()));
            poll(context)
        })
    })
    .await;
    STATE.with(|state| state.waiter.take());
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;

    use super::*;

    #[test]
    fn an_operation_counts_until_it_ends_or_is_dropped() {
        let mut context = Context::from_waker(Waker::noop());
        assert!(!is_any());
        let mut at_once = pin!(while_pending(ready(7)));
        assert!(is_any(), "nobody polls it before it counts");
        assert_eq!(at_once.as_mut().poll(&mut context), Poll::Ready(7));
        assert!(!is_any());
        let never = while_pending(pending::<()>());
        let other = while_pending(pending::<()>());
        drop(never);
        assert!(is_any());
        drop(other);
        assert!(!is_any());
    }

    #[test]
    fn the_end_of_an_operation_ends_a_wait() {
        let mut context = Context::from_waker(Waker::noop());
        let operation = while_pending(pending::<()>());
        let mut wait = pin!(ended_or(|_| Poll::Pending));
        assert_eq!(wait.as_mut().poll(&mut context), Poll::Pending);
        drop(operation);
        assert_eq!(wait.as_mut().poll(&mut context), Poll::Ready(()));
        let mut next = pin!(ended_or(|_| Poll::Pending));
        assert_eq!(next.as_mut().poll(&mut context), Poll::Pending);
    }
}
