//! A gRPC server on a unix socket, with a thread of its own that ends when the server is dropped. The callers provide
//! the responses.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tokio::sync::oneshot;

use crate::authority::{Names, Renamed};

/// A call of a client.
pub(crate) type Call = hyper::Request<Incoming>;
/// The response to a call.
pub(crate) type Answer = hyper::Response<tonic::body::Body>;

/// Produces the responses to calls.
pub(crate) trait Answers: Send + Sync + 'static {
    /// A client has connected.
    fn connected(&self) {}

    /// The response to a call.
    fn answer(self: Arc<Self>, call: Call) -> impl Future<Output = Answer> + Send;
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct UnixServer {
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl UnixServer {
    /// Listens at this path, and removes a file that is there.
    pub(crate) fn start(socket: &Path, answers: Arc<impl Answers>) -> io::Result<Self> {
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = std::os::unix::net::UnixListener::bind(socket)?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let names = Names::of(socket);
        let thread = std::thread::Builder::new().name("fake-kubelet".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = listen(listener, names, answers) => {}
                }
            });
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for UnixServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The server's thread has already printed its panic.
            let _ = thread.join();
        }
    }
}

async fn listen(listener: std::os::unix::net::UnixListener, names: Names, answers: Arc<impl Answers>) {
    let Ok(listener) = UnixListener::from_std(listener) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        answers.connected();
        tokio::spawn(serve(Renamed { stream, names: names.clone() }, Arc::clone(&answers)));
    }
}

async fn serve(stream: Renamed, answers: Arc<impl Answers>) {
    let service = service_fn(move |call| {
        let answers = Arc::clone(&answers);
        async move { Ok::<_, Infallible>(answers.answer(call).await) }
    });
    // A client that disconnects is not an error.
    let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}
