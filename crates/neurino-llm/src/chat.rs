//! A conversation as the text its model was trained on: the model's own Jinja template.

use std::fmt;
use std::io;

use jiff::Zoned;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, context};
use neurino_core::ChatMessage;
use serde::Serialize;

use crate::source::ModelSource;
use crate::tokenizer::Tokenizer;

/// The name under which the template is kept.
const NAME: &str = "chat";

/// Why a conversation could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The model's files hold no template.
    #[error("the model brings no chat template; choose one that was made for chats")]
    Missing,
    /// The template is not valid Jinja, or uses what this build lacks.
    #[error("the model's chat template is not understood")]
    Malformed(#[source] Error),
    /// The template refused the conversation, for example for the order of its roles.
    #[error("the model's chat template refuses the conversation: {0}")]
    Refused(String),
    /// The template failed.
    #[error("the model's chat template failed")]
    Failed(#[source] Error),
}

/// A model's chat template, ready to render.
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: Option<String>,
    eos: Option<String>,
}

impl ChatTemplate {
    /// The template of a model.
    ///
    /// # Errors
    /// `Missing`, `Malformed`.
    pub fn open(source: &ModelSource, tokenizer: &Tokenizer) -> Result<Self, ChatError> {
        let template = source.chat_template.as_deref().ok_or(ChatError::Missing)?;
        Self::new(template, tokenizer.bos(), tokenizer.eos())
    }

    /// A template from its Jinja text. `bos` and `eos` are the texts it may print.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn new(template: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self, ChatError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", raise_exception);
        environment.add_template_owned(NAME, template.to_owned()).map_err(ChatError::Malformed)?;
        Ok(Self { environment, bos: bos.map(str::to_owned), eos: eos.map(str::to_owned) })
    }

    /// The text of a conversation, up to where the model's answer begins.
    ///
    /// `now` is what the template may print as today's date.
    ///
    /// # Errors
    /// `Refused`, `Failed`.
    pub fn render(&self, messages: &[ChatMessage], now: &Zoned) -> Result<String, ChatError> {
        self.render_values(Value::from_serialize(messages), Value::from(()), now)
    }

    fn render_values(
        &self,
        messages: Value,
        tools: Value,
        now: &Zoned,
    ) -> Result<String, ChatError> {
        let now = now.clone();
        let strftime = move |format: &str| {
            jiff::fmt::strtime::format(format, &now)
                .map_err(|e| Error::new(ErrorKind::InvalidOperation, e.to_string()))
        };
        let mut variables = vec![
            ("messages", messages),
            ("tools", tools),
            ("add_generation_prompt", Value::from(true)),
            ("strftime_now", Value::from_function(strftime)),
        ];
        // A token the model lacks stays undefined, as in the original.
        variables.extend(self.bos.iter().map(|t| ("bos_token", Value::from(t.as_str()))));
        variables.extend(self.eos.iter().map(|t| ("eos_token", Value::from(t.as_str()))));
        let template = self.environment.get_template(NAME).map_err(ChatError::Failed)?;
        template.render(context! { ..Value::from_iter(variables) }).map_err(|error| {
            match refusal(&error) {
                Some(words) => ChatError::Refused(words),
                None => ChatError::Failed(error),
            }
        })
    }
}

/// What the template itself said against the conversation.
#[derive(Debug)]
struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

fn raise_exception(words: String) -> Result<Value, Error> {
    let error = Error::new(ErrorKind::InvalidOperation, "the template refuses the conversation");
    Err(error.with_source(Refusal(words)))
}

fn refusal(error: &Error) -> Option<String> {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if let Some(Refusal(words)) = cause.downcast_ref() {
            return Some(words.clone());
        }
        next = cause.source();
    }
    None
}

/// JSON as Python's `json.dumps(.., ensure_ascii=False)` writes it, which the models have seen.
#[expect(clippy::needless_pass_by_value, reason = "what the template engine calls")]
fn to_json(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // `ensure_ascii`, `separators` and `sort_keys` are accepted in their usual setting.
    let mut text = Vec::new();
    let result = match indent {
        Some(width) => {
            let indent = " ".repeat(width.min(16));
            let format = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, format))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, Python)),
    };
    result.map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    let text = String::from_utf8(text)
        .map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    Ok(Value::from_safe_string(text))
}

/// `", "` between items and `": "` behind keys.
struct Python;

impl serde_json::ser::Formatter for Python {
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::path::Path;

    use neurino_core::Role;
    use serde::Deserialize;

    use super::*;
    use crate::source::TokenizerSource;

    const CASES: &str = include_str!("../../../tests/fixtures/text/chat.json");

    #[derive(Deserialize)]
    struct Fixture {
        templates: std::collections::BTreeMap<String, String>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        tokenizer: String,
        template: String,
        messages: Value,
        tools: Value,
        text: String,
        ids: Vec<u32>,
    }

    fn noon() -> Zoned {
        "2026-11-21T12:00:00[UTC]".parse().unwrap()
    }

    fn says(role: Role, content: &str) -> ChatMessage {
        ChatMessage { role, content: content.into() }
    }

    fn render(template: &str, messages: &[ChatMessage]) -> Result<String, ChatError> {
        ChatTemplate::new(template, Some("<s>"), None)?.render(messages, &noon())
    }

    #[test]
    fn renders_and_encodes_as_the_reference() {
        let fixture: Fixture = serde_json::from_str(CASES).unwrap();
        assert!(fixture.cases.len() >= 18);
        for case in fixture.cases {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/text");
            let source = TokenizerSource::HuggingFace { folder: root.join(&case.tokenizer) };
            let tokenizer = Tokenizer::open(&source, &[]).unwrap();
            let jinja = &fixture.templates[&case.template];
            let template = ChatTemplate::new(jinja, tokenizer.bos(), tokenizer.eos()).unwrap();
            let text = template.render_values(case.messages, case.tools, &noon()).unwrap();
            assert_eq!(text, case.text, "{} with {}", case.template, case.tokenizer);
            assert_eq!(tokenizer.encode(&text, false).unwrap(), case.ids, "{text:?}");
        }
    }

    #[test]
    fn a_conversation_of_the_network_renders() {
        let template = "{{ bos_token }}{%- for m in messages %}\n  [{{ m.role }}] {{ m['content'].strip() }}\n\
                        {%- endfor %}{% if eos_token is defined %}!{% endif %}|{{ strftime_now('%d %b %Y') }}";
        let messages = [says(Role::System, " be kind "), says(Role::User, "hi")];
        // A block swallows the line break behind it, as in the original.
        let expected = "<s>  [system] be kind  [user] hi|21 Nov 2026";
        assert_eq!(render(template, &messages).unwrap(), expected);
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let template =
            "{{ {'b': [1, 2.5, 'é<\\n'], 'a': none, 'c': true, 'd': {}, 'e': []} | tojson }}";
        let expected = r#"{"b": [1, 2.5, "é<\n"], "a": null, "c": true, "d": {}, "e": []}"#;
        assert_eq!(render(template, &[]).unwrap(), expected);
        let indented = render("{{ {'b': [1]} | tojson(indent=2) }}", &[]).unwrap();
        assert_eq!(indented, "{\n  \"b\": [\n    1\n  ]\n}");
    }

    #[test]
    fn a_refusal_says_why_and_other_faults_are_told_apart() {
        let refuse = "{{ raise_exception('roles must alternate') }}";
        let error = render(refuse, &[]).unwrap_err();
        assert!(matches!(&error, ChatError::Refused(why) if why == "roles must alternate"));
        let nested = format!("{{% macro m() %}}{refuse}{{% endmacro %}}{{{{ m() }}}}");
        assert!(matches!(render(&nested, &[]), Err(ChatError::Refused(_))));
        assert!(matches!(render("{{ nothing() }}", &[]), Err(ChatError::Failed(_))));
        assert!(matches!(render("{% if %}", &[]), Err(ChatError::Malformed(_))));
    }
}
