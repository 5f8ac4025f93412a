//! Dated editions of rules, and which one holds at a time.
//!
//! Editions of one family differ in the digits at the end of their names: `season1` and `season2` are the
//! family `season`. Asked for by its own name an edition holds at any time; asked for by the family's, each
//! holds from its day to the next one's.

use jiff::Timestamp;

/// One published edition of something.
pub trait Edition {
    /// Its own name, for example `season2`.
    fn name(&self) -> &str;

    /// First instant it holds.
    fn from(&self) -> Timestamp;

    /// First instant it no longer holds, whether or not another one follows.
    fn until(&self) -> Option<Timestamp> {
        None
    }

    /// The name without the digits at its end: that of all editions that follow each other.
    fn family(&self) -> &str {
        self.name().trim_end_matches(|c: char| c.is_ascii_digit())
    }
}

/// The edition that a name means at a time, if there is one: that of the name itself, else the newest of
/// the family that holds already. A clock before a family's first edition means the first one, because
/// there never were other rules.
pub fn in_force<'a, E: Edition>(editions: &'a [E], name: &str, at: Timestamp) -> Option<&'a E> {
    let family = || editions.iter().filter(|edition| edition.family() == name);
    let begun = || family().filter(|edition| edition.from() <= at).max_by_key(|e| e.from());
    let found = editions.iter().find(|edition| edition.name() == name).or_else(|| {
        let newest = begun().or_else(|| family().min_by_key(|edition| edition.from()))?;
        newest.until().is_none_or(|until| at < until).then_some(newest)
    })?;
    Some(found)
}

/// The edition that will take the place of the one in force, if one is published: that of the family with the
/// next day.
pub fn next<'a, E: Edition>(editions: &'a [E], name: &str, at: Timestamp) -> Option<&'a E> {
    let now = in_force(editions, name, at).map(E::name);
    if now == Some(name) {
        return None;
    }
    let coming = editions.iter().filter(|edition| edition.family() == name && edition.from() > at);
    coming.filter(|edition| Some(edition.name()) != now).min_by_key(|edition| edition.from())
}

/// All names that mean something: families first, then editions.
pub fn names<E: Edition>(editions: &[E]) -> Vec<String> {
    let mut families: Vec<_> = editions.iter().map(|e| e.family().to_owned()).collect();
    families.sort();
    families.dedup();
    families.extend(editions.iter().map(|edition| edition.name().to_owned()));
    families
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, PartialEq)]
    struct Rule(&'static str, &'static str, Option<&'static str>);

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    impl Edition for Rule {
        fn name(&self) -> &str {
            self.0
        }

        fn from(&self) -> Timestamp {
            time(self.1)
        }

        fn until(&self) -> Option<Timestamp> {
            self.2.map(time)
        }
    }

    const RULES: [Rule; 4] = [
        Rule("season2", "2024-07-19T00:00:00Z", None),
        Rule("season1", "2024-04-01T00:00:00Z", Some("2024-07-19T00:00:00Z")),
        Rule("trial1", "2024-01-01T00:00:00Z", Some("2024-02-01T00:00:00Z")),
        Rule("season10", "2025-01-01T00:00:00Z", None),
    ];

    fn at(name: &str, when: &str) -> Option<&'static str> {
        in_force(&RULES, name, time(when)).map(|rule| rule.0)
    }

    #[test]
    fn each_holds_from_its_day_to_the_next_ones() {
        assert_eq!(at("season", "2024-07-18T23:59:59.999Z"), Some("season1"));
        assert_eq!(at("season", "2024-07-19T00:00:00Z"), Some("season2"));
        assert_eq!(at("season", "2024-12-31T23:59:59Z"), Some("season2"));
        assert_eq!(at("season", "2026-01-01T00:00:00Z"), Some("season10"));
        assert_eq!(at("season", "1970-01-01T00:00:00Z"), Some("season1"), "a clock that is wrong");
    }

    #[test]
    fn one_that_is_named_holds_always() {
        assert_eq!(at("season1", "2026-01-01T00:00:00Z"), Some("season1"));
        assert_eq!(at("season10", "2020-01-01T00:00:00Z"), Some("season10"));
    }

    #[test]
    fn what_ended_holds_no_more_and_what_is_not_there_is_nothing() {
        assert_eq!(at("trial", "2024-01-31T00:00:00Z"), Some("trial1"));
        assert_eq!(at("trial", "2024-02-01T00:00:00Z"), None);
        assert_eq!(at("seas", "2024-08-01T00:00:00Z"), None);
        assert_eq!(at("", "2024-08-01T00:00:00Z"), None);
        assert_eq!(names(&RULES), ["season", "trial", "season2", "season1", "trial1", "season10"]);
    }

    #[test]
    fn what_comes_is_known_before() {
        let coming = |name, when| next(&RULES, name, time(when)).map(|rule| rule.0);
        assert_eq!(coming("season", "2024-05-01T00:00:00Z"), Some("season2"));
        assert_eq!(coming("season", "2024-07-19T00:00:00Z"), Some("season10"));
        assert_eq!(coming("season", "2025-01-01T00:00:00Z"), None);
        assert_eq!(coming("season1", "2024-05-01T00:00:00Z"), None, "it is held on to");
    }

    proptest! {
        #[test]
        fn what_comes_is_in_force_on_its_day(seconds in 1_704_067_200_i64..1_798_761_600) {
            let now = Timestamp::from_second(seconds).expect("a time");
            if let Some(coming) = next(&RULES, "season", now) {
                prop_assert_ne!(in_force(&RULES, "season", now), Some(coming));
                prop_assert_eq!(in_force(&RULES, "season", coming.from()), Some(coming));
            }
        }
    }
}
