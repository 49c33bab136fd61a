//! The other side of a sender in its tests: puts reports into its channel, and reads them from the network as an
//! aggregator does.

use mcad_wire::report::Report;
use prost::Message as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::Outgoing;

/// Puts a report with this number into the channel.
pub(super) fn put(slot: &watch::Sender<Option<Outgoing>>, sequence: u64) {
    let report = Report { sequence, ..Report::default() };
    slot.send_replace(Some(Outgoing { sequence, bytes: report.encode_to_vec().into() }));
}

/// Reads one whole POST: its head, and the number of the report. `None` if the client closed the connection instead.
pub(super) async fn posted(stream: &mut TcpStream) -> Option<(String, u64)> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&chunk[..read]);
        let Some(head_end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let body = &bytes[head_end + 4..];
        if body.len() == length.parse::<usize>().unwrap() {
            return Some((head, Report::decode(body).unwrap().sequence));
        }
    }
}
