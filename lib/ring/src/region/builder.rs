//! How a region is made.

use super::{HugePages, Region, count, whole_pages};
use crate::copy::CopyRoutines;
use crate::layout::MAGIC;
use crate::mapping::Mapping;
use crate::pages::{Filling, Guard, HUGE_PAGE, PAGE};
use crate::region_error::{RegionError, system};
use crate::{Geometry, Layout};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::MapFlags;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, Release};

/// A region that is being made. It gets its pages bit by bit, since clearing them takes time.
#[derive(Debug)]
pub struct RegionBuilder {
    pub(super) mapping: Mapping,
    layout: Layout,
    geometry: Geometry,
    pub(super) fd: OwnedFd,
    huge: bool,
    filling: Filling,
    /// Bytes that have their pages.
    filled: usize,
    copies: CopyRoutines,
}

impl RegionBuilder {
    /// Creates, seals and maps a region for `geometry` that has no pages yet, but a right to them if they are huge ones.
    ///
    /// # Errors
    ///
    /// [`RegionError::System`] if address space, file descriptors, or all the huge pages that are required, are short.
    pub fn new(geometry: &Geometry, huge_pages: HugePages) -> Result<Self, RegionError> {
        match huge_pages {
            HugePages::Off => Self::allocate(geometry, false),
            HugePages::Require => Self::allocate(geometry, true),
            HugePages::Auto => Self::allocate(geometry, true).or_else(|_| Self::allocate(geometry, false)),
        }
    }

    fn allocate(geometry: &Geometry, huge: bool) -> Result<Self, RegionError> {
        let layout = geometry.layout();
        let (page, flags) =
            if huge { (HUGE_PAGE, MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB) } else { (PAGE, MemfdFlags::empty()) };
        let size = layout.size.next_multiple_of(page);
        let fd = rustix::fs::memfd_create(c"kopi-region", flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(system("memfd_create"))?;
        rustix::fs::ftruncate(&fd, u64::try_from(size).unwrap_or(u64::MAX)).map_err(system("ftruncate"))?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).map_err(system("sealing"))?;
        let mapping = Mapping::new(&fd, size, MapFlags::empty())?;
        Ok(Self {
            mapping,
            layout,
            geometry: geometry.clone(),
            fd,
            huge,
            filling: Filling::Lock,
            filled: 0,
            copies: CopyRoutines::by_cpuid(),
        })
    }

    /// How frames are to be copied into its rings, if not as the processor recommends.
    #[must_use]
    pub const fn copies(mut self, routines: CopyRoutines) -> Self {
        self.copies = routines;
        self
    }

    /// Bytes that it takes.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.mapping.size
    }

    /// Bytes that have no pages yet.
    #[must_use]
    pub const fn missing(&self) -> usize {
        self.mapping.size.saturating_sub(self.filled)
    }

    /// Whether it lies in huge pages.
    #[must_use]
    pub const fn huge(&self) -> bool {
        self.huge
    }

    /// Gets pages for `bytes` more, rounded up to whole pages. Returns whether that was the rest of them.
    ///
    /// # Errors
    ///
    /// [`RegionError::System`] if memory is short.
    pub fn fill(&mut self, bytes: usize) -> Result<bool, RegionError> {
        let length = whole_pages(bytes).min(self.missing());
        if length > 0 {
            let filled = self.filling.fill(&self.fd, self.mapping.base, self.filled, length);
            filled.map_err(system("filling a region with pages"))?;
            self.filled = self.filled.saturating_add(length);
        }
        Ok(self.missing() == 0)
    }

    /// The region, for a client that speaks version `protocol`. Its pages are watched from now on, and its header says what it
    /// is.
    ///
    /// # Errors
    ///
    /// [`RegionError`] if it has not all its pages, or cannot be watched.
    pub fn finish(self, protocol: u16) -> Result<Region, RegionError> {
        if self.missing() > 0 {
            return Err(RegionError::Mismatch("it has not all its pages"));
        }
        let Self { mut mapping, layout, geometry, fd, huge, filling, copies, .. } = self;
        if filling == Filling::Allocate {
            mapping = Mapping::new(&fd, mapping.size, MapFlags::POPULATE)?;
        }
        let page = if huge { HUGE_PAGE } else { PAGE };
        mapping.guard = Some(Guard::new(mapping.base, mapping.size, page, huge || filling == Filling::Lock)?);
        let header = mapping.header();
        let write = |sizes: &[u32], to: &[AtomicU32]| sizes.iter().zip(to).for_each(|(s, t)| t.store(*s, Relaxed));
        write(geometry.tx(), &header.tx_sizes);
        write(geometry.rx(), &header.rx_sizes);
        header.slot_size.store(geometry.slot_size(), Relaxed);
        header.tx_rings.store(count(geometry.tx()), Relaxed);
        header.rx_rings.store(count(geometry.rx()), Relaxed);
        header.tx_copy.store(copies.tx.code(), Relaxed);
        header.version.store(protocol.into(), Relaxed);
        header.magic.store(MAGIC, Release);
        Ok(Region { mapping: Arc::new(mapping), layout, geometry, fd, huge, copies })
    }
}
