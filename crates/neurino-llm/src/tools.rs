//! Function calls in an answer: how models write them, and how they are found again.
//!
//! A reply is either text with calls behind it, or, if any call cannot be read, text from end to
//! end. That is only known when the reply is complete, so calls come out last; text before the first
//! possible call is let through at once. Of a reply that was cut off, the calls before the cut stand.

use neurino_core::job::{ToolCall, ToolDefinition};
use serde::Deserialize;
use serde_json::Value;

use crate::python_json::{self, Read};
use crate::tokenizer::Tokenizer;

/// How a model writes function calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ToolSyntax {
    /// `<tool_call>{"name": .., "arguments": ..}</tool_call>`, any number of them (Hermes, Qwen).
    Hermes,
    /// `{"name": .., "parameters": ..}` as the whole reply, or behind `<|python_tag|>`; several are
    /// separated by `;` (Llama 3.1 and later).
    Llama3Json,
    /// `[TOOL_CALLS] [{"name": .., "arguments": ..}, ..]`, or `[TOOL_CALLS]name[ARGS]{..}` for each
    /// (Mistral).
    Mistral,
}

impl ToolSyntax {
    /// The syntax that a template's text speaks of, if it does.
    pub fn of_template(template: &str) -> Option<Self> {
        let known = [Self::Hermes, Self::Mistral, Self::Llama3Json];
        known.into_iter().find(|syntax| template.contains(syntax.opening()))
    }

    /// The syntax that a vocabulary has tokens for, if it has.
    pub fn of_vocabulary(tokenizer: &Tokenizer) -> Option<Self> {
        let known = [Self::Hermes, Self::Mistral, Self::Llama3Json];
        known.into_iter().find(|syntax| tokenizer.token_id(syntax.opening()).is_some())
    }

    /// The text that announces calls.
    pub fn opening(self) -> &'static str {
        match self {
            Self::Hermes => "<tool_call>",
            Self::Llama3Json => "<|python_tag|>",
            Self::Mistral => "[TOOL_CALLS]",
        }
    }

    /// Texts that a vocabulary may hold as special tokens and that have to stay in the reply for its
    /// calls to be found.
    pub fn marks(self) -> &'static [&'static str] {
        match self {
            Self::Hermes => &["<tool_call>", "</tool_call>"],
            Self::Llama3Json => &["<|python_tag|>"],
            Self::Mistral => &["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"],
        }
    }

    /// The key of the arguments in a call.
    pub(crate) fn arguments_key(self) -> &'static str {
        match self {
            Self::Hermes | Self::Mistral => "arguments",
            Self::Llama3Json => "parameters",
        }
    }

    /// The name of call `index` of an answer, which follows from `seed` alone. Mistral's templates
    /// take nine letters and digits.
    fn call_id(self, seed: u64, index: usize) -> String {
        let bits = |round: u64| mix(mix(seed) ^ mix((index as u64) << 8 | round));
        match self {
            Self::Hermes | Self::Llama3Json => {
                format!("call_{:016x}{:08x}", bits(0), bits(1) as u32)
            }
            Self::Mistral => {
                const LETTERS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
                let mut rest = bits(0);
                let letter = |_| {
                    let letter = char::from(LETTERS[(rest % 36) as usize]);
                    rest /= 36;
                    letter
                };
                (0..9).map(letter).collect()
            }
        }
    }
}

/// SplitMix64's finaliser: spreads every bit over all others.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// What a piece of a reply turned out to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextPiece {
    /// Text that certainly is content.
    pub text: String,
    /// Calls; all of them come with [`ToolStream::finish`].
    pub calls: Vec<ToolCall>,
}

/// Tells content and calls of a reply apart while it arrives.
#[derive(Debug, Clone)]
pub struct ToolStream {
    syntax: ToolSyntax,
    names: Vec<String>,
    seed: u64,
    /// The reply so far.
    reply: String,
    /// Bytes of it that were let through.
    passed: usize,
    /// Where calls begin, once that was seen.
    opened: Option<usize>,
}

impl ToolStream {
    /// For a reply that may call `tools`. The calls' ids follow from `seed`; give every answer its
    /// own.
    pub fn new(syntax: ToolSyntax, tools: &[ToolDefinition], seed: u64) -> Self {
        let names = tools.iter().map(|tool| tool.name.clone()).collect();
        Self { syntax, names, seed, reply: String::new(), passed: 0, opened: None }
    }

    /// Takes the next piece of the reply. What could still become a call is held back.
    pub fn push(&mut self, piece: &str) -> TextPiece {
        self.reply.push_str(piece);
        if self.opened.is_none() {
            self.opened = self.find_opening();
        }
        let end = match self.opened {
            Some(at) => at,
            None => self.reply.len() - self.open_suffix(),
        };
        TextPiece { text: self.pass_to(end), calls: Vec::new() }
    }

    /// The calls, or the text that was held back for one. The reply had no more text than `push` and
    /// this let through; `cut_off` says that it would have gone on, so that its last call may lack
    /// its end.
    pub fn finish(mut self, cut_off: bool) -> TextPiece {
        let Some(at) = self.opened else {
            return TextPiece { text: self.pass_to(self.reply.len()), calls: Vec::new() };
        };
        let found = match self.syntax {
            ToolSyntax::Hermes => hermes(&self.reply[at..], cut_off),
            ToolSyntax::Llama3Json => llama3(&self.reply[at..], &self.names, cut_off),
            ToolSyntax::Mistral => mistral(&self.reply[at..], cut_off),
        };
        match found {
            Some(found) => {
                let call = |(index, (name, arguments))| ToolCall {
                    id: self.syntax.call_id(self.seed, index),
                    name,
                    arguments,
                };
                let calls = found.into_iter().enumerate().map(call).collect();
                TextPiece { text: String::new(), calls }
            }
            None => TextPiece { text: self.pass_to(self.reply.len()), calls: Vec::new() },
        }
    }

    /// Where calls begin in the reply.
    fn find_opening(&self) -> Option<usize> {
        let opening = self.syntax.opening();
        // A bare object counts only where the reply begins with it.
        if self.syntax == ToolSyntax::Llama3Json {
            let start = self.reply.len() - self.reply.trim_start().len();
            if self.passed <= start && self.reply[start..].starts_with('{') {
                return Some(start);
            }
        }
        self.reply[self.passed..].find(opening).map(|at| self.passed + at)
    }

    /// Bytes at the end that may begin a call.
    fn open_suffix(&self) -> usize {
        let rest = &self.reply[self.passed..];
        if self.syntax == ToolSyntax::Llama3Json && self.reply.trim_start().is_empty() {
            return rest.len();
        }
        let opening = self.syntax.opening();
        let longest = opening.len().min(rest.len() + 1);
        (1..longest).rev().find(|&n| rest.ends_with(&opening[..n])).unwrap_or(0)
    }

    fn pass_to(&mut self, end: usize) -> String {
        let text = self.reply[self.passed.min(end)..end].to_owned();
        self.passed = self.passed.max(end);
        text
    }
}

/// A call whose arguments may go by either word.
#[derive(Deserialize)]
struct Written {
    name: String,
    arguments: Option<Value>,
    parameters: Option<Value>,
}

impl Written {
    /// Name and arguments; the text of the arguments is Python's, as other servers give it.
    fn into_call(self) -> Option<(String, String)> {
        let arguments = self.arguments.or(self.parameters)?;
        Some((self.name, python_json::to_text(&arguments, None).ok()?))
    }
}

type Found = Vec<(String, String)>;

/// Calls between tags. The last one may lack its end; text between and behind is dropped.
fn hermes(reply: &str, cut_off: bool) -> Option<Found> {
    let mut calls = Vec::new();
    let mut rest = reply;
    while let Some((_, behind)) = rest.split_once("<tool_call>") {
        let ended = behind.split_once("</tool_call>");
        let (call, next) = ended.unwrap_or((behind, ""));
        match tagged(call) {
            Some(call) => calls.push(call),
            None if cut_off && ended.is_none() => break,
            None => return None,
        }
        rest = next;
    }
    (!calls.is_empty()).then_some(calls)
}

/// An object with a name and arguments, read and written as the reference's Python does.
fn tagged(call: &str) -> Option<(String, String)> {
    let mut call = Read::from_text(call)?;
    match (call.take("name")?, call.take("arguments")?) {
        (Read::Text(name), arguments) => Some((name, arguments.to_text())),
        _ => None,
    }
}

/// One object after the other; all of them known functions, nothing else beside them.
fn llama3(reply: &str, names: &[String], cut_off: bool) -> Option<Found> {
    let mut rest = reply.strip_prefix("<|python_tag|>").unwrap_or(reply).trim();
    let mut calls = Vec::new();
    while !rest.is_empty() {
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Written>();
        let call = match values.next()? {
            Ok(call) => call.into_call()?,
            Err(error) if cut_off && error.is_eof() => break,
            Err(_) => return None,
        };
        if !names.contains(&call.0) {
            return None;
        }
        calls.push(call);
        rest = rest[values.byte_offset()..].trim_start();
        rest = rest.strip_prefix(';').unwrap_or(rest).trim_start();
    }
    (!calls.is_empty()).then_some(calls)
}

/// A list behind the mark, or a name and an object behind each mark.
fn mistral(reply: &str, cut_off: bool) -> Option<Found> {
    let body = reply.strip_prefix("[TOOL_CALLS]")?;
    if let Some(items) = body.trim_start().strip_prefix('[') {
        let calls = match serde_json::from_str::<Vec<Written>>(body.trim()) {
            Ok(written) => {
                written.into_iter().map(Written::into_call).collect::<Option<Found>>()?
            }
            Err(error) if cut_off && error.is_eof() => before_the_cut(items)?,
            Err(_) => return None,
        };
        return (!calls.is_empty()).then_some(calls);
    }
    let mut pieces: Vec<&str> = body.split("[TOOL_CALLS]").collect();
    let last = pieces.pop()?;
    let mut calls: Found = pieces.into_iter().map(named).collect::<Option<_>>()?;
    // The cut may lie within the mark of the next call.
    let whole = || {
        let mark = "[TOOL_CALLS]";
        (1..mark.len()).rev().find_map(|end| named(last.strip_suffix(&mark[..end])?))
    };
    match named(last).or_else(|| if cut_off { whole() } else { None }) {
        Some(call) => calls.push(call),
        None if cut_off && !calls.is_empty() => {}
        None => return None,
    }
    Some(calls)
}

/// The whole calls of a list whose end is missing.
fn before_the_cut(items: &str) -> Option<Found> {
    let mut calls = Vec::new();
    let mut rest = items.trim_start();
    loop {
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Written>();
        match values.next() {
            Some(Ok(call)) => calls.push(call.into_call()?),
            // The reader of the whole list found nothing wrong but its end.
            _ => return Some(calls),
        }
        rest = rest[values.byte_offset()..].trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
}

fn named(call: &str) -> Option<(String, String)> {
    let (head, arguments) = call.split_once("[ARGS]")?;
    let name = head.split_once("[CALL_ID]").map_or(head, |(name, _)| name).trim();
    let arguments: Value = serde_json::from_str(arguments.trim()).ok()?;
    let is_call = !name.is_empty() && arguments.is_object();
    is_call.then_some((name.to_owned(), python_json::to_text(&arguments, None).ok()?))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const CASES: &str = include_str!("../../../tests/fixtures/text/tool_calls.json");

    fn tools() -> Vec<ToolDefinition> {
        let tool =
            |name: &str| ToolDefinition { name: name.into(), description: None, parameters: None };
        ["a", "b", "get_weather"].map(tool).into()
    }

    /// Content and calls of a reply that arrives in pieces of `size` characters.
    fn read(syntax: ToolSyntax, reply: &str, size: usize, cut_off: bool) -> (String, Found) {
        let mut stream = ToolStream::new(syntax, &tools(), 7);
        let characters: Vec<char> = reply.chars().collect();
        let mut text = String::new();
        for piece in characters.chunks(size) {
            let piece = stream.push(&piece.iter().collect::<String>());
            assert_eq!(piece.calls, []);
            text.push_str(&piece.text);
        }
        let last = stream.finish(cut_off);
        text.push_str(&last.text);
        (text, last.calls.into_iter().map(|call| (call.name, call.arguments)).collect())
    }

    #[track_caller]
    fn check(syntax: ToolSyntax, reply: &str, content: &str, calls: &[(&str, &str)]) {
        compare(syntax, reply, false, content, calls);
    }

    #[track_caller]
    fn compare(
        syntax: ToolSyntax,
        reply: &str,
        cut_off: bool,
        content: &str,
        calls: &[(&str, &str)],
    ) {
        let calls: Found = calls.iter().map(|c| (c.0.to_owned(), c.1.to_owned())).collect();
        for size in [1, 2, 3, 7, 1000] {
            let expected = (content.to_owned(), calls.clone());
            assert_eq!(read(syntax, reply, size, cut_off), expected, "pieces of {size}");
        }
    }

    #[test]
    fn agrees_with_the_reference() {
        let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
        assert!(cases.len() >= 5);
        for case in cases {
            let calls: Vec<(&str, &str)> = case["tool_calls"]
                .as_array()
                .unwrap()
                .iter()
                .map(|c| (c["name"].as_str().unwrap(), c["arguments"].as_str().unwrap()))
                .collect();
            let content = case["content"].as_str().unwrap_or("");
            check(ToolSyntax::Hermes, case["output"].as_str().unwrap(), content, &calls);
        }
    }

    #[test]
    fn one_bad_call_makes_everything_text() {
        for reply in [
            "x <tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call><tool_call>no</tool_call>",
            "<tool_call>{\"name\": \"a\", \"arguments\": {\"x\": 1}",
            "<tool_call>{\"name\": 5, \"arguments\": {}}</tool_call>",
            "<tool_call>{\"name\": \"a\"}</tool_call>",
            "<tool_call>",
            "<tool_cal",
        ] {
            check(ToolSyntax::Hermes, reply, reply, &[]);
        }
        for reply in ["{\"name\": \"Bob\", \"parameters\": {}}", "{\"a\": 1}", "{} x", " {", "a {}"]
        {
            check(ToolSyntax::Llama3Json, reply, reply, &[]);
        }
        for reply in ["[TOOL_CALLS]", "[TOOL_CALLS] []", "[TOOL_CALLS]a[ARGS]5", "[TOOL"] {
            check(ToolSyntax::Mistral, reply, reply, &[]);
        }
    }

    #[test]
    fn calls_before_a_cut_stand() {
        let arguments = r#"{"x": 1}"#;
        let one = [("a", arguments)];
        let call = r#"{"name": "a", "arguments": {"x": 1}}"#;
        for (syntax, whole, next) in [
            (
                ToolSyntax::Hermes,
                format!("<tool_call>{call}</tool_call>"),
                format!("\n<tool_call>\n{call}"),
            ),
            (ToolSyntax::Llama3Json, call.to_owned(), format!("; {call}")),
            (ToolSyntax::Mistral, format!("[TOOL_CALLS] [{call}"), format!(", {call}")),
            (
                ToolSyntax::Mistral,
                format!("[TOOL_CALLS]a[ARGS]{arguments}"),
                format!("[TOOL_CALLS]a[ARGS]{arguments}"),
            ),
        ] {
            // Wherever in the second call the cut is, the first one stands; a whole one counts.
            for end in 1..next.len() {
                compare(syntax, &format!("{whole}{}", &next[..end]), true, "", &one);
            }
            compare(syntax, &format!("{whole}{next}"), true, "", &[one[0], one[0]]);
            // Within the first one there is no call yet.
            let begun = whole.trim_end_matches("</tool_call>");
            let begun = &begun[..begun.len() - 1];
            compare(syntax, begun, true, begun, &[]);
        }
        // A wrong call before the cut is wrong all the same.
        let wrong = format!("<tool_call>no</tool_call><tool_call>{call}");
        compare(ToolSyntax::Hermes, &wrong, true, &wrong, &[]);
        let whole = format!("{call}; {{\"name\": \"b\", \"argu");
        compare(ToolSyntax::Llama3Json, &whole, false, &whole, &[]);
    }

    #[test]
    fn other_models_write_calls_in_their_way() {
        let one = r#"{"name": "a", "parameters": {"x": 1}}"#;
        let arguments = r#"{"x": 1}"#;
        check(ToolSyntax::Llama3Json, one, "", &[("a", arguments)]);
        let two = format!("<|python_tag|>{one}; {one}\n");
        check(ToolSyntax::Llama3Json, &two, "", &[("a", arguments), ("a", arguments)]);
        let behind = format!("Let me see. {two}");
        let calls = [("a", arguments), ("a", arguments)];
        check(ToolSyntax::Llama3Json, &behind, "Let me see. ", &calls);
        let list = r#"[TOOL_CALLS] [{"name": "b", "arguments": {"x":1.50}}]"#;
        check(ToolSyntax::Mistral, list, "", &[("b", r#"{"x": 1.5}"#)]);
        let named = "Hm.[TOOL_CALLS]a[ARGS]{}[TOOL_CALLS]b[CALL_ID]012345678[ARGS]{\"x\": 1}";
        check(ToolSyntax::Mistral, named, "Hm.", &[("a", "{}"), ("b", arguments)]);
    }

    #[test]
    fn only_what_could_become_a_call_is_held_back() {
        let mut stream = ToolStream::new(ToolSyntax::Hermes, &tools(), 0);
        let mut pass = |piece: &str| stream.push(piece).text;
        assert_eq!(pass("a <to"), "a ");
        assert_eq!(pass("ast> <"), "<toast> ");
        assert_eq!(pass("tool_call>{"), "");
    }

    #[test]
    fn ids_follow_from_the_seed() {
        let reply = "<tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call>".repeat(2);
        let ids = |seed: u64| -> Vec<String> {
            let mut stream = ToolStream::new(ToolSyntax::Hermes, &tools(), seed);
            stream.push(&reply);
            stream.finish(false).calls.into_iter().map(|call| call.id).collect()
        };
        assert_eq!(ids(1), ids(1));
        let all: std::collections::BTreeSet<String> = (0..50).flat_map(ids).collect();
        assert_eq!(all.len(), 100);
        assert!(all.iter().all(|id| id.len() == 29 && id.starts_with("call_")));
        let short = ToolSyntax::Mistral.call_id(3, 0);
        assert!(short.len() == 9 && short.chars().all(|c| c.is_ascii_alphanumeric()));
    }

    #[test]
    fn the_template_tells_the_syntax() {
        assert_eq!(ToolSyntax::of_template("x <tool_call> y"), Some(ToolSyntax::Hermes));
        assert_eq!(ToolSyntax::of_template("[TOOL_CALLS]"), Some(ToolSyntax::Mistral));
        assert_eq!(ToolSyntax::of_template("<|python_tag|>"), Some(ToolSyntax::Llama3Json));
        assert_eq!(ToolSyntax::of_template("{{ messages }}"), None);
    }

    /// Expected values: `json.loads` and `json.dumps` of Python 3.11, which the reference uses.
    #[test]
    fn hermes_calls_are_read_as_python_reads_them() {
        let found = |call: &str| hermes(&format!("<tool_call>{call}</tool_call>"), false);
        let is = |name: &str, arguments: &str| Some(vec![(name.to_owned(), arguments.to_owned())]);
        let numbers = r#"{"name":"a","arguments":{"n":123456789012345678901234567890,"m":-0}}"#;
        assert_eq!(found(numbers), is("a", r#"{"n": 123456789012345678901234567890, "m": 0}"#));
        let nan = r#"{"name":"a","arguments":{"x":NaN}}"#;
        assert_eq!(found(nan), is("a", r#"{"x": NaN}"#));
        assert_eq!(found(r#"{"name":"a","name":"b","arguments":{}}"#), is("b", "{}"));
        assert_eq!(found("\n\t{\"name\":\"a\",\"arguments\":[]}\r "), is("a", "[]"));
        for text in
            [r#"["a",{"x":1}]"#, "\u{a0}{\"name\":\"a\",\"arguments\":{}}", r#"{"name":"a"}"#, "7"]
        {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
