//! From the address of a list to a verified package on this machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use neurino_model_store::Source as FileSource;
use neurino_model_store::fetch::{FetchOptions, Progress};
use neurino_model_store::one_file::{OneFile, fetch_one};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::LIST_NAME;
use crate::error::UpdateError;
use crate::place::Place;
use crate::release::{LIST_BYTES_MAX, Package, Release, platform};
use crate::version::Version;

const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Where lists and packages lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder of this machine, or a drive of the network.
    Folder(PathBuf),
    /// A folder on a web server, with a slash at its end.
    Web(Url),
}

/// A newer release, and its package for this installation.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The release.
    pub release: Release,
    /// The package.
    pub package: Package,
}

/// Looks for newer versions of one installation.
#[derive(Debug, Clone)]
pub struct Updater {
    /// Where it looks.
    pub source: Source,
    /// Whose lists it believes.
    pub key: [u8; 32],
    /// The version that runs.
    pub own: Version,
    /// The installation.
    pub place: Place,
    /// Where packages are kept until they are installed.
    pub packages: PathBuf,
}

impl Source {
    /// Reads an address: `https`, `http` on this very machine, or the whole path of a folder.
    ///
    /// # Errors
    /// [`UpdateError::BadSource`].
    pub fn parse(text: &str) -> Result<Self, UpdateError> {
        let text = text.trim();
        if Path::new(text).is_absolute() {
            return Ok(Self::Folder(text.into()));
        }
        let bad = || UpdateError::BadSource { text: text.to_owned() };
        let slash = if text.ends_with('/') { "" } else { "/" };
        let url = Url::parse(&format!("{text}{slash}")).map_err(|_| bad())?;
        let allowed = neurino_model_store::catalog::is_allowed_url(url.as_str());
        let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        if allowed && plain { Ok(Self::Web(url)) } else { Err(bad()) }
    }

    async fn list(&self) -> Result<String, UpdateError> {
        let unreachable = |problem: String| UpdateError::Unreachable { problem };
        match self {
            Self::Folder(folder) => {
                let path = folder.join(LIST_NAME);
                let size =
                    tokio::fs::metadata(&path).await.map_err(|e| unreachable(e.to_string()))?;
                if size.len() > LIST_BYTES_MAX as u64 {
                    return Err(unreachable("it is too large".into()));
                }
                tokio::fs::read_to_string(&path).await.map_err(|e| unreachable(e.to_string()))
            }
            Self::Web(url) => {
                let url = url.join(LIST_NAME).map_err(|e| unreachable(e.to_string()))?;
                read_list(url).await.map_err(unreachable)
            }
        }
    }

    fn file(&self, name: &str) -> FileSource {
        match self {
            Self::Folder(_) => FileSource::Bundled { path: name.to_owned() },
            Self::Web(url) => FileSource::Http { url: format!("{url}{name}") },
        }
    }
}

async fn read_list(url: Url) -> Result<String, String> {
    // The list is signed; what is asked here is only that nobody fills the memory.
    let client =
        reqwest::Client::builder().timeout(ANSWER_WAIT).build().map_err(|e| e.to_string())?;
    let told = |error: reqwest::Error| error.without_url().to_string();
    let mut response = client.get(url).send().await.map_err(told)?;
    let status = response.status();
    if !status.is_success() {
        return Err(format!("the server answers {}", status.as_u16()));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(told)? {
        if bytes.len() + chunk.len() > LIST_BYTES_MAX {
            return Err("it is too large".into());
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| "it is no text".into())
}

impl Updater {
    /// Looks once; `None` where this version is the latest. `seen` is the highest version that was
    /// ever offered.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub async fn look(
        &self,
        seen: Option<Version>,
        now: Timestamp,
    ) -> Result<Option<Offer>, UpdateError> {
        let release = Release::open(&self.source.list().await?, &self.key)?;
        if !release.follows(self.own, seen, now)? {
            return Ok(None);
        }
        let place = &self.place;
        let package = release.package(&platform(), place.kind(), place.edition)?.clone();
        Ok(Some(Offer { release, package }))
    }

    /// Fetches an offer's package, continuing what has arrived; returns the file once its digest
    /// matched.
    ///
    /// # Errors
    /// [`UpdateError::Fetch`].
    pub async fn fetch(
        &self,
        offer: &Offer,
        progress: impl Fn(Progress) + Send + Sync,
        cancel: CancellationToken,
    ) -> Result<PathBuf, UpdateError> {
        let package = &offer.package;
        let file = OneFile {
            label: format!("neurino-{}", offer.release.version),
            name: package.file.clone(),
            sha256: package.sha256,
            size_bytes: package.size_bytes,
            source: self.source.file(&package.file),
        };
        let resources = match &self.source {
            Source::Folder(folder) => Some(folder.clone()),
            Source::Web(_) => None,
        };
        let options = FetchOptions { resources, ..FetchOptions::default() };
        let label = file.label.clone();
        let fetched = fetch_one(&self.packages, file, &options, progress, cancel)
            .await
            .map_err(UpdateError::Fetch)?;
        remove_others(&self.packages, &label);
        Ok(fetched)
    }
}

/// Removes the packages of other versions: nobody installs them any more.
fn remove_others(packages: &Path, label: &str) {
    for entry in std::fs::read_dir(packages).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_other = name.to_str().is_some_and(|n| n.starts_with("neurino-") && n != label);
        if is_other && let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(%error, "the package of another version stays behind");
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_package_that_is_verified_is_the_only_one_left() {
        let folder = tempfile::tempdir().unwrap();
        let (releases, packages) = (folder.path().join("releases"), folder.path().join("packages"));
        std::fs::create_dir_all(&releases).unwrap();
        std::fs::write(releases.join("neurino.zip"), "abc").unwrap();
        let program = folder.path().join("neurino");
        let updater = Updater {
            source: Source::Folder(releases),
            key: [0; 32],
            own: Version::new(0, 1, 0),
            place: Place::of(program, None, crate::Edition::Server),
            packages: packages.clone(),
        };
        let fetch = async |version: &str| {
            let release = crate::release::tests::release(version);
            let offer = Offer { package: release.packages[0].clone(), release };
            updater.fetch(&offer, |_| {}, CancellationToken::new()).await.unwrap()
        };
        let first = fetch("0.2.0").await;
        assert!(first.is_file());
        let second = fetch("0.3.0").await;
        assert!(second.is_file() && !first.exists(), "{}", first.display());
        assert_eq!(fetch("0.3.0").await, second, "and it is kept");
    }

    #[test]
    fn an_address_is_https_or_this_machine_or_a_whole_path() {
        for good in
            ["https://releases.example/neurino", "http://127.0.0.1:8000/", "http://localhost"]
        {
            assert!(matches!(Source::parse(good), Ok(Source::Web(_))), "{good}");
        }
        let folder = if cfg!(windows) { r"C:\updates" } else { "/srv/updates" };
        assert_eq!(Source::parse(folder).unwrap(), Source::Folder(folder.into()));
        for bad in
            ["http://releases.example", "ftp://x/", "updates", "", "https://u@x/", "https://x/?a"]
        {
            assert!(Source::parse(bad).is_err(), "{bad}");
        }
    }
}
