//! An error in one line, for whoever reads it.

use std::error::Error;

/// An error and its causes in one line. A cause that its error has told already is left out.
#[must_use]
pub fn told_with_causes(error: &dyn Error) -> String {
    let mut told = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !told.contains(&words) {
            told.push_str(": ");
            told.push_str(&words);
        }
        next = cause.source();
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{words}")]
    struct Told {
        words: &'static str,
        #[source]
        cause: Option<Box<Told>>,
    }

    #[test]
    fn what_was_told_is_not_told_again() {
        let drive = Told { words: "no such file", cause: None };
        let bus = Told { words: "no bus: no such file", cause: Some(Box::new(drive)) };
        let store = Told { words: "the key store cannot be used", cause: Some(Box::new(bus)) };
        assert_eq!(told_with_causes(&store), "the key store cannot be used: no bus: no such file");
    }
}
