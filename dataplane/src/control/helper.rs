//! Threads that do one thing at a time for the control thread, which asks, goes on, and finds the answer later.
//!
//! They are for what may take as long as somebody else likes: a name service that does not answer, a file where nobody serves it,
//! lists of the kernel's that are as long as users make them. Whoever hangs there hangs alone.

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// An eventfd by which threads of kopid's wake each other. It never leaves kopid.
#[derive(Clone, Debug)]
pub struct Wake(Arc<OwnedFd>);

impl Wake {
    /// One that nobody has used yet.
    ///
    /// # Errors
    ///
    /// The kernel's, when file descriptors are short.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Makes it readable.
    pub fn wake(&self) {
        let _written = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    /// Makes it unreadable. What is to be seen by a look after this needs no other call.
    pub fn clear(&self) {
        let _read = rustix::io::read(&*self.0, &mut [0; 8]);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A thread that answers questions, one after the other. It ends when nobody has this any more, once it is done with the last.
#[derive(Debug)]
pub struct Helper<Q, A> {
    questions: SyncSender<Q>,
    answers: Receiver<A>,
    /// When it was asked what it has not answered yet.
    asked: Option<Instant>,
}

impl<Q: Send + 'static, A: Send + 'static> Helper<Q, A> {
    /// Starts a thread `name` that answers by `work`, and then uses `wake`.
    ///
    /// # Errors
    ///
    /// The system's, if there is no thread to be had.
    pub fn start(name: &str, wake: Wake, mut work: impl FnMut(Q) -> A + Send + 'static) -> std::io::Result<Self> {
        let (questions, asked) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        // It inherits the control thread's CPUs: those without a worker, if there are any.
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            for question in asked {
                if answer.send(work(question)).is_err() {
                    return;
                }
                wake.wake();
            }
        })?;
        Ok(Self { questions, answers, asked: None })
    }

    /// Asks, if everything before has been answered; returns whether it has.
    pub fn ask(&mut self, question: Q) -> bool {
        let free = self.asked.is_none() && self.questions.try_send(question).is_ok();
        if free {
            self.asked = Some(Instant::now());
        }
        free
    }

    /// The answer, once.
    pub fn answer(&mut self) -> Option<A> {
        let answer = self.answers.try_recv().ok()?;
        self.asked = None;
        Some(answer)
    }

    /// For how long the answer has been waited for; `None` if none is.
    #[must_use]
    pub fn waits(&self) -> Option<Duration> {
        self.asked.map(|asked| asked.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// Whoever asks goes on, asks nothing else meanwhile, and finds the answer once it is there.
    #[test]
    fn who_asks_does_not_wait() {
        let wake = Wake::new().unwrap();
        let (go, held) = channel();
        let mut helper = Helper::start("kopi-test", wake.clone(), move |number: u32| {
            held.recv().unwrap();
            number + 1
        })
        .unwrap();
        let readable = || rustix::io::read(&wake, &mut [0; 8]).is_ok();
        assert!(helper.ask(1) && !helper.ask(2));
        assert!(helper.answer().is_none() && helper.waits().is_some() && !readable());
        go.send(()).unwrap();
        let begun = Instant::now();
        let answer = loop {
            if let Some(answer) = helper.answer() {
                break answer;
            }
            assert!(begun.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        };
        assert_eq!((answer, helper.waits()), (2, None));
        assert!(helper.ask(3));
        while !readable() {
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
    }
}
