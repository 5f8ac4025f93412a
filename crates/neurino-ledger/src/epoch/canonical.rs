//! One spelling for a JSON value, after RFC 8785: names sorted, no blanks, whole numbers alone.

use serde::Serialize;
use serde_json::Value;

use super::EpochError;

/// Largest whole number that every reader of JSON takes as it is.
const WHOLE_MAX: i64 = (1 << 53) - 1;

/// The canonical text of a value.
///
/// # Errors
/// `Number` for fractions, and for whole numbers beyond 2^53 - 1, which many readers would change.
pub fn canonical_json(value: &impl Serialize) -> Result<String, EpochError> {
    let value = serde_json::to_value(value).map_err(|_| EpochError::Number("a value"))?;
    let mut text = String::new();
    write(&value, &mut text)?;
    Ok(text)
}

fn write(value: &Value, out: &mut String) -> Result<(), EpochError> {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => out.push_str(&value.to_string()),
        Value::Number(number) => {
            let whole = number.as_i64().filter(|whole| (-WHOLE_MAX..=WHOLE_MAX).contains(whole));
            let whole = whole.ok_or(EpochError::Number("a number"))?;
            out.push_str(&whole.to_string());
        }
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(item, out)?;
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            // RFC 8785 sorts by UTF-16 units.
            names.sort_by(|a, b| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (at, name) in names.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write(&fields[name], out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}
