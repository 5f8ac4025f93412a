//! `neurino-sim`: puts load on a coordinator and says what it bore.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use neurino_sim::certificate;
use neurino_sim::child::{self, Terms};
use neurino_sim::runs::{Ground, Run, Size, run};

/// Puts load on a coordinator of this machine: virtual miners and clients with real sockets.
#[derive(Parser)]
#[command(name = "neurino-sim", version)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Do some runs, or all of them, and print what was measured as Markdown.
    Run {
        /// Which ones; all without any.
        #[arg(ignore_case = true)]
        runs: Vec<Run>,
        /// Divide miners and jobs a second by this.
        #[arg(long, value_name = "N", default_value_t = 1)]
        part: usize,
        /// Divide the length of the runs by this.
        #[arg(long, value_name = "N", default_value_t = 1)]
        shorter: u32,
        /// Keep the books in a PostgreSQL server whose package was unpacked here, beside that of NATS;
        /// the run starts what it needs.
        #[arg(long, value_name = "FOLDER")]
        postgres: Option<PathBuf>,
        /// Encrypt everything between miners, clients and coordinator.
        #[arg(long)]
        tls: bool,
    },
    /// The coordinator's own process; started by the program itself.
    #[command(hide = true)]
    Serve {
        /// Where the books are.
        #[arg(long)]
        folder: PathBuf,
        /// Port of this machine; 0 picks a free one.
        #[arg(long)]
        port: u16,
        #[command(flatten)]
        terms: Terms,
    },
    /// A gateway's own process; started by the program itself.
    #[command(hide = true)]
    Gateway {
        /// The folder of its coordinator, which holds the shared key.
        #[arg(long)]
        folder: PathBuf,
        /// Port of this machine; 0 picks a free one.
        #[arg(long)]
        port: u16,
        /// Where NATS is.
        #[arg(long)]
        nats: String,
    },
    /// Start a PostgreSQL and a NATS server, run a program that finds their addresses in
    /// `NEURINO_TEST_POSTGRES_URL` and `NEURINO_TEST_NATS_URL`, and end the servers.
    #[cfg(unix)]
    #[command(hide = true)]
    WithPostgres {
        /// Where the packages with the servers' programs were unpacked.
        packages: PathBuf,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// Start an S3 server, run a program that finds its address in `NEURINO_TEST_S3_URL`, and end the
    /// server.
    #[cfg(unix)]
    #[command(hide = true)]
    WithS3 {
        /// Where the server's package was unpacked.
        packages: PathBuf,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().action {
        Action::Serve { folder, port, terms } => {
            child::serve(&folder, port, terms).await?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Gateway { folder, port, nats } => {
            child::serve_gateway(&folder, port, &nats).await?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Run { tls: true, .. } if !certificate::is_believed() => certificate::believing(),
        Action::Run { runs, part, shorter, postgres, tls } => {
            anyhow::ensure!(part > 0 && shorter > 0, "nothing can be divided by zero");
            let certificate = if tls { certificate::believed() } else { None };
            let program = std::env::current_exe()?;
            let ground = Ground { postgres, certificate, ..Ground::plain(program) };
            let runs = if runs.is_empty() { Run::all(&ground) } else { runs };
            let mut passed = true;
            for name in runs {
                let report = run(name, Size { part, shorter }, &ground).await?;
                passed &= report.passes();
                #[expect(clippy::print_stdout, reason = "the report is the program's output")]
                {
                    println!("{report}");
                }
            }
            Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        #[cfg(unix)]
        Action::WithPostgres { packages, command } => {
            // Nothing in it outlives the program.
            let server = neurino_sim::postgres::Server::start(&packages, &["fsync=off"])?;
            let nats = neurino_sim::nats::Server::start(&packages)?;
            let set = [
                ("NEURINO_TEST_POSTGRES_URL", server.url()),
                ("NEURINO_TEST_NATS_URL", nats.url()),
            ];
            with(&set, &command).await
        }
        #[cfg(unix)]
        Action::WithS3 { packages, command } => {
            let server = neurino_sim::s3::Server::start(&packages)?;
            with(&[("NEURINO_TEST_S3_URL", server.url())], &command).await
        }
    }
}

/// Runs a program that finds the addresses of servers in its environment.
#[cfg(unix)]
async fn with(
    addresses: &[(&str, String)],
    command: &[std::ffi::OsString],
) -> anyhow::Result<ExitCode> {
    let (program, arguments) = anyhow::Context::context(command.split_first(), "a program")?;
    let addresses = addresses.iter().map(|(name, url)| (name, url));
    let mut program = tokio::process::Command::new(program);
    let status = program.args(arguments).envs(addresses).status().await?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
