//! One look at kopid: what it answers to the five questions of `top`.

use crate::client::{Client, Request};
use crate::failure::Failure;
use kopi_api::{App, Class, Drops, Port, Status};
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::time::Instant;

/// Rows, and when kopid had them.
#[derive(Clone, Debug)]
pub(crate) struct Answer<T> {
    pub(crate) rows: Vec<T>,
    /// The middle between question and answer: kopid says no time of its own, and is on the same machine.
    pub(crate) at: Instant,
}

/// One look.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) status: Answer<Status>,
    pub(crate) ports: Answer<Port>,
    pub(crate) apps: Answer<App>,
    pub(crate) classes: Answer<Class>,
    pub(crate) drops: Answer<Drops>,
}

/// Who is asked. Connects anew after a failure.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    client: Option<Client>,
}

impl Source {
    /// The daemon behind the socket at `path`, which is not asked yet.
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { path, client: None }
    }

    /// Asks everything.
    ///
    /// # Errors
    ///
    /// [`Failure`] of the first question that is not answered.
    pub(crate) fn sample(&mut self) -> Result<Sample, Failure> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&self.path)?,
        };
        let sample = Sample {
            status: ask(&mut client, "status")?,
            ports: ask(&mut client, "stats")?,
            apps: ask(&mut client, "apps")?,
            classes: ask(&mut client, "classes")?,
            drops: ask(&mut client, "drops")?,
        };
        self.client = Some(client);
        Ok(sample)
    }
}

fn ask<T: DeserializeOwned>(client: &mut Client, command: &str) -> Result<Answer<T>, Failure> {
    let asked = Instant::now();
    let rows = client.rows(&Request::plain(command))?;
    Ok(Answer { rows, at: asked + asked.elapsed() / 2 })
}

impl Sample {
    /// Whether `old` is of the same daemon: counters of another one have nothing to do with these.
    pub(crate) fn goes_on_from(&self, old: &Self) -> bool {
        let of = |sample: &Self| sample.status.rows.first().map(|status| (status.pid, status.uptime_seconds));
        match (of(old), of(self)) {
            (Some((old_pid, old_uptime)), Some((pid, uptime))) => old_pid == pid && old_uptime <= uptime,
            _ => false,
        }
    }
}
