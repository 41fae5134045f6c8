//! What an epoll event belongs to, packed into the 64 bits that the kernel keeps for us.

use rustix::event::epoll::{Event, EventData};

/// Bits for the number; the kind is above them. Runs are milliseconds since 1970: 41 bits until 2039.
const NUMBER_BITS: u32 = 56;
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;

/// What an event belongs to, in the order in which events of one turn are handled. A token whose owner is
/// gone is ignored: numbers are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Token {
    Signals,
    /// A process that this keeper did not start has ended.
    Survivor(u64),
    /// A cgroup may be empty.
    Cgroup(u64),
    /// A child has executed its program, or could not.
    Executed(u64),
    /// Somebody connects to a socket that no instance serves.
    Listener(u64),
    Socket,
    Client(u64),
    /// A group of cgroup version 1 is out of memory.
    OutOfMemory(u64),
    /// Forks of an instance were refused.
    RefusedForks(u64),
    /// An instance says something.
    Notify(u64),
    Pipes,
    /// Run, and 0 for standard output, 1 for standard error.
    Output(u64, usize),
}

impl Token {
    pub(super) fn data(self) -> EventData {
        let (kind, number) = match self {
            Self::Signals => (0, 0),
            Self::Survivor(run) => (1, run),
            Self::Cgroup(run) => (2, run),
            Self::Executed(run) => (3, run),
            Self::Socket => (4, 0),
            Self::Client(client) => (5, client),
            Self::Pipes => (6, 0),
            Self::Output(run, 0) => (7, run),
            Self::Output(run, _) => (8, run),
            Self::Listener(number) => (9, number),
            Self::Notify(run) => (10, run),
            Self::OutOfMemory(run) => (11, run),
            Self::RefusedForks(run) => (12, run),
        };
        EventData::new_u64((kind << NUMBER_BITS) | (number & NUMBER_MASK))
    }

    pub(super) fn of(event: Event) -> Option<Self> {
        Self::from_number(event.data.u64())
    }

    fn from_number(data: u64) -> Option<Self> {
        let number = data & NUMBER_MASK;
        Some(match data >> NUMBER_BITS {
            0 => Self::Signals,
            1 => Self::Survivor(number),
            2 => Self::Cgroup(number),
            3 => Self::Executed(number),
            4 => Self::Socket,
            5 => Self::Client(number),
            6 => Self::Pipes,
            7 => Self::Output(number, 0),
            8 => Self::Output(number, 1),
            9 => Self::Listener(number),
            10 => Self::Notify(number),
            11 => Self::OutOfMemory(number),
            12 => Self::RefusedForks(number),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_from_its_number() {
        for token in [
            Token::Signals,
            Token::Survivor(3),
            Token::Cgroup(1_795_196_066_123),
            Token::Executed(4),
            Token::Socket,
            Token::Client(NUMBER_MASK),
            Token::Pipes,
            Token::Output(9, 0),
            Token::Output(9, 1),
            Token::Listener(2),
            Token::OutOfMemory(5),
            Token::RefusedForks(6),
            Token::Notify(1_795_196_066_124),
        ] {
            assert_eq!(Token::from_number(token.data().u64()), Some(token));
        }
    }
}
