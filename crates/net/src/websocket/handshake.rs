//! The HTTP request that opens a WebSocket, and its answer [RFC 6455, 4.2].

use sha1_smol::Sha1;

/// Bound: the largest request; a browser with large cookies stays below it.
pub(crate) const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Bound: headers of a request.
const HEADERS_MAX: usize = 64;
/// Spec: what is hashed behind the client's key [1.3].
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Sub-protocols that are MQTT, as the standards of 5.0 and 3.1.1, and of 3.1, name them [MQTT-6.0.0-3].
const SUB_PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// What a listener wants of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketRules {
    /// The path, such as `/mqtt`. A query behind it is passed over.
    pub path: String,
    /// Whether a client that offers no sub-protocol is refused, as the standard has it [MQTT-6.0.0-3].
    pub require_sub_protocol: bool,
    /// The largest frame that a client may send, in bytes.
    pub frame_bytes_max: u64,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handshake {
    /// It is not complete.
    NeedMore,
    /// It is answered so, and frames follow.
    Accepted {
        /// Its length: what follows belongs to the connection.
        len: usize,
        /// The answer.
        response: String,
    },
    /// It is answered so, and the connection is closed.
    Refused {
        /// The answer.
        response: String,
    },
}

/// Reads the request at the front of `bytes`.
pub fn handshake(bytes: &[u8], rules: &WebSocketRules) -> Handshake {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => match judge(&request, rules) {
            Ok(response) => Handshake::Accepted { len, response },
            Err(refusal) => refusal.answer(),
        },
        Ok(httparse::Status::Partial) if bytes.len() < REQUEST_BYTES_MAX => Handshake::NeedMore,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            Refusal("431 Request Header Fields Too Large", "The request is too large.").answer()
        }
        Err(_) => Refusal("400 Bad Request", "This is no HTTP request.").answer(),
    }
}

/// Status and reason.
struct Refusal(&'static str, &'static str);

impl Refusal {
    fn answer(&self) -> Handshake {
        let Refusal(status, reason) = self;
        let more = match status.split(' ').next() {
            Some("426") => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            Some("405") => "Allow: GET\r\n",
            _ => "",
        };
        let len = reason.len() + 1;
        let response = format!(
            "HTTP/1.1 {status}\r\n{more}Connection: close\r\nContent-Type: text/plain\r\nContent-Length: {len}\r\n\r\n{reason}\n"
        );
        Handshake::Refused { response }
    }
}

fn judge(request: &httparse::Request<'_, '_>, rules: &WebSocketRules) -> Result<String, Refusal> {
    let values = |name: &'static str| {
        let named = request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.filter_map(|header| std::str::from_utf8(header.value).ok())
    };
    let words = |name| values(name).flat_map(|value| value.split(',').map(str::trim));
    if request.method != Some("GET") {
        return Err(Refusal("405 Method Not Allowed", "A WebSocket begins with GET."));
    }
    if request.version != Some(1) {
        return Err(Refusal("505 HTTP Version Not Supported", "A WebSocket begins with HTTP/1.1."));
    }
    let path = request.path.unwrap_or_default();
    if path.split('?').next() != Some(rules.path.as_str()) {
        return Err(Refusal("404 Not Found", "There is no WebSocket here."));
    }
    let upgrade = words("upgrade").any(|word| word.eq_ignore_ascii_case("websocket"));
    if !upgrade || !words("connection").any(|word| word.eq_ignore_ascii_case("upgrade")) {
        return Err(Refusal("426 Upgrade Required", "Only MQTT over WebSocket is served here."));
    }
    if values("sec-websocket-version").next() != Some("13") {
        return Err(Refusal("426 Upgrade Required", "Only version 13 of WebSocket is served here."));
    }
    let mut keys = values("sec-websocket-key");
    let (Some(key), None) = (keys.next().filter(|key| is_key(key)), keys.next()) else {
        return Err(Refusal("400 Bad Request", "Sec-WebSocket-Key is missing or wrong."));
    };
    let mut offered = words("sec-websocket-protocol").filter(|word| !word.is_empty()).peekable();
    let none_offered = offered.peek().is_none();
    let chosen = offered.find_map(|word| SUB_PROTOCOLS.into_iter().find(|known| *known == word));
    let protocol = match chosen {
        Some(chosen) => format!("Sec-WebSocket-Protocol: {chosen}\r\n"),
        None if none_offered && !rules.require_sub_protocol => String::new(),
        None => return Err(Refusal("400 Bad Request", "The sub-protocol mqtt has to be offered.")),
    };
    let accept = accept(key);
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{protocol}\r\n"
    ))
}

/// Sixteen bytes in base64.
fn is_key(key: &str) -> bool {
    let digits = key.strip_suffix("==").unwrap_or_default();
    digits.len() == 22 && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte))
}

fn accept(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(MAGIC);
    base64(&hash.digest().bytes())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit) & 63) as usize;
            text.push(if digit <= three.len() { DIGITS[value] as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455, 1.2, with the sub-protocol of ours.
    const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat, mqttv3.1, mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

    fn rules(require_sub_protocol: bool) -> WebSocketRules {
        WebSocketRules { path: "/mqtt".to_owned(), require_sub_protocol, frame_bytes_max: 1000 }
    }

    fn answer(request: &str) -> Handshake {
        handshake(request.as_bytes(), &rules(true))
    }

    #[test]
    fn the_example_of_the_standard_is_accepted() {
        let Handshake::Accepted { len, response } = answer(REQUEST) else { panic!("accepted") };
        assert_eq!(len, REQUEST.len());
        assert!(
            response.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
            "{response}"
        );
    }

    #[test]
    fn every_beginning_needs_more() {
        for len in 0..REQUEST.len() {
            assert_eq!(answer(&REQUEST[..len]), Handshake::NeedMore, "{len}");
        }
    }

    #[test]
    fn mqtt_6_0_0_4_the_sub_protocol_that_the_client_prefers_is_returned() {
        for (offered, returned) in [
            ("mqtt", "mqtt"),
            ("mqttv3.1", "mqttv3.1"),
            ("mqtt, mqttv3.1", "mqtt"),
            ("mqttv3.1, mqtt", "mqttv3.1"),
            ("chat, mqtt", "mqtt"),
        ] {
            let request = REQUEST.replace("chat, mqttv3.1, mqtt", offered);
            let Handshake::Accepted { response, .. } = answer(&request) else { panic!("{offered}") };
            let line = format!("\r\nSec-WebSocket-Protocol: {returned}\r\n");
            assert!(response.contains(&line), "{offered}: {response}");
        }
    }

    #[test]
    fn mqtt_6_0_0_3_a_client_that_offers_no_sub_protocol_is_refused_or_accepted_by_a_rule() {
        let silent = REQUEST.replace("Sec-WebSocket-Protocol: chat, mqttv3.1, mqtt\r\n", "");
        assert!(matches!(answer(&silent), Handshake::Refused { .. }));
        let Handshake::Accepted { response, .. } = handshake(silent.as_bytes(), &rules(false)) else {
            panic!("accepted")
        };
        assert!(!response.contains("Protocol:"), "none is returned: {response}");
        let other = REQUEST.replace("chat, mqttv3.1, mqtt", "chat");
        assert!(matches!(handshake(other.as_bytes(), &rules(false)), Handshake::Refused { .. }));
    }

    #[test]
    fn what_is_no_websocket_request_is_refused_with_its_status() {
        let long = format!("GET /mqtt HTTP/1.1\r\nCookie: {}", "x".repeat(REQUEST_BYTES_MAX));
        let many = format!("GET /mqtt HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        for (status, request) in [
            ("405", REQUEST.replace("GET", "POST")),
            ("505", REQUEST.replace("HTTP/1.1", "HTTP/1.0")),
            ("404", REQUEST.replace("/mqtt", "/")),
            ("404", REQUEST.replace("/mqtt", "/mqtt/more")),
            ("426", REQUEST.replace("Upgrade: websocket\r\n", "")),
            ("426", REQUEST.replace("keep-alive, Upgrade", "keep-alive")),
            ("426", REQUEST.replace("Version: 13", "Version: 8")),
            ("400", REQUEST.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ==")),
            ("400", REQUEST.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "")),
            ("400", "\x10\x0c\0\x04MQTT\x05".to_owned()),
            ("431", long),
            ("431", many),
        ] {
            let Handshake::Refused { response } = answer(&request) else { panic!("{request}") };
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{request}\n{response}");
        }
        let query = REQUEST.replace("/mqtt", "/mqtt?token=x");
        assert!(matches!(answer(&query), Handshake::Accepted { .. }));
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>) {
            let _ = handshake(&bytes, &rules(true));
            let _ = handshake(&[REQUEST.as_bytes(), &bytes].concat(), &rules(true));
        }
    }
}
