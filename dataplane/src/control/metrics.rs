//! Figures for Prometheus: OpenMetrics over HTTP, at an address or a Unix socket.
//!
//! A thread of its own, `kopi-metrics`, serves whoever connects, and waits for none of them: sockets do not block, every step of a
//! connection has a deadline, and connections, requests and threads are bounded (`server`). For each answer it asks the control
//! thread for numbers (`figures`), in its turn among the operators, and writes them as text by itself (`encode`, whose metrics
//! `families` declares). Workers know nothing of it.
//!
//! Of HTTP there is what a scrape needs (`http`): `httparse` reads the head of a request, and a connection carries one. A framework
//! for servers would bring a runtime of its own into a process that is about its threads.

mod connection;
mod encode;
mod families;
mod figures;
mod http;
mod listener;
mod server;
#[cfg(test)]
mod tests;

pub use listener::MetricsListener;

use crate::control::helper::Wake;
use crate::control::server::Asker;
use kopi_config::Metrics;
use server::Server;
use std::thread::JoinHandle;

/// The thread that serves metrics, if the configuration asks for it. It ends with its value.
#[derive(Debug)]
pub struct MetricsServer(Option<(Wake, JoinHandle<()>)>);

impl MetricsServer {
    /// Serves whoever connects to `listener`, if there is one, with what `asker` gets.
    ///
    /// # Errors
    ///
    /// The system's, if there is no thread or file descriptor to be had.
    pub fn start(
        listener: Option<MetricsListener>,
        config: &Metrics,
        asker: impl FnOnce() -> Asker,
    ) -> std::io::Result<Self> {
        let Some(listener) = listener else { return Ok(Self(None)) };
        let leave = Wake::new()?;
        let server = Server::new(listener, leave.clone(), asker(), config.clone());
        // It inherits the control thread's CPUs: those without a worker, if there are any.
        let thread = std::thread::Builder::new().name("kopi-metrics".to_owned()).spawn(move || server.run())?;
        Ok(Self(Some((leave, thread))))
    }
}

impl Drop for MetricsServer {
    /// Ends the thread, which waits for nobody who is connected.
    fn drop(&mut self) {
        let Some((leave, thread)) = self.0.take() else { return };
        leave.wake();
        if thread.join().is_err() {
            log::error!("the thread that serves metrics had panicked");
        }
    }
}
