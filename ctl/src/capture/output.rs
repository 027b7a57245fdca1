//! Where packets go: files, standard output, or lines.

use super::finished::Finished;
use super::lines::Form;
use super::printer;
use super::rotation::Rotation;
use super::stamp::Stamp;
use crate::arguments::Capture;
use crate::failure::Failure;
use crate::print::{Dump, Style};
use jiff::ZonedDateTime;
use jiff::tz::TimeZone;
use rustix::fd::{AsFd, OwnedFd};
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// Bytes that are asked for in the pipe between kopid and the printer, so that a burst does not have to wait.
const PIPE: usize = 1 << 20;

/// Where packets go.
#[derive(Debug)]
pub(crate) enum Output {
    /// Files, one after the other.
    Files(Box<Files>),
    /// Standard output, as pcapng.
    Stream,
    /// Standard output, as lines.
    Lines(Box<Form>),
}

/// Files, one after the other.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) rotation: Rotation,
    current: PathBuf,
    /// The one before, which kopid may still write to.
    before: Option<PathBuf>,
    finished: Finished,
}

/// What kopid is to write to, and what is to be watched meanwhile.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: OwnedFd,
    /// Writing ends whose readers may go.
    pub(crate) watched: Vec<OwnedFd>,
    pub(crate) printer: Option<Printer>,
}

/// The thread that makes lines of packets. It gives back what is watched of it if it has printed all of them.
pub(crate) type Printer = JoinHandle<Result<UnixStream, Failure>>;

impl Output {
    /// What the options ask for.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] if they do not go together.
    pub(crate) fn of(options: &Capture, json: bool) -> Result<Self, Failure> {
        let usage = |text: &str| Err(Failure::Usage(text.into()));
        let output = &options.output;
        let rotates = output.file_size.is_some() || output.file_seconds.is_some();
        if output.command.is_some() && !rotates {
            return usage("-z is for the files of -C or -G");
        }
        match output.file.as_deref() {
            None => Ok(Self::Lines(Box::new(form(options, json)))),
            Some(file) if file == Path::new("-") => match () {
                () if rotates => usage("-C and -G need a file, and standard output is none"),
                () if json => usage("--json has no place beside -w -"),
                () if io::stdout().is_terminal() => {
                    usage("pcapng is nothing for a terminal: let -w - go into a pipe or file")
                }
                () => Ok(Self::Stream),
            },
            Some(_) if output.file_count.is_some() && !rotates => usage("-W limits the files of -C or -G"),
            Some(file) => {
                let by_size = output.file_size.is_some();
                let rotation =
                    Rotation::new(file, by_size, output.file_seconds, output.file_count, &ZonedDateTime::now());
                let rotation =
                    rotation.map_err(|reason| Failure::Usage(format!("the time in {}: {reason}", file.display())))?;
                let current = rotation.name();
                let finished = Finished::new(output.command.clone());
                Ok(Self::Files(Box::new(Files { rotation, current, before: None, finished })))
            }
        }
    }

    /// Opens what kopid is to write to. A FIFO waits for its reader here.
    ///
    /// # Errors
    ///
    /// [`Failure`] if that cannot be had.
    pub(crate) fn open(self) -> Result<(Opened, Option<Box<Files>>), Failure> {
        let system = |error: io::Error| Failure::System { what: "make a pipe", error };
        let stdout = || io::stdout().as_fd().try_clone_to_owned().map_err(Failure::Output);
        match self {
            Self::Files(files) => {
                let (file, watched) = open_file(&files.current)?;
                Ok((Opened { file, watched, printer: None }, Some(files)))
            }
            Self::Stream => Ok((Opened { file: stdout()?, watched: vec![stdout()?], printer: None }, None)),
            Self::Lines(form) => {
                let (reader, writer) = io::pipe().map_err(system)?;
                // A limit of the system only makes bursts wait longer.
                rustix::pipe::fcntl_setpipe_size(&writer, PIPE).unwrap_or(0);
                let (alive, watched) = UnixStream::pair().map_err(system)?;
                // Closed when the thread ends, unless it is because kopid has ended the stream: then kopid says the rest.
                let printer = std::thread::spawn(move || printer::print(Box::new(reader), *form, None).map(|()| alive));
                let watched = vec![stdout()?, watched.into()];
                Ok((Opened { file: writer.into(), watched, printer: Some(printer) }, None))
            }
        }
    }
}

impl Files {
    /// Opens the next file, by its name now.
    ///
    /// # Errors
    ///
    /// [`Failure::File`] if it cannot be opened.
    pub(crate) fn next(&mut self) -> Result<OwnedFd, Failure> {
        let name = self.rotation.name();
        if name == self.current && name.is_file() {
            // kopid still writes to the file of this name, and must not write into the new one.
            std::fs::remove_file(&name).map_err(|error| failed(&name, &error))?;
        }
        let (file, _) = open_file(&name)?;
        self.before = Some(std::mem::replace(&mut self.current, name));
        Ok(file)
    }

    /// kopid has gone on with the current file, so the one before is complete.
    pub(crate) fn replaced(&mut self) {
        if let Some(before) = self.before.take() {
            self.finished.run(&before);
        }
    }

    /// All files are complete.
    pub(crate) fn end(mut self) {
        self.replaced();
        self.finished.run(&self.current);
        self.finished.wait();
    }
}

/// Opens a file for kopid, with the rights of whoever runs this, and as another one to watch what is not regular.
pub(crate) fn open_file(path: &Path) -> Result<(OwnedFd, Vec<OwnedFd>), Failure> {
    let opened = File::create(path).and_then(|file| {
        let regular = file.metadata()?.is_file();
        let watched = if regular { Vec::new() } else { vec![file.try_clone()?.into()] };
        Ok((file.into(), watched))
    });
    opened.map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::File { path: path.into(), reason: error.to_string() }
}

/// How packets are shown.
pub(super) fn form(options: &Capture, json: bool) -> Form {
    let printing = &options.printing;
    let forms =
        [(Dump::HexAscii, printing.hex_ascii), (Dump::Hex, printing.hex), (Dump::Ascii, u8::from(printing.ascii))];
    let dump = forms.into_iter().find(|(_, times)| *times > 0).map(|(form, times)| (form, times > 1));
    // A line of JSON has everything in its fields, so its text is the short one.
    let verbose = if json { 0 } else { printing.verbose.min(1) };
    let style = Style { link: printing.link && !json, verbose, quick: printing.quick };
    let number = (printing.number && !json).then_some(0);
    Form { style, dump, number, stamp: Stamp::new(printing.time, TimeZone::system()), json }
}
