//! What the JSON reader says, in the words of JSON: its own name types of this program.

/// An error of the JSON reader for people who never saw this program's types. At most 200 characters.
pub(super) fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // Where it stands helps in a text; a value that was read before has no lines.
    let (words, place) = match text.rfind(" at line ") {
        Some(at) if error.line() > 0 => text.split_at(at),
        _ => (text.as_str(), ""),
    };
    let words = mismatch(words)
        .or_else(|| length(words))
        .or_else(|| choice(words))
        .unwrap_or_else(|| words.to_owned());
    format!("{words}{place}").chars().take(200).collect()
}

/// `invalid type: map, expected a string`.
fn mismatch(words: &str) -> Option<String> {
    let rest = words.strip_prefix("invalid type: ").or(words.strip_prefix("invalid value: "))?;
    // What was found may hold any text; what was expected holds none of the user's.
    let (found, expected) = rest.rsplit_once(", expected ")?;
    Some(format!("it is {}, and {} is needed", found_words(found), expected_words(expected)))
}

/// `invalid length 0, expected struct X with 6 elements`.
fn length(words: &str) -> Option<String> {
    let (found, expected) = words.strip_prefix("invalid length ")?.split_once(", expected ")?;
    Some(format!("it is a list of {found}, and {} is needed", expected_words(expected)))
}

fn found_words(found: &str) -> String {
    let found = match found.split_once(' ') {
        Some(("string", text)) => return format!("the text {text}"),
        Some(("integer", number)) => return format!("the number {}", number.trim_matches('`')),
        Some(("floating", rest)) => {
            let number = rest.trim_start_matches("point ").trim_matches('`');
            return format!("the number {number}");
        }
        Some(("boolean", value)) => return value.to_owned(),
        _ => found,
    };
    match found {
        "map" => "an object",
        "sequence" => "a list",
        "null" | "unit value" => "null",
        other => other,
    }
    .to_owned()
}

fn expected_words(expected: &str) -> &str {
    match expected {
        "f32" | "f64" => "a number",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "a boolean" => "`true` or `false`",
        "a string" | "string" | "a borrowed string" | "str" => "text",
        "a sequence" | "sequence" => "a list",
        _ if expected.starts_with("a tuple") => "a list of that length",
        "unit" | "null" => "null",
        "variant identifier" => "the name of a kind",
        // Structures, enumerations and maps, whatever they are called here.
        _ => "an object",
    }
}

/// ``unknown variant `a`, expected `b` or `c` ``.
fn choice(words: &str) -> Option<String> {
    let rest = words.strip_prefix("unknown variant ")?;
    let (found, known) = rest.rsplit_once(", expected ")?;
    Some(format!("{found} is not known here; it can be {}", known.trim_start_matches("one of ")))
}

#[cfg(test)]
mod tests {
    use neurino_core::JobSpec;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn check<T: DeserializeOwned + std::fmt::Debug>(value: Value, expect: &str) {
        let error = serde_json::from_value::<T>(value).expect_err("refused");
        assert_eq!(plain(&error), expect);
    }

    #[test]
    fn types_are_told_in_words_of_json() {
        check::<neurino_protocol::node::Ready>(
            json!([]),
            "it is a list of 0, and an object is needed",
        );
        check::<String>(json!({}), "it is an object, and text is needed");
        check::<Vec<String>>(
            json!("a, expected b"),
            "it is the text \"a, expected b\", and a list is needed",
        );
        check::<f32>(json!(null), "it is null, and a number is needed");
        check::<i64>(json!(1.5), "it is the number 1.5, and a whole number is needed");
        check::<u32>(json!(-1), "it is the number -1, and a whole number from 0 is needed");
        check::<bool>(json!("yes"), "it is the text \"yes\", and `true` or `false` is needed");
        check::<(u8, u8)>(json!(true), "it is `true`, and a list of that length is needed");
        check::<serde_json::Map<String, Value>>(json!([]), "it is a list, and an object is needed");
        check::<JobSpec>(json!(5), "it is the number 5, and an object is needed");
        let text = json!({ "kind": "text", "model": 5 });
        check::<JobSpec>(text, "it is the number 5, and text is needed");
        check::<neurino_core::Role>(
            json!("robot"),
            "`robot` is not known here; it can be `system`, `user`, `assistant`, `tool`",
        );
    }

    #[test]
    fn the_place_in_a_text_is_kept() {
        let error = serde_json::from_str::<Vec<u32>>("[1,\n-2]").expect_err("refused");
        let expect = "it is the number -2, and a whole number from 0 is needed at line 2 column 2";
        assert_eq!(plain(&error), expect);
        let error = serde_json::from_str::<Value>("{").expect_err("refused");
        assert_eq!(plain(&error), "EOF while parsing an object at line 1 column 1");
    }
}
