//! A desk for one test: virtual display, session bus, window manager, home folder, and the program
//! opened on it by WebKit's driver. Everything ends with the test, also when it fails.

use std::ffi::OsString;
use std::fs::Permissions;
use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fantoccini::ClientBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;
use tempfile::TempDir;

use crate::page::{Page, Session};

/// Models are computed on the processor: two tests at once would only wait for each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// No test takes longer, however busy the machine is.
const TEST_LIMIT: Duration = Duration::from_mins(15);

/// Programs a desk is made of, and the Debian packages that have them.
const TOOLS: &[(&str, &str)] = &[
    ("WebKitWebDriver", "webkit2gtk-driver"),
    ("Xvfb", "xvfb"),
    ("dbus-daemon", "dbus"),
    ("openbox", "openbox"),
    ("wmctrl", "wmctrl"),
];

/// In what a test adds to the environment: a copy of the program that is opened instead of it, because
/// the test has it replaced.
pub(crate) const OWN_PROGRAM: &str = "NEURINO_BIN";

/// The starter model's name in the catalogue.
pub(crate) const STARTER: &str = "smollm2-135m-instruct";

/// Runs `test` in the real window; `name` begins the names of its pictures.
pub(crate) fn in_the_window<T, F>(name: &'static str, test: T)
where
    T: FnOnce(Page) -> F,
    F: Future<Output = ()> + 'static,
{
    on_a_desk(name, false, |_| {}, |_| Vec::new(), test);
}

/// The same with more in the program's environment; `surround` gets the person's own folder and may
/// fill it.
pub(crate) fn in_the_window_among<T, F>(
    name: &'static str,
    surround: impl FnOnce(&Path) -> Vec<(&'static str, OsString)>,
    test: T,
) where
    T: FnOnce(Page) -> F,
    F: Future<Output = ()> + 'static,
{
    on_a_desk(name, false, |_| {}, surround, test);
}

/// The same with a home that `prepare` has filled before the program opens.
pub(crate) fn in_the_window_of<T, F>(name: &'static str, prepare: impl FnOnce(&Path), test: T)
where
    T: FnOnce(Page) -> F,
    F: Future<Output = ()> + 'static,
{
    on_a_desk(name, false, prepare, |_| Vec::new(), test);
}

/// The same in a home where the program never ran, the guide of the first start open. `prepare` gets
/// the program's home and may fill the folder around it, the person's own.
pub(crate) fn at_the_first_start<T, F>(name: &'static str, prepare: impl FnOnce(&Path), test: T)
where
    T: FnOnce(Page) -> F,
    F: Future<Output = ()> + 'static,
{
    on_a_desk(name, true, prepare, |_| Vec::new(), test);
}

fn on_a_desk<T, F>(
    name: &'static str,
    guided: bool,
    prepare: impl FnOnce(&Path),
    surround: impl FnOnce(&Path) -> Vec<(&'static str, OsString)>,
    test: T,
) where
    T: FnOnce(Page) -> F,
    F: Future<Output = ()> + 'static,
{
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(what) = missing() {
        let demanded = ["CI", "NEURINO_E2E"].iter().any(|name| std::env::var_os(name).is_some());
        assert!(!demanded, "the window cannot be tested: {what}");
        eprintln!("skipped {name}: {what}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut desk = Desk::set_up();
        desk.more = surround(desk.home.path());
        prepare(&desk.view().home());
        if !guided {
            desk.skip_the_guide();
        }
        let page = Page::new(name, desk.view(), desk.view().open().await);
        let first = if guided { "guide" } else { "state-sentence" };
        page.wait_for(first, Duration::from_secs(30)).await;
        // A task of its own: a failed assertion ends there, and the desk is cleared all the same.
        let running = tokio::task::spawn_local(test(page.clone()));
        let outcome = tokio::time::timeout(TEST_LIMIT, running).await;
        if !matches!(outcome, Ok(Ok(()))) {
            page.picture_of_failure().await;
            desk.print_log();
        }
        page.close().await;
        drop(desk);
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => std::panic::resume_unwind(failure.into_panic()),
            Err(late) => panic!("{name} did not end within {TEST_LIMIT:?}: {late}"),
        }
    });
}

/// What keeps the window from being tested on this machine, as a sentence.
fn missing() -> Option<String> {
    if let Some((tool, package)) = TOOLS.iter().find(|(tool, _)| find(tool).is_none()) {
        return Some(format!("`{tool}` is missing; Debian's package `{package}` has it"));
    }
    let program = program();
    if !program.is_file() {
        return Some(format!("{} is not built; NEURINO_BIN names another", program.display()));
    }
    if starter_model().is_none() {
        return Some("NEURINO_TEST_STARTER_MODEL does not name the starter model's file".into());
    }
    None
}

fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(tool)).find(|file| file.is_file())
}

/// The program under test: `NEURINO_BIN`, else the one built beside this test.
pub(crate) fn program() -> PathBuf {
    let named = std::env::var_os(OWN_PROGRAM).map(PathBuf::from);
    std::path::absolute(named.unwrap_or_else(|| target_folder().join("neurino"))).unwrap()
}

fn starter_model() -> Option<PathBuf> {
    std::env::var_os("NEURINO_TEST_STARTER_MODEL").map(PathBuf::from).filter(|p| p.is_file())
}

/// The folder of the profile this test was built in, for example `target/release`.
fn target_folder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().to_owned()
}

/// Where pictures go.
pub(crate) fn artifacts() -> PathBuf {
    let folder = std::env::var_os("NEURINO_ARTIFACTS").map_or_else(
        || target_folder().parent().unwrap().join("artifacts").join("e2e"),
        PathBuf::from,
    );
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Display, bus and home. Dropping it ends every process that belongs to the home.
pub(crate) struct Desk {
    home: TempDir,
    display: String,
    bus: String,
    /// More of the program's environment.
    more: Vec<(&'static str, OsString)>,
    /// Ended in this order.
    helpers: Vec<Helper>,
}

impl Desk {
    fn set_up() -> Self {
        let home = tempfile::tempdir().unwrap();
        for folder in ["config", "cache", "data", "run", "neurino"] {
            std::fs::create_dir(home.path().join(folder)).unwrap();
        }
        // The runtime folder must be the user's alone.
        let private = Permissions::from_mode(0o700);
        std::fs::set_permissions(home.path().join("run"), private).unwrap();
        let mut xvfb = Command::new("Xvfb");
        xvfb.args(["-displayfd", "1", "-screen", "0", "1400x960x24", "-nolisten", "tcp"]);
        let (xvfb, number) = Helper::with_first_line(xvfb);
        let mut dbus = Command::new("dbus-daemon");
        dbus.args(["--session", "--nofork", "--print-address=1"]);
        let (dbus, bus) = Helper::with_first_line(dbus);
        let helpers = vec![dbus, xvfb];
        let mut desk = Self { home, display: format!(":{number}"), bus, more: vec![], helpers };
        let openbox = Helper::start(desk.command("openbox"));
        desk.helpers.insert(0, openbox);
        desk.view().play(&json!({ "idle_secs": 0, "programs": [] }));
        desk.import_the_starter_model();
        desk
    }

    /// As if the guide of the first start had been skipped.
    fn skip_the_guide(&self) {
        let config = self.home.path().join("neurino").join("config");
        std::fs::create_dir_all(&config).unwrap();
        let text = "step = \"reward\"\nfinished = true\n";
        std::fs::write(config.join("onboarding.toml"), text).unwrap();
    }

    /// A command in this desk's environment. Its locale is the one of containers and servers,
    /// which blanks the page of a program that does not provide for it.
    fn command(&self, program: impl Into<OsString>) -> Command {
        self.view().command(program)
    }

    fn view(&self) -> View {
        View {
            home: self.home.path().to_owned(),
            display: self.display.clone(),
            bus: self.bus.clone(),
            more: self.more.clone(),
        }
    }

    fn import_the_starter_model(&self) {
        let mut import = self.command(program());
        import.args(["models", "import", STARTER]).arg(starter_model().unwrap());
        let done = import.stdout(Stdio::null()).status().unwrap();
        assert!(done.success(), "the starter model can be imported");
    }

    /// Prints the end of the program's log, for the reader of a failed test.
    fn print_log(&self) {
        let logs = self.home.path().join("neurino").join("logs");
        for entry in std::fs::read_dir(logs).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines.len().saturating_sub(60);
            eprintln!("--- {}\n{}", entry.path().display(), lines[last..].join("\n"));
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for process in self.view().processes() {
            process.kill();
        }
    }
}

/// What a test may know and do outside the page.
#[derive(Debug, Clone)]
pub(crate) struct View {
    home: PathBuf,
    display: String,
    bus: String,
    more: Vec<(&'static str, OsString)>,
}

impl View {
    /// A command in the desk's environment.
    pub(crate) fn command(&self, program: impl Into<OsString>) -> Command {
        let mut command = Command::new(program.into());
        command
            .env("HOME", &self.home)
            .env("XDG_CONFIG_HOME", self.home.join("config"))
            .env("XDG_DATA_HOME", self.home.join("data"))
            .env("XDG_CACHE_HOME", self.home.join("cache"))
            .env("XDG_RUNTIME_DIR", self.home.join("run"))
            .env("NEURINO_HOME", self.home.join("neurino"))
            .env("NEURINO_KEY_STORE", "file")
            .env("NEURINO_DEVICE", "cpu")
            .env("NEURINO_GATEWAY_PORT", "0")
            .env("NEURINO_SURROUNDINGS", self.home.join("desk.json"))
            .env("DISPLAY", &self.display)
            .env("DBUS_SESSION_BUS_ADDRESS", &self.bus)
            // The window follows the system's language; the tests read English.
            .env("LC_ALL", "C.UTF-8")
            .env_remove("LANGUAGE")
            .env("NO_AT_BRIDGE", "1")
            .env_remove("WAYLAND_DISPLAY")
            .envs(self.more.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Opens the program through WebKit's driver.
    pub(crate) async fn open(&self) -> Session {
        let port = free_port();
        let mut driver = self.command("WebKitWebDriver");
        driver
            .args([format!("--port={port}"), "--host=127.0.0.1".into()])
            .env("TAURI_WEBVIEW_AUTOMATION", "true");
        let driver = Helper::start(driver);
        let address = ("127.0.0.1", port);
        let mut tries = 0;
        while tokio::net::TcpStream::connect(address).await.is_err() {
            tries += 1;
            assert!(tries < 200, "WebKitWebDriver does not listen on port {port}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let capabilities =
            json!({ "webkitgtk:browserOptions": { "binary": self.own_program(), "args": [] } });
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.as_object().unwrap().clone())
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        Session { client, driver: Some(driver) }
    }

    /// What the desktop tells the program from now on; see `neurino_platform::Script`.
    pub(crate) fn play(&self, scene: &serde_json::Value) {
        let (path, next) = (self.home.join("desk.json"), self.home.join("desk.json.next"));
        std::fs::write(&next, scene.to_string()).unwrap();
        std::fs::rename(next, path).unwrap();
    }

    /// The program of this desk: a copy where one was named, else the one under test.
    fn own_program(&self) -> PathBuf {
        let named = self.more.iter().find(|(name, _)| *name == OWN_PROGRAM);
        named.map_or_else(program, |(_, path)| path.into())
    }

    /// The desk's X server.
    pub(crate) fn display(&self) -> &str {
        &self.display
    }

    /// The desk's session bus.
    pub(crate) fn bus(&self) -> &str {
        &self.bus
    }

    /// The program's own home.
    pub(crate) fn home(&self) -> PathBuf {
        self.home.join("neurino")
    }

    /// Starts the program a second time, as from a menu, and returns how it ended.
    pub(crate) fn start_again(&self) -> std::process::ExitStatus {
        self.command(program()).status().unwrap()
    }

    /// Titles of the windows on the display.
    pub(crate) fn windows(&self) -> Vec<String> {
        let list = self.command("wmctrl").arg("-l").output().unwrap();
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        // Id, desktop, host, title.
        list.lines().filter_map(|line| line.split_whitespace().nth(3)).map(str::to_owned).collect()
    }

    /// Where the window's content is and how large: left, top, width, height.
    pub(crate) fn window_place(&self) -> Option<[i32; 4]> {
        let list = self.command("wmctrl").arg("-lG").output().unwrap();
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        // Id, desktop, x, y, width, height, host, title.
        let line = list.lines().find(|line| line.trim_end().ends_with("Neurino"))?;
        let numbers = line.split_whitespace().skip(2).map_while(|part| part.parse().ok());
        numbers.take(4).collect::<Vec<_>>().try_into().ok()
    }

    /// Moves the window as its person would.
    pub(crate) fn place_window(&self, [x, y, width, height]: [i32; 4]) {
        let place = format!("0,{x},{y},{width},{height}");
        let done = self.command("wmctrl").args(["-r", "Neurino", "-e", &place]).status().unwrap();
        assert!(done.success(), "the window can be moved");
    }

    /// Presses the close button of the window with this title.
    pub(crate) fn press_close(&self, title: &str) {
        let done = self.command("wmctrl").args(["-c", title]).status().unwrap();
        assert!(done.success(), "there is a window {title}");
    }

    /// The running processes that were started with this desk's home.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let mark = format!("NEURINO_HOME={}", self.home.join("neurino").display());
        let holds_mark =
            |environment: &[u8]| environment.split(|&b| b == 0).any(|v| v == mark.as_bytes());
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(|entry| {
                std::fs::read(entry.path().join("environ")).is_ok_and(|e| holds_mark(&e))
            })
            .filter_map(|entry| {
                let arguments = std::fs::read(entry.path().join("cmdline")).ok()?;
                let arguments = arguments
                    .split(|&b| b == 0)
                    .map(|a| String::from_utf8_lossy(a).into_owned())
                    .filter(|a| !a.is_empty())
                    .collect();
                Some(Process { id: entry.file_name().to_str()?.parse().ok()?, arguments })
            })
            .collect()
    }

    /// The program's process, the one with the window.
    pub(crate) fn program(&self) -> Option<Process> {
        let path = self.own_program();
        self.processes().into_iter().find(|process| {
            process.arguments.first().is_some_and(|first| Path::new(first) == path)
                && process.arguments.get(1).is_none_or(|role| role != "engine")
        })
    }

    /// The engine's process.
    pub(crate) fn engine(&self) -> Option<Process> {
        self.processes()
            .into_iter()
            .find(|process| process.arguments.get(1).is_some_and(|role| role == "engine"))
    }
}

/// A process of the desk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    id: u32,
    arguments: Vec<String>,
}

/// The memory of a process in bytes, as the kernel tells it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Resident, with everything shared.
    #[expect(dead_code, reason = "printed for the reader of the test")]
    pub(crate) rss: u64,
    /// Its own, and its share of what others have too.
    pub(crate) pss: u64,
    /// Not backed by a file.
    #[expect(dead_code, reason = "printed for the reader of the test")]
    pub(crate) anonymous: u64,
}

impl Process {
    /// What it takes of the machine's memory.
    pub(crate) fn memory_bytes(&self) -> Memory {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.id)).unwrap();
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
        };
        Memory { rss: of("Rss:"), pss: of("Pss:"), anonymous: of("Anonymous:") }
    }

    /// Ends it as a fault in a driver would.
    pub(crate) fn kill(&self) {
        self.signal("-KILL");
    }

    /// Asks it to end, as the system does at shutdown.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    fn signal(&self, signal: &str) {
        // It may have ended meanwhile.
        let _ = Command::new("kill")
            .args([signal, &self.id.to_string()])
            .stderr(Stdio::null())
            .status();
    }
}

/// A process that ends with its owner.
pub(crate) struct Helper(Child);

impl Helper {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// Starts it and reads the line in which it says where it is.
    fn with_first_line(mut command: Command) -> (Self, String) {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let line = line.trim().to_owned();
        assert!(!line.is_empty(), "{command:?} says where it is");
        (Self(child), line)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
