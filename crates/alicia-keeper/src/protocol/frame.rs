//! Frames on the socket: four bytes of length (big endian), then one JSON document.

use serde::Serialize;

/// The largest message of a host: an environment and a command line fit (`ARG_MAX` is 2 MiB, and in
/// practice they have some KiB).
pub const HOST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The largest message of a keeper: a list of some ten thousand instances.
pub const KEEPER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Length of a frame's head.
const HEAD_BYTES: usize = 4;

/// A frame is longer than its reader allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of {bytes} bytes is larger than the {bytes_max} allowed")]
pub struct TooLong {
    /// What the head says.
    pub bytes: usize,
    /// What is allowed.
    pub bytes_max: usize,
}

/// Appends a message to `buffer`, as one frame.
pub fn encode<T: Serialize>(message: &T, buffer: &mut Vec<u8>) -> serde_json::Result<()> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEAD_BYTES]);
    if let Err(error) = serde_json::to_writer(&mut *buffer, message) {
        buffer.truncate(start);
        return Err(error);
    }
    let length = u32::try_from(buffer.len() - start - HEAD_BYTES).unwrap_or(u32::MAX);
    buffer[start..start + HEAD_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// The length of the first whole frame in `buffer`, head included; `None` while it is not all there.
pub fn first(buffer: &[u8], bytes_max: usize) -> Result<Option<usize>, TooLong> {
    let Some(head) = buffer.first_chunk::<HEAD_BYTES>() else {
        return Ok(None);
    };
    let bytes = u32::from_be_bytes(*head) as usize;
    if bytes > bytes_max {
        return Err(TooLong { bytes, bytes_max });
    }
    let end = HEAD_BYTES + bytes;
    Ok((buffer.len() >= end).then_some(end))
}

/// The document in a whole frame.
pub fn body(frame: &[u8]) -> &[u8] {
    frame.get(HEAD_BYTES..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_whole_only_with_its_last_byte() {
        let mut buffer = Vec::new();
        encode(&"hello", &mut buffer).unwrap();
        encode(&"more", &mut buffer).unwrap();
        for end in 0..11 {
            assert_eq!(first(&buffer[..end], 100), Ok(None));
        }
        assert_eq!(first(&buffer, 100), Ok(Some(11)));
        assert_eq!(body(&buffer[..11]), br#""hello""#);
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_before_it_is_read() {
        let head = 101_u32.to_be_bytes();
        assert_eq!(
            first(&head, 100),
            Err(TooLong {
                bytes: 101,
                bytes_max: 100
            })
        );
    }
}
