//! Versions of the program: three numbers, compared as numbers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `1.2.3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(u32, u32, u32);

impl Version {
    /// A version of three numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self(major, minor, patch)
    }

    /// The version of this build.
    pub fn own() -> Self {
        env!("CARGO_PKG_VERSION").parse().expect("the workspace's version has three numbers")
    }
}

impl FromStr for Version {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a version such as 1.2.3");
        let numbers: Result<Vec<u32>, String> = text
            .split('.')
            .map(|part| {
                // `+1` parses as a number, too.
                let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
                part.parse().ok().filter(|_| digits).ok_or_else(wrong)
            })
            .collect();
        match numbers?[..] {
            [major, minor, patch] => Ok(Self(major, minor, patch)),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Version {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(major, minor, patch) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_as_numbers_and_nothing_else_is_a_version() {
        let check = |text: &str| text.parse::<Version>();
        assert!(check("0.10.0") > check("0.9.9"));
        assert_eq!(check("1.2.3").map(|v| v.to_string()), Ok("1.2.3".into()));
        for wrong in
            ["", "1.2", "1.2.3.4", "1.2.3-rc1", "v1.2.3", "+1.2.3", "1..3", "1.2.99999999999"]
        {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
