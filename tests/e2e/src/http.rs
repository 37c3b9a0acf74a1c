//! The smallest HTTP client that can read health and metrics, and ask the API.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::wait::PATIENCE;

/// `GET path`: the status and the body.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask(address, ("GET", path), "", "")
}

/// Any request; `headers` are whole lines. The status and the body.
pub fn ask(address: SocketAddr, (method, path): (&str, &str), headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("the HTTP listener accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let len = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("the request is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer comes");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, body.to_owned())
}
