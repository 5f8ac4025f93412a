//! The language the desktop speaks, for words that are said outside the window.

/// The person's language as a tag like `de-DE` or `de_DE.UTF-8`; `None` where the system does not
/// tell.
pub fn language() -> Option<String> {
    #[cfg(windows)]
    return crate::windows::locale_name();
    #[cfg(not(windows))]
    preferred(|name| std::env::var(name).ok())
}

/// What GNU programs go by: a list of languages first, unless the locale has none.
#[cfg(not(windows))]
fn preferred(get: impl Fn(&str) -> Option<String>) -> Option<String> {
    let set = |name: &str| get(name).filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_MESSAGES", "LANG"].iter().find_map(|name| set(name))?;
    if locale == "C" || locale == "POSIX" || locale.starts_with("C.") {
        return None;
    }
    let list = set("LANGUAGE").unwrap_or_default();
    let first = list.split(':').find(|language| !language.is_empty());
    Some(first.map_or(locale, str::to_owned))
}

#[cfg(all(test, not(windows)))]
mod tests {
    use super::*;

    fn check(present: &[(&str, &str)], expect: Option<&str>) {
        let get = |name: &str| {
            present.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        };
        assert_eq!(preferred(get).as_deref(), expect, "from {present:?}");
    }

    #[test]
    fn the_language_is_found_where_gnu_programs_look() {
        check(&[], None);
        check(&[("LANG", "C.UTF-8")], None);
        check(&[("LANG", "de_DE.UTF-8")], Some("de_DE.UTF-8"));
        check(&[("LC_ALL", "en_GB.UTF-8"), ("LANG", "de_DE.UTF-8")], Some("en_GB.UTF-8"));
        check(&[("LANGUAGE", "de:en"), ("LANG", "en_US.UTF-8")], Some("de"));
        check(&[("LANGUAGE", "de"), ("LANG", "C")], None);
        check(&[("LC_ALL", ""), ("LANGUAGE", ""), ("LANG", "de_AT")], Some("de_AT"));
    }
}
