//! Holds the web UI's types to the Rust contract: one generated file, compared or rewritten.

use std::collections::BTreeMap;
use std::path::Path;

use neurino_protocol::app::{Command, Event, Reply};
use ts_rs::{Config, TS, TypeVisitor};

/// Where the web UI keeps the generated types, from this crate's folder.
const TYPES: &str = "../../ui/src/lib/api/types.ts";
/// Set to `1` to rewrite the file (`cargo xtask gen` does).
const UPDATE: &str = "NEURINO_UPDATE_TYPES";

const HEADER: &str = "// The contract between window and program, generated from crates/neurino-protocol and \
                      crates/neurino-core.\n// Do not edit: `cargo xtask gen` writes this file and a test compares it.\n";

/// Declarations of a type and of everything it refers to, by name.
struct Declarations<'a> {
    config: &'a Config,
    found: BTreeMap<String, String>,
}

impl TypeVisitor for Declarations<'_> {
    fn visit<T: TS + 'static + ?Sized>(&mut self) {
        // Only derived types have an output path; strings, numbers and lists have none.
        if T::output_path().is_none() {
            T::visit_generics(self);
            return;
        }
        let name = T::ident(self.config);
        if !self.found.contains_key(&name) {
            let docs = T::docs().unwrap_or_default();
            self.found.insert(name, format!("{docs}export {}\n", T::decl(self.config)));
            T::visit_dependencies(self);
        }
    }
}

fn generate() -> String {
    let config = Config::new().with_large_int("number");
    let mut declarations = Declarations { config: &config, found: BTreeMap::new() };
    declarations.visit::<Command>();
    declarations.visit::<Reply>();
    declarations.visit::<Event>();
    let mut text = String::from(HEADER);
    for declaration in declarations.found.values() {
        text.push('\n');
        text.push_str(declaration);
    }
    // ts-rs leaves blanks at line ends.
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

#[test]
fn the_ui_types_are_those_of_this_contract() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(TYPES);
    let expect = generate();
    if std::env::var(UPDATE).is_ok_and(|v| v == "1") {
        std::fs::write(&path, &expect).expect("the types file can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    assert!(
        found == expect,
        "ui/src/lib/api/types.ts is not what the contract says; run `cargo xtask gen`"
    );
}

#[test]
fn every_part_of_the_contract_is_declared_without_bigint() {
    let text = generate();
    for name in ["Command", "Reply", "Event", "Snapshot", "ErrorBody", "Receipt", "Quote", "Usage"]
    {
        assert!(text.contains(&format!("export type {name} ")), "{name} is missing");
    }
    // JSON has no bigint: a 64-bit field must say that it travels as a number.
    assert!(!text.contains("bigint"));
}
