//! How deep JSON from outside may nest. Whoever reads it in one go calls itself for each level, and so does
//! whatever looks at it later.

/// Levels of objects and lists in each other; requests and messages have a third of it.
pub(crate) const DEPTH_MAX: usize = 32;

/// Whether a text nests deeper than [`DEPTH_MAX`]. It need not be JSON.
pub(crate) fn is_too_deep(json: &[u8]) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_open_at_once_counts_and_no_text_does() {
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let check =
            |json: &str, deep: bool| assert_eq!(is_too_deep(json.as_bytes()), deep, "{json}");
        check(&nested(DEPTH_MAX), false);
        check(&nested(DEPTH_MAX + 1), true);
        check(&"{\"a\":".repeat(DEPTH_MAX + 1), true);
        check(&format!("[{}]", vec!["[[1]]"; 100].join(",")), false);
        check(&format!("[\"{}\"]", "[{".repeat(100)), false);
        check(&format!("[\"\\\"{}\"]", "[{".repeat(100)), false);
        check(&format!("[\"\\\\\",{}]", nested(DEPTH_MAX)), true);
        check("]]]]", false);
    }
}
