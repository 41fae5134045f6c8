//! Datagrams with the credentials of their sender. rustix takes a pid of 0, which is what the kernel says
//! of a sender outside of this pid namespace, for a number that is never 0; so this is done here.
#![expect(unsafe_code, reason = "recvmsg with control messages")]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use libc::c_int;

/// Room for credentials and the most descriptors that the kernel passes at once (`SCM_MAX_FD` is 253).
const CONTROL_BYTES: usize = 2_048;

/// A message that was received.
#[derive(Debug)]
pub(crate) struct Datagram {
    /// Bytes in the buffer.
    pub(crate) length: usize,
    /// The message was longer than the buffer.
    pub(crate) is_cut: bool,
    /// Who sent it, as the kernel says; `None` where that process is in no namespace of ours.
    pub(crate) pid: Option<u32>,
    /// Descriptors that came along; they close with this.
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Takes one message; `None` when there is none.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Datagram>> {
    #[repr(align(8))]
    struct Control([MaybeUninit<u8>; CONTROL_BYTES]);
    let mut control = Control([MaybeUninit::uninit(); CONTROL_BYTES]);
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: a zeroed `msghdr` is valid; all pointers lead to live buffers of the lengths that are given.
    // The kernel fills `msg_controllen` bytes of `control`, and only those are read below.
    unsafe {
        let mut message: libc::msghdr = MaybeUninit::zeroed().assume_init();
        message.msg_iov = ptr::from_mut(&mut part);
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_BYTES;
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        let length = loop {
            let length = libc::recvmsg(socket.as_raw_fd(), ptr::from_mut(&mut message), flags);
            if length >= 0 {
                break length;
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Ok(None),
                _ => return Err(error),
            }
        };
        let mut datagram = Datagram {
            length: length as usize,
            is_cut: message.msg_flags & libc::MSG_TRUNC != 0,
            pid: None,
            descriptors: Vec::new(),
        };
        let mut header = libc::CMSG_FIRSTHDR(ptr::from_ref(&message));
        while !header.is_null() {
            let data = libc::CMSG_DATA(header);
            let bytes = (*header).cmsg_len - libc::CMSG_LEN(0) as usize;
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if bytes >= size_of::<libc::ucred>() => {
                    let credentials = ptr::read_unaligned(data.cast::<libc::ucred>());
                    datagram.pid = u32::try_from(credentials.pid).ok().filter(|pid| *pid > 0);
                }
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    for index in 0..bytes / size_of::<c_int>() {
                        let number = ptr::read_unaligned(data.cast::<c_int>().add(index));
                        datagram.descriptors.push(OwnedFd::from_raw_fd(number));
                    }
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(ptr::from_ref(&message), header);
        }
        Ok(Some(datagram))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_message_comes_with_its_sender_and_its_whole_length() {
        let (sender, receiver) = UnixDatagram::pair().unwrap();
        rustix::net::sockopt::set_socket_passcred(&receiver, true).unwrap();
        sender.send(b"READY=1").unwrap();
        sender.send(&[b'x'; 100]).unwrap();
        let mut buffer = [0; 10];
        let first = receive(receiver.as_fd(), &mut buffer).unwrap().unwrap();
        assert_eq!(
            (&buffer[..first.length], first.is_cut),
            (&b"READY=1"[..], false)
        );
        assert_eq!(first.pid, Some(std::process::id()));
        let second = receive(receiver.as_fd(), &mut buffer).unwrap().unwrap();
        assert!(second.is_cut && second.descriptors.is_empty());
        assert!(receive(receiver.as_fd(), &mut buffer).unwrap().is_none());
    }
}
