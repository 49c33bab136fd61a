//! Tests of pages over real sockets, and of the streams that update them.
use super::*;

#[tokio::test]
async fn pages_come_with_a_policy_that_lets_nothing_else_in() {
    let served = serve(PATIENT).await;
    for (path, status) in [("/", 200), ("/docs/metrics", 200), ("/node/x", 404), ("/?name=%ff", 400), ("/nope", 404)] {
        let (head, _) = served.get(path, "").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {head}");
        if status == 200 {
            assert!(
                head.contains("content-security-policy: default-src 'none'; style-src 'self'; script-src 'self'"),
                "{head}"
            );
        }
    }
    assert!(served.get("/page.css", "").await.0.contains("content-type: text/css"));
    assert!(served.get("/page.js", "").await.0.contains("content-type: text/javascript"));
    served.end().await;
}

/// Reads until this text has arrived.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut all = String::new();
    let mut buffer = vec![0; 64 * 1024];
    while !all.contains(text) {
        let read = stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "it ended before {text:?} came:\n{all}");
        all.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    all
}

#[tokio::test]
async fn an_open_page_of_a_node_is_told_that_there_is_none_and_when_it_comes() {
    let served = serve(Limits { beat: SOON, ..PATIENT }).await;
    let mut open = TcpStream::connect(served.metrics).await.unwrap();
    open.write_all(b"GET /events/node/n-1 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let told = read_until(&mut open, "no node named n-1.").await;
    assert!(told.contains("event: page\n"), "{told}");
    served.post(&report("n-1", 1).encode_to_vec()).await;
    read_until(&mut open, "CPU").await;
    served.end().await;
}

#[tokio::test]
async fn an_open_page_is_told_what_is_new_until_the_drain() {
    let served = serve(Limits { beat: SOON, event_streams: 1, ..PATIENT }).await;
    let mut open = TcpStream::connect(served.metrics).await.unwrap();
    open.write_all(b"GET /events/?sort=name HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(read_until(&mut open, "retry: ").await.contains("content-type: text/event-stream"));
    // Another stream finds no place, and the client is informed.
    let (head, _) = served.get("/events/", "").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(served.get("/events/docs/metrics", "").await.0.starts_with("HTTP/1.1 404 "));
    served.post(&report("n-1", 1).encode_to_vec()).await;
    let told = read_until(&mut open, "n-1</bdi>").await;
    assert!(told.contains("event: page\ndata: <div id=\"standing\" data-live>"), "{told}");
    // The same again is not sent again.
    read_until(&mut open, "event: same\ndata: 0\n\n").await;
    served.end().await;
    // Ended properly, not truncated.
    assert!(String::from_utf8_lossy(&read_to_cut(&mut open).await).ends_with("0\r\n\r\n"));
}
