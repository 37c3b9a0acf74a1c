//! A service of somebody else's for the tests: an HTTP server that answers what the test wants.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A running server; it ends with the test's runtime.
pub(super) struct Service {
    pub(super) url: String,
}

/// What is done with a request (head and body as one text): a status line's rest and a body.
pub(super) type Answer = Arc<dyn Fn(&str) -> (&'static str, String) + Send + Sync>;

impl Service {
    /// Serves on a port that the system chooses.
    pub(super) async fn start(answer: Answer) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/ask", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer.clone()));
            }
        });
        Service { url }
    }
}

async fn serve(mut stream: TcpStream, answer: Answer) {
    while let Some(request) = read(&mut stream).await {
        let (status, body) = answer(&request);
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
        if stream.write_all([head, body].concat().as_bytes()).await.is_err() {
            return;
        }
    }
}

/// One request whose length is told by `content-length`, or that has no body.
async fn read(stream: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= len.unwrap_or(0) {
                return String::from_utf8(request).ok();
            }
        }
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
}
