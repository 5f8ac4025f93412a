//! The syntax of weights in prompts.
//!
//! `(text)` weighs 1.1 times as much, `[text]` as much less, `(text:1.3)` 1.3 times; nesting multiplies, a
//! backslash makes a bracket or backslash text, and brackets that are never closed reach to the end.
//! A weight needs digits right after the colon and the closing bracket right after them: "(bad: 1.4)" is
//! the text "bad: 1.4" at 1.1.

/// What round brackets multiply by.
const ROUND: f64 = 1.1;
/// What square brackets multiply by.
const SQUARE: f64 = 1.0 / 1.1;
/// Weight of the word that SDXL's pipeline sets apart.
const BREAK_WEIGHT: f64 = -1.0;
/// Brackets of a kind that may be open at once; more are text. Each multiplies all that it holds, so
/// this bounds the work per fragment, and 1.1 to this power is far beyond any sense.
const OPEN_MAX: usize = 256;
/// The zeros of all scripts' decimal digits (Unicode 14, as the reference's Python), followed by
/// their nine other digits.
#[rustfmt::skip]
const ZEROS: [u32; 66] = [
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66,
    0xde6, 0xe50, 0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90,
    0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0,
    0xff10, 0x1_04a0, 0x1_0d30, 0x1_1066, 0x1_10f0, 0x1_1136, 0x1_11d0, 0x1_12f0, 0x1_1450,
    0x1_14d0, 0x1_1650, 0x1_16c0, 0x1_1730, 0x1_18e0, 0x1_1950, 0x1_1c50, 0x1_1d50, 0x1_1da0,
    0x1_6a60, 0x1_6ac0, 0x1_6b50, 0x1_d7ce, 0x1_d7d8, 0x1_d7e2, 0x1_d7ec, 0x1_d7f6, 0x1_e140,
    0x1_e2f0, 0x1_e950, 0x1_fbf0,
];

/// Whose rules a prompt is read by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// The pipeline of Stable Diffusion 1.5.
    Sd15,
    /// SDXL's, which takes the word `BREAK` as a fragment of weight -1.
    Sdxl,
}

/// A piece of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Fragment {
    /// The text without the syntax.
    pub text: String,
    /// How much it counts.
    pub weight: f64,
}

/// Splits a prompt into fragments, of which no two neighbours have the same weight. Every text is a
/// prompt, and an empty one is one empty fragment. The time taken grows no faster than the prompt.
pub fn parse(prompt: &str, syntax: Syntax) -> Vec<Fragment> {
    let mut reader =
        Reader { syntax, fragments: Vec::new(), round: Vec::new(), square: Vec::new() };
    let mut rest = prompt;
    while !rest.is_empty() {
        rest = reader.step(rest);
    }
    let Reader { mut fragments, round, square, .. } = reader;
    for start in round {
        scale(&mut fragments[start..], ROUND);
    }
    for start in square {
        scale(&mut fragments[start..], SQUARE);
    }
    joined(fragments)
}

struct Reader {
    syntax: Syntax,
    fragments: Vec<Fragment>,
    /// The fragments before each open bracket, `(` and `[`.
    round: Vec<usize>,
    square: Vec<usize>,
}

impl Reader {
    /// Reads the next character, weight or text; returns what follows.
    fn step<'a>(&mut self, rest: &'a str) -> &'a str {
        let mut characters = rest.chars();
        let Some(first) = characters.next() else { return rest };
        let after = characters.as_str();
        match first {
            '\\' => {
                let escaped = ['(', ')', '[', ']', '\\'].iter().find(|c| after.starts_with(**c));
                self.push(escaped.map(char::to_string).unwrap_or_default(), 1.0);
                return &after[escaped.map_or(0, |c| c.len_utf8())..];
            }
            '(' if self.round.len() < OPEN_MAX => self.round.push(self.fragments.len()),
            '[' if self.square.len() < OPEN_MAX => self.square.push(self.fragments.len()),
            ')' => match self.round.pop() {
                Some(start) => scale(&mut self.fragments[start..], ROUND),
                None => self.text(")"),
            },
            ']' => match self.square.pop() {
                Some(start) => scale(&mut self.fragments[start..], SQUARE),
                None => self.text("]"),
            },
            ':' => match weight(after) {
                Some((weight, beyond)) => {
                    match self.round.pop() {
                        Some(start) => scale(&mut self.fragments[start..], weight),
                        None => self.text(&rest[..rest.len() - beyond.len()]),
                    }
                    return beyond;
                }
                None => self.text(":"),
            },
            '(' | '[' => self.text(&rest[..1]),
            _ => {
                let end = rest.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(rest.len());
                self.text(&rest[..end]);
                return &rest[end..];
            }
        }
        after
    }

    fn push(&mut self, text: String, weight: f64) {
        self.fragments.push(Fragment { text, weight });
    }

    /// Adds plain text, in which SDXL's pipeline sets a word apart.
    fn text(&mut self, text: &str) {
        if self.syntax == Syntax::Sd15 {
            return self.push(text.to_owned(), 1.0);
        }
        let mut from = 0;
        for (at, word) in text.match_indices("BREAK") {
            let end = at + word.len();
            let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            if inside(text[..at].chars().next_back()) || inside(text[end..].chars().next()) {
                continue;
            }
            self.push(text[from..at].trim_end_matches(is_space).to_owned(), 1.0);
            self.push(word.to_owned(), BREAK_WEIGHT);
            from = text.len() - text[end..].trim_start_matches(is_space).len();
        }
        self.push(text[from..].to_owned(), 1.0);
    }
}

/// What Python's regular expressions take as space.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\x1c'..='\x1f').contains(&character)
}

fn scale(fragments: &mut [Fragment], factor: f64) {
    for fragment in fragments {
        fragment.weight *= factor;
    }
}

/// Reads `1.3)` with an optional sign, as it stands behind a colon; returns what follows.
fn weight(text: &str) -> Option<(f64, &str)> {
    let mut number = String::new();
    for (at, character) in text.char_indices() {
        match character {
            ')' => return number.parse().ok().map(|weight| (weight, &text[at + 1..])),
            '+' | '-' if at == 0 => number.push(character),
            '.' => number.push('.'),
            other => number.push(digit(other)?),
        }
    }
    None
}

/// The ASCII digit for a decimal digit of any script.
fn digit(character: char) -> Option<char> {
    let code = u32::from(character);
    let zero = ZEROS[..ZEROS.partition_point(|zero| *zero <= code)].last()?;
    char::from_digit(code - zero, 10)
}

/// Neighbours of the same weight become one fragment.
fn joined(fragments: Vec<Fragment>) -> Vec<Fragment> {
    let mut all: Vec<Fragment> = Vec::new();
    for fragment in fragments {
        match all.last_mut() {
            #[expect(clippy::float_cmp, reason = "the reference joins what is equal in all bits")]
            Some(last) if last.weight == fragment.weight => last.text.push_str(&fragment.text),
            _ => all.push(fragment),
        }
    }
    if all.is_empty() {
        all.push(Fragment { text: String::new(), weight: 1.0 });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(prompt: &str, syntax: Syntax) -> Vec<(String, f64)> {
        parse(prompt, syntax).into_iter().map(|part| (part.text, part.weight)).collect()
    }

    #[test]
    fn a_weight_that_is_no_number_is_text() {
        for prompt in ["(a:1.2.3)", "(a:.)"] {
            let text = prompt[1..prompt.len() - 1].to_owned();
            assert_eq!(read(prompt, Syntax::Sd15), [(text, ROUND)]);
        }
    }

    #[test]
    fn digits_of_other_scripts_are_digits() {
        assert_eq!(read("(a:\u{ff11}.\u{665})", Syntax::Sd15), [("a".to_owned(), 1.5)]);
        assert_eq!(read("(a:\u{b2})", Syntax::Sd15), [("a:\u{b2}".to_owned(), ROUND)]);
    }

    #[test]
    fn a_break_is_a_whole_word() {
        let found = read("xBREAK a\tBREAK\x1f BREAK_ BREAK BREAK", Syntax::Sdxl);
        let expect = [("xBREAK a", 1.0), ("BREAK", -1.0), ("BREAK_", 1.0), ("BREAK", -1.0)];
        let expect = expect.map(|(text, weight)| (text.to_owned(), weight));
        let more = [("", 1.0), ("BREAK", -1.0), ("", 1.0)].map(|(t, w)| (t.to_owned(), w));
        assert_eq!(found, [expect.as_slice(), &more].concat());
    }

    #[test]
    fn brackets_beyond_the_limit_are_text() {
        let found = read(&"(".repeat(OPEN_MAX + 2), Syntax::Sd15);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, "((");
    }
}
