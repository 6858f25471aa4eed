#!/usr/bin/env bash
# kube 5.0.0 (Rust) asks a POST again after 504, so that `Api::create` may answer 409 AlreadyExists for the object that it has just made.
#
# An API server answers 504 when a request has taken too long; what it wrote to etcd until then stays. `Client::try_from(config)` puts a
# retry in front of every request, creations too: 429, 503 and 504, fifteen times, with or without Retry-After (`Config::default_retry`).
# client-go repeats a request after an answer only where the server sends Retry-After. Whoever creates with kube 5 has to take
# AlreadyExists for success when the object is its own, or to switch `default_retry` off.
#
# A server of forty lines on loopback stores the first POST, answers 504, and tells of every later one that the name exists.
set -euo pipefail
command -v cargo >/dev/null || { echo "cargo is missing" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat >"$folder/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
kube = { version = "=5.0.0", default-features = false, features = ["client"] }
k8s-openapi = { version = "=0.29.0", features = ["v1_36"] }
serde_json = "1"
tokio = { version = "1", features = ["macros", "rt", "net", "io-util", "time"] }
TOML
cat >"$folder/src/main.rs" <<'RUST'
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use kube::{Client, Config, Error};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const TIMEOUT: &str = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"Timeout: request did not complete within the allotted timeout","reason":"Timeout","code":504}"#;
const EXISTS: &str = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"configmaps \"mine\" already exists","reason":"AlreadyExists","code":409}"#;

async fn serve(listener: TcpListener, posts: Arc<AtomicUsize>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let posts = posts.clone();
        tokio::spawn(async move {
            let mut request = vec![0; 65536];
            while let Ok(read) = stream.read(&mut request).await {
                if read == 0 {
                    return;
                }
                if !request[..read].starts_with(b"POST ") {
                    continue;
                }
                let (status, body) = match posts.fetch_add(1, Ordering::SeqCst) {
                    0 => ("504 Gateway Timeout", TIMEOUT),
                    _ => ("409 Conflict", EXISTS),
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn create(retry: bool) -> (usize, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let posts = Arc::new(AtomicUsize::new(0));
    tokio::spawn(serve(listener, posts.clone()));
    let mut config = Config::new(url.parse().unwrap());
    config.default_retry = retry && config.default_retry;
    let api: Api<ConfigMap> = Api::default_namespaced(Client::try_from(config).unwrap());
    let object = serde_json::from_value(serde_json::json!({"metadata": {"name": "mine"}})).unwrap();
    let params = PostParams::default();
    let made = tokio::time::timeout(Duration::from_secs(30), api.create(&params, &object));
    let code = match made.await.unwrap() {
        Err(Error::Api(status)) => status.code,
        other => panic!("{other:?}"),
    };
    (posts.load(Ordering::SeqCst), code)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (posts, code) = create(true).await;
    println!("as it comes: {posts} POSTs, one create() answers {code}");
    let (without, plain) = create(false).await;
    println!("default_retry off: {without} POST, it answers {plain}");
    assert_eq!((posts, code, without, plain), (2, 409, 1, 504));
}
RUST
cd "$folder"
cargo run --quiet
