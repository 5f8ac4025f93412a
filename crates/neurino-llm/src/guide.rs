//! Keeps an answer inside a form while it is generated: JSON, JSON of a schema, or a function call.
//!
//! A [`Guide`] says before every token which ones may follow. It works on the bytes of the tokens, so
//! it fits every vocabulary. Its limits bound the time and memory that a schema can cost.

use std::sync::Arc;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use neurino_core::job::ToolDefinition;
use serde_json::{Value, json};

use crate::tokenizer::Tokenizer;
use crate::tools::ToolSyntax;

/// Calls that a reply which has to call functions may hold.
const CALLS_MAX: u32 = 8;
/// Most values in a schema, objects and lists included.
const SCHEMA_VALUES_MAX: usize = 20_000;
/// Deepest nesting of a schema.
const SCHEMA_DEPTH_MAX: usize = 64;
/// Most properties of one object; the work grows with their square.
const PROPERTIES_MAX: usize = 500;
/// Most symbols in the rules that a schema becomes; a property takes about ten.
const RULES_MAX: usize = 50_000;
/// Places in the rules that the tokens behind one place may reach together. Ten times what the widest
/// schemas within the other limits came to with vocabularies of 49,152 and 128,001 tokens.
const REACHED_MAX: usize = 500_000;
/// Longest count in a schema (`minLength`, `maxItems`, ..).
const SCHEMA_COUNT_MAX: u64 = 10_000;

/// Why an answer cannot be guided.
#[derive(Debug, thiserror::Error)]
pub enum GuideError {
    /// The schema asks for something that cannot be enforced.
    #[error("the schema cannot be enforced ({0}); leave that out or simplify it")]
    Unsupported(String),
    /// The schema is beyond what is computed for one answer.
    #[error("the schema is too large or too intricate ({0}); simplify it")]
    TooComplex(String),
    /// There is no function to call.
    #[error("there is no function to call; give at least one tool")]
    NoTools,
    /// A token that the form does not allow here.
    #[error("token {0} does not fit the form that was asked for")]
    Refused(u32),
}

/// The bytes of a tokenizer's tokens as a tree, made once a tokenizer.
pub(crate) struct Vocabulary {
    factory: ParserFactory,
}

impl Vocabulary {
    fn new(tokenizer: &Tokenizer) -> Result<Self, GuideError> {
        let size = tokenizer.vocab_size();
        let word = |token: u32| {
            let bytes = tokenizer.token_bytes(token);
            if tokenizer.is_special(token) || tokenizer.is_end(token) {
                // Cannot be spelled by any text.
                return [vec![TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat();
            }
            if bytes.starts_with(&[TokTrie::SPECIAL_TOKEN_MARKER]) { Vec::new() } else { bytes }
        };
        let mut words: Vec<Vec<u8>> = (0..size as u32).map(word).collect();
        let mut ends: Vec<u32> = tokenizer.ends().filter(|end| (*end as usize) < size).collect();
        if ends.is_empty() {
            // A vocabulary without an end token gets one that no model can choose.
            ends.push(size as u32);
            words.push(b"\xff<end>".to_vec());
        }
        let info = TokRxInfo::new(words.len() as u32, ends[0]);
        let trie = TokTrie::from(&info, &words).with_eos_tokens(&ends);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&environment)
            .map_err(|error| GuideError::Unsupported(short(&error.to_string())))?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            initial_lexer_fuel: 500_000,
            max_lexer_states: 50_000,
            max_grammar_size: RULES_MAX,
            // One place in an answer is at most every place in the rules: a schema is refused before
            // the answer begins, or its rows never get too long in the middle of one.
            max_items_in_row: RULES_MAX,
            step_max_items: REACHED_MAX,
            precompute_large_lexemes: false,
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(Self { factory })
    }

    fn of(tokenizer: &Tokenizer) -> Result<Arc<Self>, GuideError> {
        let cell = tokenizer.guide_vocabulary();
        if let Some(vocabulary) = cell.get() {
            return Ok(Arc::clone(vocabulary));
        }
        let made = Arc::new(Self::new(tokenizer)?);
        Ok(Arc::clone(cell.get_or_init(|| made)))
    }
}

/// Which tokens may follow, in one answer.
pub struct Guide {
    matcher: Matcher,
}

impl Clone for Guide {
    /// A guide in the same state that shares nothing with this one.
    fn clone(&self) -> Self {
        Self { matcher: self.matcher.deep_clone() }
    }
}

impl Guide {
    /// Makes what all guides over a vocabulary share, which takes half a second for the largest ones;
    /// else the first guide does it.
    ///
    /// # Errors
    /// `Unsupported` for a vocabulary that cannot be walked.
    pub fn prepare(tokenizer: &Tokenizer) -> Result<(), GuideError> {
        Vocabulary::of(tokenizer).map(|_| ())
    }

    /// One JSON object with anything in it.
    ///
    /// # Errors
    /// `Unsupported` for a vocabulary that cannot spell JSON.
    pub fn json_object(tokenizer: &Tokenizer) -> Result<Self, GuideError> {
        Self::json_schema(tokenizer, &json!({ "type": "object" }))
    }

    /// JSON that fits a schema, on one line.
    ///
    /// # Errors
    /// `Unsupported` names what the schema asks for in vain; `TooComplex`.
    pub fn json_schema(tokenizer: &Tokenizer, schema: &Value) -> Result<Self, GuideError> {
        Self::compile(tokenizer, TopLevelGrammar::from_json_schema(prepared(schema)?))
    }

    /// One or more calls of `tools` and nothing else; exactly one call of `forced`, if given.
    ///
    /// Arguments that a schema does not mention are not allowed unless it says so.
    ///
    /// # Errors
    /// `NoTools` if there are none or none has the name; else as [`Guide::json_schema`].
    pub fn tool_call(
        tokenizer: &Tokenizer,
        syntax: ToolSyntax,
        tools: &[ToolDefinition],
        forced: Option<&str>,
    ) -> Result<Self, GuideError> {
        let wanted = |tool: &&ToolDefinition| forced.is_none_or(|name| name == tool.name);
        let tools: Vec<&ToolDefinition> = tools.iter().filter(wanted).collect();
        if tools.is_empty() {
            return Err(GuideError::NoTools);
        }
        let mut rules = Vec::new();
        for (index, tool) in tools.iter().enumerate() {
            rules.push(call_rule(index, tool, syntax)?);
        }
        let any: Vec<String> = (0..tools.len()).map(|index| format!("call_{index}")).collect();
        let more = if forced.is_some() { 0 } else { CALLS_MAX - 1 };
        let start = start_rule(tokenizer, syntax, more);
        let grammar = format!("start: {start}\ncall: {}\n{}", any.join(" | "), rules.concat());
        Self::compile(tokenizer, TopLevelGrammar::from_lark(grammar))
    }

    fn compile(tokenizer: &Tokenizer, grammar: TopLevelGrammar) -> Result<Self, GuideError> {
        let vocabulary = Vocabulary::of(tokenizer)?;
        let parser = vocabulary.factory.create_parser(grammar);
        let mut matcher = Matcher::new(parser);
        if let Some(error) = matcher.get_error() {
            return Err(refusal(&error));
        }
        // The first mask shows whether the vocabulary can spell the form at all.
        matcher.compute_mask().map_err(|error| refusal(&error.to_string()))?;
        Ok(Self { matcher })
    }

    /// Takes away every token that must not follow: its logit becomes negative infinity. Once the
    /// form [is complete](Guide::is_complete), only end tokens are left.
    ///
    /// # Errors
    /// `TooComplex` if the form became too intricate to follow.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<(), GuideError> {
        let allowed = self.allowed()?;
        for (token, logit) in (0..).zip(logits.iter_mut()) {
            if (token as usize) >= allowed.len() || !allowed.is_allowed(token) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    /// Takes the token that was chosen.
    ///
    /// # Errors
    /// `Refused` for a token that must not follow, `TooComplex` if the form became too intricate to
    /// follow; the guide is of no use afterwards.
    pub fn accept(&mut self, token: u32) -> Result<(), GuideError> {
        self.matcher.consume_token(token).map_err(|error| match refusal(&error.to_string()) {
            GuideError::TooComplex(limit) => GuideError::TooComplex(limit),
            _ => GuideError::Refused(token),
        })
    }

    /// Whether the form is complete and nothing but an end token can follow. An answer may end here
    /// without the model saying so.
    pub fn is_complete(&self) -> bool {
        self.matcher.is_stopped()
    }

    fn allowed(&mut self) -> Result<SimpleVob, GuideError> {
        self.matcher
            .compute_mask_or_eos()
            .map_err(|error| GuideError::TooComplex(short(&error.to_string())))
    }
}

impl std::fmt::Debug for Guide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guide").field("complete", &self.is_complete()).finish_non_exhaustive()
    }
}

/// `call_3: "{\"name\": \"f\", \"arguments\": " %json {..} "}"`.
fn call_rule(
    index: usize,
    tool: &ToolDefinition,
    syntax: ToolSyntax,
) -> Result<String, GuideError> {
    let mut schema = tool.parameters.clone().unwrap_or_else(|| json!({ "type": "object" }));
    if let Some(fields) = schema.as_object_mut() {
        fields.entry("type").or_insert_with(|| "object".into());
        fields.entry("properties").or_insert_with(|| json!({}));
        fields.entry("additionalProperties").or_insert(Value::Bool(false));
    }
    let name = Value::from(tool.name.as_str());
    let head = format!("{{\"name\": {name}, \"{}\": ", syntax.arguments_key());
    let schema = prepared(&schema)?;
    Ok(format!("call_{index}: {} %json {schema} \"}}\"\n", Value::from(head)))
}

/// What stands around the calls.
fn start_rule(tokenizer: &Tokenizer, syntax: ToolSyntax, more: u32) -> String {
    let mark = |text: &str| match tokenizer.token_id(text) {
        Some(token) if tokenizer.is_special(token) => format!("<[{token}]>"),
        _ => Value::from(text).to_string(),
    };
    let calls = |call: &str, between: &str| match more {
        0 => call.to_owned(),
        _ => format!("{call} ({between} {call}){{0,{more}}}"),
    };
    match syntax {
        ToolSyntax::Hermes => {
            let (open, close) = (mark("<tool_call>"), mark("</tool_call>"));
            calls(&format!("{open} \"\\n\" call \"\\n\" {close}"), "\"\\n\"")
        }
        ToolSyntax::Llama3Json => calls("call", "\"; \""),
        ToolSyntax::Mistral => {
            format!("{} \" [\" {} \"]\"", mark("[TOOL_CALLS]"), calls("call", "\", \""))
        }
    }
}

/// The schema with our own settings, within our own limits.
fn prepared(schema: &Value) -> Result<Value, GuideError> {
    let mut schema = match schema {
        Value::Bool(true) => json!({}),
        Value::Object(_) => schema.clone(),
        _ => return Err(GuideError::Unsupported("a schema is an object".into())),
    };
    check_size(&schema)?;
    if let Some(fields) = schema.as_object_mut() {
        // One line, spaced as models write JSON: free spacing lets small models write spaces forever.
        let settings = json!({
            "whitespace_flexible": false,
            "item_separator": ", ",
            "key_separator": ": ",
            "coerce_one_of": true,
        });
        fields.insert("x-guidance".into(), settings);
    }
    Ok(schema)
}

/// Bounds what compiling a schema can cost.
fn check_size(schema: &Value) -> Result<(), GuideError> {
    let too_complex = |why: String| Err(GuideError::TooComplex(why));
    let mut open = vec![(schema, 0_usize)];
    let mut values = 0;
    while let Some((value, depth)) = open.pop() {
        values += 1;
        if depth > SCHEMA_DEPTH_MAX {
            return too_complex(format!("more than {SCHEMA_DEPTH_MAX} levels"));
        }
        if values > SCHEMA_VALUES_MAX {
            return too_complex(format!("more than {SCHEMA_VALUES_MAX} values"));
        }
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(fields) => {
                if fields.len() > PROPERTIES_MAX {
                    return too_complex(format!("more than {PROPERTIES_MAX} properties"));
                }
                for (key, field) in fields {
                    let counts = key.starts_with("min") || key.starts_with("max");
                    let counted = key.ends_with("Length")
                        || key.ends_with("Items")
                        || key.ends_with("Properties");
                    if counts && counted && field.as_u64().is_some_and(|n| n > SCHEMA_COUNT_MAX) {
                        return too_complex(format!("`{key}` above {SCHEMA_COUNT_MAX}"));
                    }
                    if key == "x-guidance" {
                        return Err(GuideError::Unsupported("the key `x-guidance`".into()));
                    }
                    open.push((field, depth + 1));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn refusal(error: &str) -> GuideError {
    if error.contains("NoExtension") {
        return GuideError::Unsupported("no JSON can fit it".to_owned());
    }
    if error.contains("number of symbols") {
        let words = format!("its rules have more than {RULES_MAX} symbols; a property takes ten");
        return GuideError::TooComplex(words);
    }
    let limits =
        ["too large", "too many", "Too many", "fuel", "limit", "too complex", "exceeded", "max is"];
    if limits.iter().any(|word| error.contains(word)) {
        return GuideError::TooComplex(short(error));
    }
    GuideError::Unsupported(short(error))
}

/// The line of a foreign message that says what is wrong.
fn short(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("no reason");
    // A pattern's error shows the pattern first.
    let line = lines.find_map(|line| line.strip_prefix("error: ")).unwrap_or(first);
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests;
