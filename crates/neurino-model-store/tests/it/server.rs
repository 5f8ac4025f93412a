//! A web server of a few lines, which can break off, lie and stall.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use neurino_model_store::Source;

/// What a client asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// First and last byte asked for.
    pub(crate) range: Option<(usize, usize)>,
}

/// What the server says.
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Keeps the connection open and silent after the body.
    pub(crate) stall: bool,
    /// Sends this many bytes of the body in a millisecond; 0 for all at once.
    pub(crate) bytes_per_ms: usize,
}

impl Answer {
    pub(crate) fn status(line: &str) -> Self {
        Self {
            head: format!("{line}\r\ncontent-length: 0\r\n"),
            body: Vec::new(),
            stall: false,
            bytes_per_ms: 0,
        }
    }

    /// The file as an honest server gives it: what is asked for, else all.
    pub(crate) fn file(request: &Request, content: &[u8]) -> Self {
        let (status, body) = match request.range {
            Some((first, last)) if first < content.len() => {
                let (last, total) = (last.min(content.len() - 1), content.len());
                let range = format!("content-range: bytes {first}-{last}/{total}\r\n");
                (format!("206 Partial Content\r\n{range}"), &content[first..=last])
            }
            Some(_) => return Self::status("416 Range Not Satisfiable"),
            None => ("200 OK\r\n".to_owned(), content),
        };
        let head = format!("{status}content-length: {}\r\n", body.len());
        Self { head, body: body.to_vec(), stall: false, bytes_per_ms: 0 }
    }

    /// The whole file, whatever is asked for.
    pub(crate) fn whole(content: &[u8]) -> Self {
        Self::file(&Request::default(), content)
    }

    /// Sends only so much of the body, then closes.
    pub(crate) fn cut(mut self, bytes: usize) -> Self {
        self.body.truncate(bytes);
        self
    }
}

pub(crate) struct Server {
    url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Server {
    /// Answers the nth request, counted from 0, with what `answer` says.
    pub(crate) async fn start(
        answer: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/weights.gguf", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let Some(request) = read(&mut stream).await else { continue };
                let count = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(request.clone());
                    seen.len() - 1
                };
                let answer = answer(count, &request);
                tokio::spawn(write(stream, answer));
            }
        });
        Self { url, requests, task }
    }

    /// Answers by what is asked for: a method and a path, as in `HEAD /a.safetensors`.
    pub(crate) async fn of_paths(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let Some(head) = head(&mut stream).await else { continue };
                let asked = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1");
                tokio::spawn(write(stream, answer(asked)));
            }
        });
        Self { url, requests: Arc::default(), task }
    }

    pub(crate) fn source(&self) -> Source {
        Source::Http { url: self.url.clone() }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `None` if the client left before it had asked.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let head = head(stream).await?;
    let mut request = Request::default();
    for line in head.lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        if name.eq_ignore_ascii_case("range") {
            let (first, last) = value.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            request.range = Some((first.parse().unwrap(), last.parse().unwrap()));
        }
    }
    Some(request)
}

async fn write(mut stream: TcpStream, answer: Answer) {
    let head = format!("HTTP/1.1 {}connection: close\r\n\r\n", answer.head);
    // A client that has heard enough may leave.
    let _ = stream.write_all(head.as_bytes()).await;
    let step =
        if answer.bytes_per_ms == 0 { answer.body.len().max(1) } else { answer.bytes_per_ms };
    for piece in answer.body.chunks(step) {
        if stream.write_all(piece).await.is_err() {
            return;
        }
        if answer.bytes_per_ms > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
    let _ = stream.flush().await;
    if answer.stall {
        std::future::pending::<()>().await;
    }
}
