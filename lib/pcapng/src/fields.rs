//! Numbers, timestamps and options within a block, in both byte orders.

use crate::block::{option, padding};
use crate::error::ReadError;

/// The order of the bytes in a section's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Little,
    Big,
}

impl Order {
    pub(crate) fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    pub(crate) fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    fn u64(self, bytes: [u8; 8]) -> u64 {
        match self {
            Self::Little => u64::from_le_bytes(bytes),
            Self::Big => u64::from_be_bytes(bytes),
        }
    }

    /// Two words, the upper one first in either order.
    fn timestamp(self, bytes: [u8; 8]) -> u64 {
        let [a, b, c, d, e, f, g, h] = bytes;
        u64::from(self.u32([a, b, c, d])) << 32 | u64::from(self.u32([e, f, g, h]))
    }
}

/// What has not been read yet of a block's body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    order: Order,
    /// The type of the block, for errors.
    kind: u32,
}

impl<'a> Fields<'a> {
    /// Starts at the begin of `body`, which is the block without its type and its two lengths.
    pub(crate) fn new(body: &'a [u8], order: Order, kind: u32) -> Self {
        Self { rest: body, order, kind }
    }

    pub(crate) fn u16(&mut self) -> Result<u16, ReadError> {
        Ok(self.order.u16(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ReadError> {
        Ok(self.order.u32(self.array()?))
    }

    pub(crate) fn timestamp(&mut self) -> Result<u64, ReadError> {
        Ok(self.order.timestamp(self.array()?))
    }

    /// Takes `len` bytes and the padding after them.
    pub(crate) fn padded(&mut self, len: usize) -> Result<&'a [u8], ReadError> {
        let short = ReadError::Short { kind: self.kind };
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(short)?;
        self.rest = rest;
        self.skip(padding(len))?;
        Ok(bytes)
    }

    pub(crate) fn skip(&mut self, len: usize) -> Result<(), ReadError> {
        self.rest = self.rest.get(len..).ok_or(ReadError::Short { kind: self.kind })?;
        Ok(())
    }

    /// Takes the next option. `None` at the mark behind the last one or the end of the block, where to stop asking.
    pub(crate) fn option(&mut self) -> Result<Option<Opt<'a>>, ReadError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let code = self.u16()?;
        let len = self.u16()?;
        if code == option::END {
            return Ok(None);
        }
        let value = self.padded(usize::from(len))?;
        Ok(Some(Opt { code, value, order: self.order, kind: self.kind }))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(ReadError::Short { kind: self.kind })?;
        self.rest = rest;
        Ok(*bytes)
    }
}

/// One option. What it holds is only looked at by those who know its code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opt<'a> {
    pub(crate) code: u16,
    pub(crate) value: &'a [u8],
    order: Order,
    kind: u32,
}

impl<'a> Opt<'a> {
    pub(crate) fn u32(self) -> Result<u32, ReadError> {
        Ok(self.order.u32(self.array()?))
    }

    pub(crate) fn u64(self) -> Result<u64, ReadError> {
        Ok(self.order.u64(self.array()?))
    }

    pub(crate) fn i64(self) -> Result<i64, ReadError> {
        Ok(self.u64()?.cast_signed())
    }

    pub(crate) fn timestamp(self) -> Result<u64, ReadError> {
        Ok(self.order.timestamp(self.array()?))
    }

    pub(crate) fn text(self) -> Result<&'a str, ReadError> {
        self.text_of(self.value)
    }

    /// `bytes` of the value, as a text. It ends at a NUL, by which some writers end it.
    pub(crate) fn text_of(self, bytes: &'a [u8]) -> Result<&'a str, ReadError> {
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        str::from_utf8(&bytes[..end]).map_err(|_| self.malformed())
    }

    /// The value, if it is as long as it has to be.
    pub(crate) fn array<const N: usize>(self) -> Result<[u8; N], ReadError> {
        self.value.try_into().map_err(|_| self.malformed())
    }

    pub(crate) fn malformed(self) -> ReadError {
        ReadError::Option { kind: self.kind, code: self.code }
    }
}
