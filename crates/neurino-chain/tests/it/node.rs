//! A node on this machine that answers from a list, as honestly as the test wants.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// How a question is answered.
pub(crate) enum Answer {
    Json(Value),
    Text(&'static str),
    Status(u16),
    Redirect,
    /// More bytes than were asked for, without end.
    Huge,
    /// Nothing, for ever.
    Silence,
    /// A byte now and then, for ever.
    Trickle,
    /// The connection ends without a word.
    HangUp,
}

pub(crate) struct Node {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Node {
    pub(crate) async fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        tokio::spawn(async move {
            for answer in answers {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                if let Some(question) = read(&mut stream).await {
                    seen.lock().unwrap().push(question);
                }
                tokio::spawn(respond(stream, answer));
            }
        });
        Self { url, asked }
    }

    pub(crate) fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap().clone()
    }
}

/// The JSON of one request.
async fn read(stream: &mut TcpStream) -> Option<Value> {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 1024];
        let n = stream.read(&mut piece).await.ok()?;
        bytes.extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&bytes);
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        if let Some(question) = body.and_then(|body| serde_json::from_str(&body).ok()) {
            return Some(question);
        }
        if n == 0 {
            return None;
        }
    }
}

async fn respond(mut stream: TcpStream, answer: Answer) {
    let whole = |status: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    let text = match answer {
        Answer::Json(value) => whole("200 OK", &value.to_string()),
        Answer::Text(text) => whole("200 OK", text),
        Answer::Status(status) => whole(&format!("{status} No"), ""),
        Answer::Redirect => {
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
                .into()
        }
        Answer::HangUp => return,
        Answer::Silence => return tokio::time::sleep(Duration::from_mins(1)).await,
        Answer::Huge | Answer::Trickle => {
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            let huge = matches!(answer, Answer::Huge);
            let piece = if huge {
                format!("400\r\n{}\r\n", " ".repeat(0x400))
            } else {
                "1\r\n \r\n".into()
            };
            while stream.write_all(piece.as_bytes()).await.is_ok() {
                if !huge {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
            }
            return;
        }
    };
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}
