//! JSON text as Python's `json.loads` reads it: whole numbers of any size, `NaN` and `Infinity` too, and
//! of a key that occurs twice the last value.

use std::fmt::Write as _;

use super::number;

/// Deepest nesting that is read.
const DEPTH_MAX: usize = 128;
/// Digits of a whole number that Python reads from text.
const DIGITS_MAX: usize = 4300;

/// A value of a text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Read {
    /// A number or a word, as `json.dumps` writes it.
    Plain(String),
    Text(String),
    List(Vec<Self>),
    /// In the order in which the keys first occur.
    Object(Vec<(String, Self)>),
}

impl Read {
    /// Reads a text that is one value between white space; `None` for any other.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let mut reader = Reader { rest: text };
        let value = reader.value(0)?;
        reader.skip_space();
        reader.rest.is_empty().then_some(value)
    }

    /// Takes the value of a key out of an object.
    pub(crate) fn take(&mut self, key: &str) -> Option<Self> {
        let Self::Object(entries) = self else { return None };
        let at = entries.iter().position(|(name, _)| name == key)?;
        Some(entries.swap_remove(at).1)
    }

    /// The text that `json.dumps(.., ensure_ascii=False)` writes.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match self {
            Self::Plain(text) => out.push_str(text),
            Self::Text(text) => out.push_str(&quoted(text)),
            Self::List(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { ", " });
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(entries) => {
                out.push('{');
                for (i, (key, value)) in entries.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    // Writing into a text cannot fail.
                    let _ = write!(out, "{comma}{}: ", quoted(key));
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

/// What is left to read.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Reads `text` if it comes next.
    fn eat(&mut self, text: &str) -> bool {
        let behind = self.rest.strip_prefix(text);
        self.rest = behind.unwrap_or(self.rest);
        behind.is_some()
    }

    fn value(&mut self, depth: usize) -> Option<Read> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.skip_space();
        for word in ["null", "true", "false", "NaN", "Infinity", "-Infinity"] {
            if self.eat(word) {
                return Some(Read::Plain(word.to_owned()));
            }
        }
        match self.rest.as_bytes().first()? {
            b'"' => self.text().map(Read::Text),
            b'[' => self.list(depth),
            b'{' => self.object(depth),
            _ => self.number().map(Read::Plain),
        }
    }

    fn list(&mut self, depth: usize) -> Option<Read> {
        let mut items = Vec::new();
        self.eat("[");
        self.skip_space();
        if self.eat("]") {
            return Some(Read::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.skip_space();
            if self.eat("]") {
                return Some(Read::List(items));
            }
            if !self.eat(",") {
                return None;
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Read> {
        let mut entries: Vec<(String, Read)> = Vec::new();
        self.eat("{");
        self.skip_space();
        if self.eat("}") {
            return Some(Read::Object(entries));
        }
        loop {
            self.skip_space();
            let key = self.text()?;
            self.skip_space();
            if !self.eat(":") {
                return None;
            }
            let value = self.value(depth + 1)?;
            match entries.iter_mut().find(|(known, _)| *known == key) {
                Some((_, before)) => *before = value,
                None => entries.push((key, value)),
            }
            self.skip_space();
            if self.eat("}") {
                return Some(Read::Object(entries));
            }
            if !self.eat(",") {
                return None;
            }
        }
    }

    /// A text with its quotes. Halves of a pair of surrogates that stand alone are no text here.
    fn text(&mut self) -> Option<String> {
        let body = self.rest.strip_prefix('"')?;
        let mut escaped = false;
        let end = body.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        let (text, behind) = self.rest.split_at(end + 2);
        self.rest = behind;
        serde_json::from_str(text).ok()
    }

    /// Digits that come next, perhaps none.
    fn digits(&mut self) -> &'a str {
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, behind) = self.rest.split_at(end);
        self.rest = behind;
        digits
    }

    fn number(&mut self) -> Option<String> {
        let start = self.rest;
        self.eat("-");
        let whole = self.digits();
        if whole.is_empty() || whole.len() > 1 && whole.starts_with('0') {
            return None;
        }
        let mut is_whole = true;
        if self.eat(".") {
            is_whole = false;
            if self.digits().is_empty() {
                return None;
            }
        }
        if self.eat("e") || self.eat("E") {
            is_whole = false;
            if !self.eat("+") {
                self.eat("-");
            }
            if self.digits().is_empty() {
                return None;
            }
        }
        let text = &start[..start.len() - self.rest.len()];
        if is_whole {
            let zero = whole == "0";
            return (whole.len() <= DIGITS_MAX).then(|| if zero { "0" } else { text }.to_owned());
        }
        let value: f64 = text.parse().ok()?;
        Some(match value {
            f64::INFINITY => "Infinity".to_owned(),
            f64::NEG_INFINITY => "-Infinity".to_owned(),
            value => number(value),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: `json.dumps(json.loads(text), ensure_ascii=False)` of Python 3.11.
    #[test]
    fn values_are_read_as_python_reads_them() {
        for (text, expect) in [
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            (
                "[-0, -0.0, 0, -7, 1.50, 1E5, 1e16, 1e999, -1e999]",
                "[0, -0.0, 0, -7, 1.5, 100000.0, 1e+16, Infinity, -Infinity]",
            ),
            (
                "[NaN,Infinity,-Infinity,null,true,false]",
                "[NaN, Infinity, -Infinity, null, true, false]",
            ),
            (r#" {"a":1,"b":{},"a":[]} "#, r#"{"a": [], "b": {}}"#),
            (r#""\u00e9\ud83d\ude42\/\\\"\n\u001f""#, "\"é🙂/\\\\\\\"\\n\\u001f\""),
            ("[ ]", "[]"),
        ] {
            assert_eq!(Read::from_text(text).map(|v| v.to_text()).as_deref(), Some(expect));
        }
    }

    #[test]
    fn what_python_refuses_is_refused() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        let long = "1".repeat(DIGITS_MAX + 1);
        for text in [
            "",
            " ",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "-",
            "--1",
            "nan",
            "'a'",
            "\"a",
            "\"\t\"",
            "[1,]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "{1:1}",
            "1 2",
            "\u{a0}1",
            "\"\\x\"",
            "tru",
            "\\\"a\"",
            &deep,
            &long,
        ] {
            assert_eq!(Read::from_text(text), None, "{text}");
        }
    }
}
