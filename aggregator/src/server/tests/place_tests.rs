//! Tests of which connections are served at the connection limits, over real sockets.

use tokio::net::TcpSocket;

use super::*;

const PROBE: &[u8] = b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n";

/// A connection from this loopback address.
pub(super) async fn from(last: u8, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
    socket.connect(address).await.unwrap()
}

/// Sends a request on a persistent connection; returns the status line, or nothing if the connection was closed.
pub(super) async fn ask(stream: &mut TcpStream, request: &[u8]) -> String {
    // The connection may be closed already.
    let _ = stream.write_all(request).await;
    let mut answer = [0; 1024];
    let read = stream.read(&mut answer).await.unwrap_or(0);
    String::from_utf8_lossy(&answer[..read]).lines().next().unwrap_or_default().to_owned()
}

const SERVED: &str = "HTTP/1.1 200 OK";

#[tokio::test]
async fn silent_connections_give_way_to_a_probe_however_many_there_are() {
    let served = serve(PATIENT).await;
    let mut silent = Vec::new();
    for _ in 0..PATIENT.metrics_connections {
        silent.push(TcpStream::connect(served.metrics).await.unwrap());
    }
    let mut probe = TcpStream::connect(served.metrics).await.unwrap();
    assert_eq!(ask(&mut probe, PROBE).await, SERVED);
    assert_eq!(read_to_cut(&mut silent[0]).await, b"", "the one that was silent for longest");
    assert_eq!(ask(&mut silent[PATIENT.metrics_connections - 1], PROBE).await, SERVED);
    // The connection that counts it makes another one give way.
    assert!(!served.exposition().await.contains("{listener=\"metrics\",reason=\"gave_way\"} 0\n"));
    served.end().await;
}

#[tokio::test]
async fn one_peer_takes_no_more_places_than_it_may_and_loses_its_own() {
    let served = serve(Limits { metrics_of_peer: 2, ..PATIENT }).await;
    let mut neighbour = from(2, served.metrics).await;
    assert_eq!(ask(&mut neighbour, PROBE).await, SERVED);
    let mut crowd = Vec::new();
    for _ in 0..3 * PATIENT.metrics_connections {
        let mut one = from(3, served.metrics).await;
        assert_eq!(ask(&mut one, PROBE).await, SERVED);
        crowd.push(one);
    }
    assert_eq!(ask(&mut neighbour, PROBE).await, SERVED, "its place is its own");
    let mut open = 0;
    for one in &mut crowd {
        open += usize::from(ask(one, PROBE).await == SERVED);
    }
    assert_eq!(open, 2);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_every_connection_is_being_answered_probes_are_answered_and_others_told_to_come_back() {
    let served = serve(PATIENT).await;
    let mut watching = Vec::new();
    for _ in 0..PATIENT.metrics_connections {
        // A page with live updates counts as busy as long as it is open.
        let mut page = TcpStream::connect(served.metrics).await.unwrap();
        assert_eq!(ask(&mut page, b"GET /events/ HTTP/1.1\r\nhost: x\r\n\r\n").await, SERVED);
        watching.push(page);
    }
    for path in ["/live", "/ready"] {
        let (head, _) = served.get(path, "").await;
        assert!(head.starts_with(SERVED) && head.contains("connection: close\r\n"), "{head}");
    }
    let (head, body) = served.get("/metrics", "").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(body, b"too many connections: only /live and /ready are answered here\n");
    drop(watching);
    served.end().await;
}

#[tokio::test]
async fn strangers_on_the_port_for_reports_give_way_to_whoever_has_fewer() {
    let served = serve(Limits { report_connections: 3, ..PATIENT }).await;
    let mut agent = from(2, served.reports).await;
    let request = String::from_utf8_lossy(&post(valid(1).len(), b"")).replace("connection: close\r\n", "");
    assert_eq!(ask(&mut agent, &[request.as_bytes(), &valid(1)].concat()).await, "HTTP/1.1 204 No Content");
    let mut silent = Vec::new();
    for _ in 0..PATIENT.report_connections {
        silent.push(from(3, served.reports).await);
    }
    let mut other = from(4, served.reports).await;
    assert_eq!(ask(&mut other, &post(valid(2).len(), &valid(2))).await, "HTTP/1.1 204 No Content");
    assert_eq!(ask(&mut agent, &[request.as_bytes(), &valid(3)].concat()).await, "HTTP/1.1 204 No Content");
    served.end().await;
}
