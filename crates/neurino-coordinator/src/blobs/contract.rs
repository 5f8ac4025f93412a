//! What every store of files must do, held against the folder, a bucket in memory, and a bucket of a
//! real server that checks signatures.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::{Duration, SystemTime};

use reqwest::{Client, StatusCode, Url};
use secrecy::SecretString;

use super::{BlobError, Blobs, Bucket, BucketKeys, BucketTrouble, Folder};
use crate::error::CoordinatorError;
use s3_server::S3;

#[path = "../../tests/it/s3_server.rs"]
mod s3_server;

const SOON: Duration = Duration::from_mins(1);

/// A part of a server's bucket.
fn bucket_at(server: &S3, address: &str, key_id: &str, secret: &str) -> Bucket {
    let secret = SecretString::from(secret.to_owned());
    let keys = BucketKeys { key_id: key_id.into(), secret, token: None };
    Bucket::at(address, Some(&server.url), None, keys).unwrap()
}

/// A part of a bucket of its own, and its address.
async fn fresh(server: &S3) -> (String, Bucket) {
    let address = format!("s3://{}/some/part", server.bucket().await);
    let bucket = bucket_at(server, &address, &server.key_id, &server.secret);
    (address, bucket)
}

fn name(n: u64) -> String {
    format!("0000000000000000-{n:064}.png")
}

async fn holds_to_the_contract(blobs: &dyn Blobs) {
    let past = SystemTime::now() - Duration::from_hours(1);
    assert_eq!(blobs.older_than(past).await.unwrap(), Vec::<String>::new(), "nothing yet");
    assert!(matches!(blobs.get(&name(1), 9).await, Err(BlobError::Missing)));
    blobs.remove(&name(1)).await.unwrap();

    let file: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let length = file.len() as u64;
    blobs.put(&name(1), file.clone()).await.unwrap();
    blobs.put(&name(1), file.clone()).await.unwrap();
    blobs.put(&name(2), vec![2]).await.unwrap();
    assert_eq!(blobs.get(&name(1), length).await.unwrap(), file, "whole, and what was written");
    assert!(matches!(blobs.get(&name(1), length - 1).await, Err(BlobError::TooLarge)));

    assert_eq!(blobs.older_than(past).await.unwrap(), Vec::<String>::new(), "both are young");
    // Servers tell whole seconds.
    let future = SystemTime::now() + Duration::from_secs(5);
    let mut all = blobs.older_than(future).await.unwrap();
    all.sort();
    assert_eq!(all, [name(1), name(2)]);
    blobs.remove(&name(1)).await.unwrap();
    blobs.remove(&name(1)).await.unwrap();
    assert!(matches!(blobs.get(&name(1), length).await, Err(BlobError::Missing)));
    assert_eq!(blobs.get(&name(2), 1).await.unwrap(), [2]);
}

#[tokio::test]
async fn a_folder_holds_to_it() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("pictures");
    holds_to_the_contract(&Folder::at(&folder)).await;
    std::fs::write(folder.join("somebody's notes.txt"), "not ours").unwrap();
    let future = SystemTime::now() + Duration::from_secs(5);
    assert_eq!(Folder::at(&folder).older_than(future).await.unwrap(), [name(2)]);
}

#[tokio::test]
async fn a_bucket_in_memory_holds_to_it() {
    let bucket = Bucket::in_memory();
    holds_to_the_contract(&bucket).await;
    assert_eq!(bucket.view_link(&name(1), SOON), None, "nobody else can get there");
}

#[tokio::test]
#[ignore = "needs S3: cargo xtask test stores"]
async fn a_bucket_of_a_server_holds_to_it() {
    let (_, bucket) = fresh(&S3::named()).await;
    holds_to_the_contract(&bucket).await;
    bucket.check().await.unwrap();
    let future = SystemTime::now() + Duration::from_secs(5);
    let left = bucket.older_than(future).await.unwrap();
    assert_eq!(left, [name(2)], "the check leaves nothing behind");
}

async fn put(url: Url, kind: &str, file: &'static [u8]) -> StatusCode {
    let request = Client::new().put(url).header("content-type", kind).header("if-none-match", "*");
    request.body(file).send().await.unwrap().status()
}

#[tokio::test]
#[ignore = "needs S3: cargo xtask test stores"]
async fn a_link_allows_one_file_once() {
    const PNG: &str = "image/png";
    let server = S3::named();
    let (address, bucket) = fresh(&server).await;
    let link = |n, valid| bucket.upload_link(&name(n), 5, valid).unwrap();
    assert_eq!(put(link(1, SOON), PNG, b"longer").await, StatusCode::FORBIDDEN, "length");
    assert_eq!(put(link(1, SOON), PNG, b"four").await, StatusCode::FORBIDDEN, "length");
    assert_eq!(put(link(1, SOON), "text/html", b"hello").await, StatusCode::FORBIDDEN, "type");
    let careless = Client::new().put(link(1, SOON)).header("content-type", PNG).body("hello");
    let status = careless.send().await.unwrap().status();
    assert_eq!(status, StatusCode::FORBIDDEN, "without the promise not to replace anything");
    let mut other = link(1, SOON);
    other.set_path(&other.path().replace(&name(1), &name(2)));
    assert_eq!(put(other, PNG, b"hello").await, StatusCode::FORBIDDEN, "another file's link");
    let stranger = bucket_at(&server, &address, &server.key_id, "wrong");
    let forged = stranger.upload_link(&name(1), 5, SOON).unwrap();
    assert_eq!(put(forged, PNG, b"hello").await, StatusCode::FORBIDDEN, "another key");
    let short = link(1, Duration::from_secs(1));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(put(short, PNG, b"hello").await, StatusCode::FORBIDDEN, "expired");
    assert!(
        matches!(bucket.get(&name(1), 9).await, Err(BlobError::Missing)),
        "nothing was written"
    );

    assert_eq!(put(link(1, SOON), PNG, b"hello").await, StatusCode::OK);
    assert_eq!(put(link(1, SOON), PNG, b"again").await, StatusCode::PRECONDITION_FAILED);
    assert_eq!(bucket.get(&name(1), 5).await.unwrap(), b"hello", "and it stays what it is");

    let view = bucket.view_link(&name(1), SOON).unwrap();
    let seen = Client::new().get(view.clone()).send().await.unwrap();
    assert_eq!(seen.headers()["content-type"], PNG);
    assert_eq!(seen.bytes().await.unwrap(), "hello");
    let mut open = view.clone();
    open.set_query(None);
    let status = Client::new().get(open).send().await.unwrap().status();
    assert_eq!(status, StatusCode::FORBIDDEN, "a private bucket");
    assert_eq!(put(view, PNG, b"hello").await, StatusCode::FORBIDDEN, "who may see may not write");
}

#[tokio::test]
#[ignore = "needs S3: cargo xtask test stores"]
async fn what_is_wrong_with_a_bucket_is_said() {
    let server = S3::named();
    let (address, good) = fresh(&server).await;
    good.check().await.unwrap();
    let secret = server.secret.clone();
    let trouble = async |bucket: Bucket| match bucket.check().await {
        Err(error @ CoordinatorError::Bucket { .. }) => {
            let words = error.to_string();
            assert!(!words.contains(&secret) && words.contains("s3://"), "{words}");
            match error {
                CoordinatorError::Bucket { trouble, .. } => trouble,
                other => panic!("{other}"),
            }
        }
        other => panic!("{other:?}"),
    };
    let wrong = trouble(bucket_at(&server, &address, &server.key_id, "wrong")).await;
    assert!(matches!(wrong, BucketTrouble::Denied(_)), "{wrong}");
    let unknown = trouble(bucket_at(&server, &address, "nobody", &server.secret)).await;
    assert!(matches!(unknown, BucketTrouble::Denied(_)), "{unknown}");
    let nowhere = bucket_at(&server, "s3://not-made/part", &server.key_id, &server.secret);
    let missing = trouble(nowhere).await;
    assert!(matches!(missing, BucketTrouble::NoBucket), "{missing}");
    let closed = S3 { url: "http://127.0.0.1:9".into(), ..server };
    let gone = trouble(bucket_at(&closed, &address, "a", "b")).await;
    assert!(matches!(gone, BucketTrouble::Unreachable(_)), "{gone}");
}

#[tokio::test]
async fn a_server_that_is_away_is_said_to_be() {
    let keys =
        BucketKeys { key_id: "a".into(), secret: SecretString::from("b".to_owned()), token: None };
    let bucket = Bucket::at("s3://abc", Some("http://127.0.0.1:9"), None, keys).unwrap();
    let error = bucket.get(&name(1), 9).await.unwrap_err();
    assert!(error.passes(), "{error:?}");
}
