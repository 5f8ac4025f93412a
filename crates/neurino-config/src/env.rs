//! Every environment variable the program reads, as a documented constant.
//!
//! [`ALL`] is the list; `docs/ENVIRONMENT.md` is [`page`], and a test holds the two equal.
//! Order of precedence everywhere: a flag, then the variable, then `settings.toml`, then the
//! default.

use std::ffi::OsString;

/// One variable, as the reference page shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it may hold.
    pub values: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// What it does.
    pub purpose: &'static str,
}

macro_rules! variables {
    ($($const:ident = $name:literal, $values:literal, $default:literal, $purpose:literal;)*) => {
        $(#[doc = $purpose] pub const $const: &str = $name;)*

        /// All of them, in the order of the reference page.
        pub const ALL: &[Variable] = &[$(Variable {
            name: $const,
            values: $values,
            default: $default,
            purpose: $purpose,
        }),*];
    };
}

variables! {
    HOME = "NEURINO_HOME", "a folder", "the user's data and configuration folders",
        "Keeps everything Neurino stores in one folder: settings, identity key, ledger, logs, models.";
    MODELS = "NEURINO_MODELS", "a folder", "`models` in the data folder",
        "Keeps the models elsewhere, for example on a larger drive, or shares them between homes.";
    RESOURCES = "NEURINO_RESOURCES", "a folder", "beside the program, as installed",
        "Where the files that came with the program lie (bundled models, CUDA device library).";
    NETWORK = "NEURINO_NETWORK", "`practice` or the URL of a coordinator", "`practice`",
        "The network this machine works for.";
    DEVICE = "NEURINO_DEVICE", "`auto`, `cpu` or `cuda:N`", "`auto`",
        "The device that computes. `auto` takes the first NVIDIA card that is usable, else the CPU.";
    KEY_STORE = "NEURINO_KEY_STORE", "`auto`, `os` or `file`", "`auto`",
        "Where the identity key lies. `auto` takes the system's key store, else a file in the data folder.";
    PASSPHRASE_FILE = "NEURINO_PASSPHRASE_FILE", "a file", "none",
        "Holds the passphrase that encrypts the key file. Make it readable by you only.";
    GATEWAY_PORT = "NEURINO_GATEWAY_PORT", "`0` to `65535`", "`43110`",
        "The port on 127.0.0.1 of the OpenAI-compatible gateway. `0` lets the system choose one.";
    UPDATE_SOURCE = "NEURINO_UPDATE_SOURCE", "a URL or a folder", "what the build was made with, else none",
        "Where the signed list of newer versions lies.";
    UPDATE_KEY = "NEURINO_UPDATE_KEY", "64 hexadecimal digits", "what the build was made with, else none",
        "The Ed25519 key that signs that list; without one nothing is ever installed.";
    DATABASE_URL = "DATABASE_URL", "`postgres://USER:PASSWORD@HOST:PORT/NAME`", "a file in the data folder",
        "The PostgreSQL database in which `neurino coordinator` keeps its books.";
    BLOBS = "NEURINO_BLOBS", "`s3://BUCKET` or `s3://BUCKET/PREFIX`", "a folder beside the books",
        "The bucket in which `neurino coordinator` keeps finished pictures; nodes put them there themselves.";
    AWS_ENDPOINT_URL = "AWS_ENDPOINT_URL", "a URL", "Amazon's server of the region",
        "The S3-compatible server of that bucket.";
    AWS_REGION = "AWS_REGION", "a name, for example `eu-central-1`", "`us-east-1`",
        "The region of that bucket.";
    AWS_ACCESS_KEY_ID = "AWS_ACCESS_KEY_ID", "a name", "none",
        "Names the key that opens that bucket.";
    AWS_SECRET_ACCESS_KEY = "AWS_SECRET_ACCESS_KEY", "a secret", "none",
        "The key that opens that bucket. It must allow reading, writing, listing and deleting there.";
    AWS_SESSION_TOKEN = "AWS_SESSION_TOKEN", "a secret", "none",
        "Goes with a key that was lent for a while.";
    NATS_URL = "NEURINO_NATS_URL", "`tls://USER:PASSWORD@HOST:PORT`", "none",
        "The NATS server over which `neurino coordinator` and its gateways speak.";
    NATS_CREDENTIALS = "NEURINO_NATS_CREDENTIALS", "a file", "none",
        "Holds the credentials that this server wants, as NATS's own tools make them.";
    LOG = "NEURINO_LOG", "a tracing filter, for example `info,neurino_miner=debug`", "`info`",
        "How much the log in the data folder holds. Prompts, answers and keys are never in it.";
}

/// Names a file that plays the desktop for the rules of mining.
pub const SURROUNDINGS: &str = "NEURINO_SURROUNDINGS";

/// Names a file that plays the cards of this machine.
pub const CARDS: &str = "NEURINO_CARDS";

/// What the program's own tests and build steps read, as the reference page shows it.
pub const FOR_DEVELOPERS: &[(&str, &str)] = &[
    ("NEURINO_ARTIFACTS", "Where the end-to-end tests put their pictures."),
    (
        "NEURINO_BIN",
        "The program that tests drive from outside, instead of the one built beside them.",
    ),
    (
        "NEURINO_CATALOGUE_KEY",
        "Read when Neurino is built: the Ed25519 key of signed catalogues, 64 hexadecimal digits.",
    ),
    (
        "NEURINO_CATALOGUE_SOURCE",
        "Read when Neurino is built: the https address or file where the signed catalogue is looked for once a day.",
    ),
    ("NEURINO_E2E", "Set, it makes the end-to-end tests fail where they would be skipped."),
    ("NEURINO_API_KEY", "The gateway's key, for the tests with OpenAI's own clients."),
    ("NEURINO_BASE_URL", "The gateway's address, for the same tests."),
    ("NEURINO_KILL_DOWNLOADS", "How many times the kill -9 test of downloads kills."),
    ("NEURINO_KILL_ROUNDS", "How many rounds the kill -9 test plays."),
    ("NEURINO_MODEL", "The model that the tests with OpenAI's own clients ask."),
    ("NEURINO_NODE_PACKAGES", "Where the Node client of those tests finds its packages."),
    (
        "NEURINO_TEST_CONTRACT_PACKAGES",
        "Where the fuzzer of the HTTP contract finds its packages; set by the test step.",
    ),
    (
        "NEURINO_TEST_MINER_PACKAGES",
        "Where the original protocol's Python client finds its packages; set by the test step.",
    ),
    (
        "NEURINO_ORIGINAL_MINER",
        "A folder with a checkout of the original miner, for the tests that run its own programs.",
    ),
    (
        "NEURINO_TEST_UNMODIFIED_PACKAGES",
        "Where those programs find what they import; set by the test step.",
    ),
    (
        "NEURINO_ASKED",
        "Where what stands in for their inference writes what it was asked; set by them.",
    ),
    ("NEURINO_IMAGE_MODELS", "The image models that those programs are told of; set by them."),
    ("NEURINO_MINER_OPTIONS", "The flags that one of those programs gets; set by them."),
    ("NEURINO_STATISTICS_PORT", "Where its statistics are led to; set by them."),
    ("NEURINO_PTXAS", "NVIDIA's assembler, for the test that assembles every kernel."),
    ("NEURINO_PTX_FOLDER", "Where that test leaves what it assembles, to be looked at."),
    ("NEURINO_CALIBRATE", "How many jobs the test of the audits' calibration computes."),
    (
        "NEURINO_RELEASE_KEY",
        "Read when Neurino is built: the key of `NEURINO_UPDATE_KEY` where nobody sets another.",
    ),
    (
        "NEURINO_RELEASE_SOURCE",
        "Read when Neurino is built: the place of `NEURINO_UPDATE_SOURCE` where nobody sets another.",
    ),
    ("NEURINO_SCHEDULES", "How many seeds the test of the network's schedules runs."),
    ("NEURINO_SCHEDULE_SEED", "The one seed that this test runs."),
    ("NEURINO_TEST_CHAIN", "A node with contracts, for the test that asks a real one."),
    (
        SURROUNDINGS,
        "A JSON file that plays the desktop for the rules of mining, read every second; its form is \
         told at `neurino_platform::Script`.",
    ),
    (
        CARDS,
        "A JSON file that plays cards, with power limits and, where it tells their memory, as if they \
         computed; its form is told at `neurino_power::ScriptedCards` and in \
         `neurino_hardware::script`.",
    ),
    (
        "NEURINO_TEST_POWER_FOLDER",
        "Where the child of the power limits' kill test works; set by it.",
    ),
    ("NEURINO_TEST_DEVICE", "The device of the tests that compare with reference outputs."),
    ("NEURINO_IMAGE_MODEL", "The image model that the tests of OpenAI's clients ask; set by them."),
    ("NEURINO_TEST_IMAGE_MODEL", "The image model whose cases the clients' tests must not skip."),
    ("NEURINO_TEST_NODE_PACKAGES", "A folder with OpenAI's Node client, for its tests."),
    (
        "NEURINO_TEST_NATS_URL",
        "A NATS server that runs, for the tests that speak over it; set by the test step.",
    ),
    (
        "NEURINO_TEST_POSTGRES",
        "The programs of a PostgreSQL server, for the tests that start it; set by the test step.",
    ),
    (
        "NEURINO_TEST_POSTGRES_URL",
        "A PostgreSQL server that runs, for the tests that make databases in it; set by the test step.",
    ),
    (
        "NEURINO_TEST_S3",
        "The programs of an S3 server, for the tests that start it; set by the test step.",
    ),
    (
        "NEURINO_TEST_S3_URL",
        "An S3 server that runs, as `http://KEY:SECRET@HOST:PORT`, for the tests that make buckets in it; \
         set by the test step.",
    ),
    (
        "NEURINO_TEST_CLAIM_MODELS",
        "Two files of a model, with a comma between: its own weights and another checkpoint's, for the \
         test that measures margins.",
    ),
    ("NEURINO_TEST_PYTHON_PACKAGES", "A folder with OpenAI's Python client, for its tests."),
    ("NEURINO_TEST_STARTER_MODEL", "The starter model's file, for the tests that run it."),
    ("NEURINO_TEST_TOKENIZERS", "A folder of real vocabularies, for the tests that use them."),
    ("NEURINO_TEST_VICTIM_FOLDER", "The library of a download that a test kills; set by it."),
    ("NEURINO_TEST_VICTIM_URL", "Where that download comes from; set by the test."),
    ("NEURINO_UPDATE_TYPES", "`1` makes the tests of generated files write them."),
    ("NEURINO_WINDOW_ENV", "Set by the window for its child processes; not for people."),
];

/// Looks a variable up in this process's environment; an empty one counts as unset.
pub fn var(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The reference page of environment variables and settings, in Markdown.
pub fn page() -> String {
    use std::fmt::Write;

    let mut page = String::from(
        "# Environment and settings\n\n\
         Generated from `neurino_config::env` by `cargo xtask gen`; do not edit by hand.\n\n\
         A flag wins over a variable, a variable over `settings.toml`, the file over the default. \
         An empty variable counts as unset.\n\n\
         | Variable | Values | Without it | What it does |\n| --- | --- | --- | --- |\n",
    );
    for Variable { name, values, default, purpose } in ALL {
        let _ = writeln!(page, "| `{name}` | {values} | {default} | {purpose} |");
    }
    let _ = write!(
        page,
        "\n## settings.toml\n\n\
         In the configuration folder (`config` under `NEURINO_HOME` where that is set). Every key \
         may be left out; these are the defaults.\n\n```toml\n{}```\n",
        crate::settings::TEMPLATE
    );
    page.push_str("\n## For developers\n\n| Variable | What it does |\n| --- | --- |\n");
    for (name, purpose) in FOR_DEVELOPERS {
        let _ = writeln!(page, "| `{name}` | {purpose} |");
    }
    page
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn known() -> BTreeSet<&'static str> {
        let developers = FOR_DEVELOPERS.iter().map(|(name, _)| *name);
        ALL.iter().map(|variable| variable.name).chain(developers).collect()
    }

    #[test]
    fn names_are_unique_and_carry_the_prefix() {
        let names = known();
        assert_eq!(names.len(), ALL.len() + FOR_DEVELOPERS.len());
        // Servers hand databases and buckets over under these names, whatever the program.
        let ours = |name: &&str| {
            name.starts_with("NEURINO_") || name.starts_with("AWS_") || *name == DATABASE_URL
        };
        assert!(names.iter().all(ours));
    }

    #[test]
    fn the_reference_page_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/ENVIRONMENT.md");
        if std::env::var("NEURINO_UPDATE_TYPES").is_ok_and(|value| value == "1") {
            std::fs::write(&path, page()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written.replace("\r\n", "\n") == page(),
            "docs/ENVIRONMENT.md differs from neurino_config::env; run `cargo xtask gen`"
        );
    }

    #[test]
    fn the_sources_read_no_variable_that_is_not_listed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let known = known();
        let mut unknown = BTreeSet::new();
        for folder in ["crates", "src-tauri", "xtask", "tests"] {
            visit(&root.join(folder), &mut |source| {
                // A quoted name; what is read through a constant is quoted where it is defined.
                for rest in source.split("\"NEURINO_").skip(1) {
                    let name = rest.split('"').next().unwrap();
                    let is_name = !name.is_empty()
                        && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
                    let name = format!("NEURINO_{name}");
                    // Two processes of one wallet test talk through these.
                    let private = name.starts_with("NEURINO_WALLET_TEST_");
                    if is_name && !private && !known.contains(name.as_str()) {
                        unknown.insert(name);
                    }
                }
            });
        }
        assert_eq!(unknown, BTreeSet::new(), "add these to neurino_config::env");
    }

    fn visit(folder: &Path, look: &mut impl FnMut(&str)) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "node_modules" && name != "target") {
                    visit(&path, look);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                look(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
}
