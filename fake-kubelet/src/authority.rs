//! Works around the `:authority` header that older kubelets send on a unix socket. The gRPC library of Kubernetes 1.20
//! sends the socket's path as `:authority`, which is not valid in a URI, and which the library used here rejects as a
//! protocol error. So the path is replaced by a name of the same length while the connection is read.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// Huffman codes of RFC 7541, appendix B: the character, its code, the code's length in bits.
const CODES: [(u8, u32, u32); 39] = [
    (b'-', 0x16, 6),
    (b'.', 0x17, 6),
    (b'/', 0x18, 6),
    (b'0', 0x0, 5),
    (b'1', 0x1, 5),
    (b'2', 0x2, 5),
    (b'3', 0x19, 6),
    (b'4', 0x1a, 6),
    (b'5', 0x1b, 6),
    (b'6', 0x1c, 6),
    (b'7', 0x1d, 6),
    (b'8', 0x1e, 6),
    (b'9', 0x1f, 6),
    (b'a', 0x3, 5),
    (b'b', 0x23, 6),
    (b'c', 0x4, 5),
    (b'd', 0x24, 6),
    (b'e', 0x5, 5),
    (b'f', 0x25, 6),
    (b'g', 0x26, 6),
    (b'h', 0x27, 6),
    (b'i', 0x6, 5),
    (b'j', 0x74, 7),
    (b'k', 0x75, 7),
    (b'l', 0x28, 6),
    (b'm', 0x29, 6),
    (b'n', 0x2a, 6),
    (b'o', 0x7, 5),
    (b'p', 0x2b, 6),
    (b'q', 0x76, 7),
    (b'r', 0x2c, 6),
    (b's', 0x8, 5),
    (b't', 0x9, 5),
    (b'u', 0x2d, 6),
    (b'v', 0x77, 7),
    (b'w', 0x78, 7),
    (b'x', 0x79, 7),
    (b'y', 0x7a, 7),
    (b'z', 0x7b, 7),
];

/// A text in HPACK encoding. `None` if it has a character that rarely occurs in paths of sockets.
fn huffman(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut pending, mut held) = (Vec::new(), 0_u64, 0);
    for character in text.bytes() {
        let (_, code, length) = CODES.iter().find(|(known, _, _)| *known == character)?;
        pending = pending << length | u64::from(*code);
        held += length;
        while held >= 8 {
            held -= 8;
            bytes.push((pending >> held) as u8);
        }
    }
    if held > 0 {
        bytes.push((pending << (8 - held)) as u8 | 0xff >> held);
    }
    Some(bytes)
}

/// What to search for, and the replacement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    path: Vec<u8>,
    name: Vec<u8>,
}

impl Names {
    /// For a socket at this path. The code of `-` has the same length as that of `/`.
    pub(crate) fn of(socket: &Path) -> Self {
        let name = |text: &str| Some(Self { path: huffman(text)?, name: huffman(&text.replace('/', "-"))? });
        socket.to_str().and_then(name).unwrap_or_default()
    }

    fn replace(&self, bytes: &mut [u8]) {
        let length = self.path.len();
        let found = (length > 0).then(|| bytes.windows(length).position(|window| window == self.path)).flatten();
        if let Some(at) = found {
            bytes[at..at + length].copy_from_slice(&self.name);
        }
    }
}

/// A connection on which the path is replaced. A client sends the path once, early; later calls refer to it.
#[derive(Debug)]
pub(crate) struct Renamed {
    pub(crate) stream: UnixStream,
    pub(crate) names: Names,
}

impl AsyncRead for Renamed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.names.replace(&mut buffer.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Renamed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541, C.4.1.
    #[test]
    fn the_code_is_that_of_the_standard() {
        let expected = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(huffman("www.example.com").unwrap(), expected);
        assert_eq!(huffman("WWW"), None);
    }

    #[test]
    fn a_path_becomes_a_name_of_the_same_length() {
        let names = Names::of(Path::new("/var/lib/kubelet/device-plugins/nvidia-com-gpu.sock"));
        let mut bytes = [&[1, 2][..], &names.path, &[3]].concat();
        names.replace(&mut bytes);
        assert_eq!(bytes, [&[1, 2][..], &names.name, &[3]].concat());
        assert_eq!(names.name, huffman("-var-lib-kubelet-device-plugins-nvidia-com-gpu.sock").unwrap());
        let mut others = [9; 4];
        Names::default().replace(&mut others);
        assert_eq!(others, [9; 4]);
    }
}
