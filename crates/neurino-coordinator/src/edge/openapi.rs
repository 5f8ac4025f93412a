//! `GET /openapi.json`: what a listener answers, as a document for programs. The documents are
//! written by hand, as the OpenAI-compatible part is given from outside; the tests hold them against
//! the routes, and `cargo xtask test clients` has a fuzzer hold the answers against them.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

const GATEWAY: &str = include_str!("openapi/gateway.json");
const ADMIN: &str = include_str!("openapi/admin.json");

/// The gateway's document.
pub(super) async fn gateway() -> Response {
    document(GATEWAY)
}

/// The document of the admin listener.
pub(super) async fn admin() -> Response {
    document(ADMIN)
}

fn document(text: &str) -> Response {
    let text = text.replace("@VERSION@", env!("CARGO_PKG_VERSION"));
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// Methods and paths of the routes in a source file.
    fn routes(source: &str) -> BTreeSet<String> {
        const METHODS: [&str; 4] = ["get", "post", "put", "delete"];
        let mut found = BTreeSet::new();
        for line in source.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")) {
            let (path, handlers) = line.split_once('"').expect("a path in quotes");
            for method in METHODS {
                let call = |before: char| handlers.contains(&format!("{before}{method}("));
                if call(' ') || call('.') {
                    found.insert(format!("{method} {}", path.replace("{*", "{")));
                }
            }
        }
        found
    }

    fn documented(text: &str) -> BTreeSet<String> {
        let document: Value = serde_json::from_str(text).expect("JSON");
        let paths = document["paths"].as_object().expect("paths");
        let of_path = |(path, methods): (&String, &Value)| {
            let methods = methods.as_object().expect("methods").keys();
            let methods = methods.filter(|key| *key != "parameters");
            methods.map(|method| format!("{method} {path}")).collect::<Vec<_>>()
        };
        paths.iter().flat_map(of_path).collect()
    }

    #[test]
    fn every_route_is_in_its_document_and_no_other() {
        assert_eq!(documented(GATEWAY), routes(include_str!("mod.rs")));
        assert_eq!(documented(ADMIN), routes(include_str!("admin.rs")));
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn check(value: &Value, document: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(place) = fields.get("$ref").and_then(Value::as_str) {
                        let pointer = place.strip_prefix('#').expect("a place in the document");
                        assert!(document.pointer(pointer).is_some(), "{place}");
                    }
                    fields.values().for_each(|value| check(value, document));
                }
                Value::Array(items) => items.iter().for_each(|value| check(value, document)),
                _ => {}
            }
        }
        for text in [GATEWAY, ADMIN] {
            let document: Value = serde_json::from_str(text).expect("JSON");
            check(&document, &document);
        }
    }
}
