//! What a log of the recorder looks like: shared by the recorder, which writes it, and the simulator, which makes a trace of it.
//!
//! A log is a header and then records, each three little-endian words. Records are numbered by one atomic addition each, so their
//! order is one in which the program's requests can have happened: an allocation is written after it has returned, a free before it is
//! passed on. A record whose first byte of the second word is zero was never finished (the process died in it).

/// First bytes of a log.
pub const MAGIC: [u8; 8] = *b"HAKRAW01";
/// Bytes of the header: the magic, then the program's name, filled up with zeros.
pub const HEADER_BYTES: usize = 64;
/// Where the name begins in it.
pub const NAME_OFFSET: usize = 16;
/// Bytes of a record.
pub const RECORD_BYTES: usize = 24;
/// Bits of an address; the thread's number lies above them in the first word.
pub const ADDRESS_BITS: u32 = 48;
/// The number of all threads that came too late for one of their own: no trace is made of a log in which it occurs.
pub const UNNUMBERED: u16 = u16::MAX;
/// Bits of the time in nanoseconds; what happened lies above them in the second word.
pub const TIME_BITS: u32 = 56;

/// A block was handed out: its address, the bytes asked for.
pub const ALLOC: u8 = 1;
/// A block is about to come back: its address.
pub const FREE: u8 = 2;
/// A block is about to change its size: its address.
pub const RESIZE: u8 = 3;
/// It has: its new address (0: refused, or freed if the size is 0), the bytes asked for. Pairs with the thread's last [`RESIZE`].
pub const RESIZED: u8 = 4;
