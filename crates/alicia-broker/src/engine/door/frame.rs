//! Where packets begin and end in a stream of bytes. Nothing is allocated and nothing is decoded,
//! so that a limit is enforced before any memory is spent on a packet.
//!
//! ```text
//!  Header ──first byte──▶ Length ──last length byte──▶ Body ──last byte──▶ Header
//! ```

use std::ops::RangeInclusive;

const PUBLISH: u8 = 0x30;
const DISCONNECT: u8 = 0xE0;
const TYPE_MASK: u8 = 0xF0;
/// PUBACK, PUBREC, PUBREL, PUBCOMP.
const ACKNOWLEDGEMENTS: RangeInclusive<u8> = 0x40..=0x70;
/// A length takes four bytes at most (MQTT 5, 1.5.5).
const LENGTH_SHIFT_MAX: u32 = 21;

/// Why a stream cannot be followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameFault {
    /// The packet type or the length is not MQTT.
    Malformed,
    /// The packet is larger than allowed.
    TooLarge,
}

/// What a piece of the stream held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// PUBLISH packets that began in it.
    pub(crate) publishes: u32,
    /// Packets that began in it and make work: all but acknowledgements.
    pub(crate) requests: u32,
    /// A DISCONNECT: its offset in the piece (0 when it began earlier) and its reason code.
    pub(crate) disconnect: Option<(usize, u8)>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Header,
    Length {
        first: u8,
        value: u32,
        shift: u32,
        start: usize,
    },
    Body {
        left: u32,
        disconnect: Option<usize>,
    },
}

/// Follows one direction of one connection.
#[derive(Debug)]
pub(crate) struct Frames {
    state: State,
    body_bytes_max: u32,
}

impl Frames {
    pub(crate) fn new(body_bytes_max: u32) -> Self {
        Self {
            state: State::Header,
            body_bytes_max,
        }
    }

    /// Whether the stream stands between two packets.
    pub(crate) fn at_boundary(&self) -> bool {
        matches!(self.state, State::Header)
    }

    /// Follows the next piece of the stream.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Result<Scan, FrameFault> {
        let mut scan = Scan::default();
        let mut at = 0;
        self.forget_offsets();
        while let Some(&byte) = piece.get(at) {
            match self.state {
                State::Header => {
                    self.state = first_byte(byte, at)?;
                    if byte & TYPE_MASK == PUBLISH {
                        scan.publishes += 1;
                    }
                    if !ACKNOWLEDGEMENTS.contains(&(byte & TYPE_MASK)) {
                        scan.requests += 1;
                    }
                    at += 1;
                }
                State::Length {
                    first,
                    value,
                    shift,
                    start,
                } => {
                    at += 1;
                    let value = value | (u32::from(byte & 0x7F) << shift);
                    if byte & 0x80 != 0 {
                        if shift == LENGTH_SHIFT_MAX {
                            return Err(FrameFault::Malformed);
                        }
                        self.state = State::Length {
                            first,
                            value,
                            shift: shift + 7,
                            start,
                        };
                    } else {
                        self.enter_body(first, value, start, &mut scan)?;
                    }
                }
                State::Body { left, disconnect } => {
                    if let Some(start) = disconnect {
                        scan.disconnect.get_or_insert((start, byte));
                    }
                    let available = piece.len() - at;
                    let taken = available.min(left as usize);
                    at += taken;
                    let left = left.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
                    self.state = match left {
                        0 => State::Header,
                        left => State::Body {
                            left,
                            disconnect: None,
                        },
                    };
                }
            }
        }
        Ok(scan)
    }

    fn enter_body(
        &mut self,
        first: u8,
        left: u32,
        start: usize,
        scan: &mut Scan,
    ) -> Result<(), FrameFault> {
        if left > self.body_bytes_max {
            return Err(FrameFault::TooLarge);
        }
        let leaves = first & TYPE_MASK == DISCONNECT;
        if left == 0 {
            if leaves {
                scan.disconnect.get_or_insert((start, 0));
            }
            self.state = State::Header;
        } else {
            self.state = State::Body {
                left,
                disconnect: leaves.then_some(start),
            };
        }
        Ok(())
    }

    /// Offsets count from the start of the current piece.
    fn forget_offsets(&mut self) {
        match &mut self.state {
            State::Length { start, .. }
            | State::Body {
                disconnect: Some(start),
                ..
            } => *start = 0,
            State::Header
            | State::Body {
                disconnect: None, ..
            } => {}
        }
    }
}

fn first_byte(byte: u8, start: usize) -> Result<State, FrameFault> {
    match byte & TYPE_MASK {
        0 => Err(FrameFault::Malformed),
        _ => Ok(State::Length {
            first: byte,
            value: 0,
            shift: 0,
            start,
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn publish(body: usize) -> Vec<u8> {
        let mut packet = vec![0x30];
        let mut left = body;
        loop {
            let digit = u8::try_from(left & 0x7F).unwrap();
            left >>= 7;
            packet.push(if left > 0 { digit | 0x80 } else { digit });
            if left == 0 {
                break;
            }
        }
        packet.resize(packet.len() + body, 7);
        packet
    }

    #[test]
    fn a_length_of_five_bytes_is_malformed() {
        let mut frames = Frames::new(u32::MAX);
        assert_eq!(
            frames.feed(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1]),
            Err(FrameFault::Malformed)
        );
    }

    #[test]
    fn a_packet_over_the_limit_is_noticed_before_its_body() {
        let mut frames = Frames::new(100);
        assert_eq!(frames.feed(&publish(101)[..3]), Err(FrameFault::TooLarge));
        assert_eq!(
            Frames::new(100).feed(&publish(100)).map(|s| s.publishes),
            Ok(1)
        );
    }

    #[test]
    fn a_disconnect_tells_its_place_and_reason() {
        let mut bytes = publish(3);
        let start = bytes.len();
        bytes.extend([0xE0, 2, 4, 0]);
        let scan = Frames::new(100).feed(&bytes).unwrap();
        assert_eq!(
            scan,
            Scan {
                publishes: 1,
                requests: 2,
                disconnect: Some((start, 4))
            }
        );
        let scan = Frames::new(100).feed(&[0xE0, 0]).unwrap();
        assert_eq!(scan.disconnect, Some((0, 0)));
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_packets(
            bodies in prop::collection::vec(0usize..400, 1..20),
            cuts in prop::collection::vec(1usize..64, 1..200),
        ) {
            let stream: Vec<u8> = bodies.iter().flat_map(|body| publish(*body)).collect();
            let mut frames = Frames::new(400);
            let mut rest = stream.as_slice();
            let mut publishes = 0;
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, tail) = rest.split_at((*cut).min(rest.len()));
                publishes += frames.feed(piece).unwrap().publishes;
                rest = tail;
            }
            prop_assert_eq!(publishes as usize, bodies.len());
            prop_assert!(frames.at_boundary());
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut frames = Frames::new(1_000);
            for piece in bytes.chunks(7) {
                if frames.feed(piece).is_err() {
                    break;
                }
            }
        }
    }
}
