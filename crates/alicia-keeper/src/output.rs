//! From the pipes of an instance to its log file.
//!
//! [`Pipe`] cuts bytes into lines, [`Flood`] decides which may pass, [`LogFile`] writes them. No fault of a
//! disk reaches the loop: what cannot be written is counted, and a marker line says so when it can.

mod flood;
mod log_file;
mod pipe;

pub(crate) use log_file::{Batch, LogFile, LogState, Trouble};
pub(crate) use pipe::{Cutter, Pipe, Turn};
