//! From kopid's pipe to standard output.

use super::lines::Form;
use super::record::PacketRecord;
use crate::failure::Failure;
use kopi_pcapng::{Block, Reader};
use std::cell::RefCell;
use std::io::{self, BufWriter, Read, StdoutLock, Write};
use std::rc::Rc;

/// Bytes read at a time: as many as the pipe holds.
const READ: usize = 1 << 16;

/// Prints every packet that comes out of `pipe`, or the first so many, until its end.
///
/// # Errors
///
/// [`Failure::Output`] if standard output takes no more, [`Failure::Packets`] if something comes that is no pcapng.
pub(crate) fn print(pipe: Box<dyn Read>, mut form: Form, limit: Option<u64>) -> Result<(), Failure> {
    let mut left = limit.unwrap_or(u64::MAX);
    let out = Rc::new(RefCell::new(Out { writer: BufWriter::new(io::stdout().lock()), error: None }));
    let source = Source { pipe, chunk: vec![0; READ], read: 0, filled: 0, out: Rc::clone(&out) };
    let mut reader = Reader::new(source);
    let mut ports = Vec::new();
    loop {
        match reader.next() {
            Ok(Some(Block::Section(_))) => ports.clear(),
            Ok(Some(Block::Interface(interface))) => ports.push(interface.name),
            Ok(Some(Block::Packet(_))) if left == 0 => return out.borrow_mut().writer.flush().map_err(Failure::Output),
            Ok(Some(Block::Packet(packet))) => {
                left -= 1;
                let port = usize::try_from(packet.interface).ok().and_then(|at| ports.get(at));
                let line = form.line(&PacketRecord::of(port.map_or("?", String::as_str), &packet));
                out.borrow_mut().writer.write_all(line.as_bytes()).map_err(Failure::Output)?;
            }
            Ok(Some(Block::Statistics(_) | Block::Other(_))) => {}
            Ok(None) => return out.borrow_mut().writer.flush().map_err(Failure::Output),
            Err(error) => {
                let mut out = out.borrow_mut();
                return Err(match out.error.take() {
                    Some(error) => Failure::Output(error),
                    None => {
                        out.writer.flush().map_err(Failure::Output)?;
                        Failure::Packets(error.to_string())
                    }
                });
            }
        }
    }
}

/// Standard output, and what it said when it could not be flushed.
struct Out {
    writer: BufWriter<StdoutLock<'static>>,
    error: Option<io::Error>,
}

/// The pipe. Lines go out before it is waited for: at once if packets are rare, many at a time if they are not.
struct Source {
    pipe: Box<dyn Read>,
    chunk: Vec<u8>,
    read: usize,
    filled: usize,
    out: Rc<RefCell<Out>>,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read == self.filled {
            let mut out = self.out.borrow_mut();
            if let Err(error) = out.writer.flush() {
                out.error = Some(error);
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.filled = self.pipe.read(&mut self.chunk)?;
            self.read = 0;
        }
        let mut rest = self.chunk.get(self.read..self.filled).unwrap_or_default();
        let n = rest.read(buffer)?;
        self.read += n;
        Ok(n)
    }
}
