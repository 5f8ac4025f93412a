//! JSON text as Python's `json.dumps(.., ensure_ascii=False)` writes it, which the models have seen, and as
//! its `json.loads` reads it ([`Read`]).

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

mod read;

pub(crate) use read::Read;

/// The JSON text of a value: `", "` between items, `": "` behind keys, numbers as Python prints
/// them. With `indent`, one item a line.
///
/// # Errors
/// If the value cannot be JSON, for example a map with keys that are no text.
pub(crate) fn to_text<T: Serialize + ?Sized>(
    value: &T,
    indent: Option<usize>,
) -> Result<String, serde_json::Error> {
    let mut text = Vec::new();
    write(&mut text, value, indent)?;
    Ok(String::from_utf8(text).expect("the serialiser writes UTF-8"))
}

/// Writes the JSON text of a value, as [`to_text`].
///
/// # Errors
/// As [`to_text`], and those of `out`.
pub(crate) fn write<T: Serialize + ?Sized>(
    out: &mut dyn io::Write,
    value: &T,
    indent: Option<usize>,
) -> Result<(), serde_json::Error> {
    match indent {
        Some(width) => {
            let indent = " ".repeat(width.min(16));
            let pretty = Indented(PrettyFormatter::with_indent(indent.as_bytes()));
            value.serialize(&mut Serializer::with_formatter(out, pretty))
        }
        None => value.serialize(&mut Serializer::with_formatter(out, OneLine)),
    }
}

/// A number as Python's `repr` prints it: the shortest digits, an exponent below 1e-4 and from 1e16.
fn number(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = value.to_string();
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

struct OneLine;

impl Formatter for OneLine {
    fn write_f64<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(number(value).as_bytes())
    }

    fn begin_array_value<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

struct Indented<'a>(PrettyFormatter<'a>);

impl Formatter for Indented<'_> {
    fn write_f64<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(number(value).as_bytes())
    }

    fn begin_array<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_python_writes_them() {
        let json =
            r#"{"b":[1,2.50,1E5,1e16,1e-5,0.0001,-0.0,123456789.125],"a":null,"é":"<\n\"\u001f/"}"#;
        let value: serde_json::Value = serde_json::from_str(json).expect("valid");
        let expected = r#"{"b": [1, 2.5, 100000.0, 1e+16, 1e-05, 0.0001, -0.0, 123456789.125], "a": null, "é": "<\n\"\u001f/"}"#;
        assert_eq!(to_text(&value, None).expect("valid"), expected);
        let small = serde_json::json!({ "b": [1, 0.5], "c": {} });
        let expected = "{\n  \"b\": [\n    1,\n    0.5\n  ],\n  \"c\": {}\n}";
        assert_eq!(to_text(&small, Some(2)).expect("valid"), expected);
    }
}
