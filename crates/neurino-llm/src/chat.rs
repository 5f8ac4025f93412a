//! A conversation as the text its model was trained on: the model's own Jinja template.

use std::fmt;

use jiff::Zoned;
use minijinja::value::Value;
use minijinja::{Error, ErrorKind};
use neurino_core::job::ToolDefinition;
use neurino_core::{ChatMessage, Role};

use crate::source::ModelSource;
use crate::tokenizer::Tokenizer;
use crate::tools::ToolSyntax;

mod budget;
mod engine;
mod functions;
mod plain;
#[cfg(test)]
mod tests;
pub(crate) mod usual;
mod values;

use engine::{Engine, EngineError};

/// What a job's template prints as today's date, at noon in UTC: the one that Llama 3.1's template
/// falls back to. A job must mean the same on every machine and on the day of its audit, so no clock
/// may have a say in it; whoever wants a model to know the date says so in a message.
pub fn prompt_date() -> Zoned {
    jiff::civil::date(2024, 7, 26)
        .at(12, 0, 0, 0)
        .to_zoned(jiff::tz::TimeZone::UTC)
        .expect("noon of an ordinary day")
}

/// Why a conversation could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The model's files hold no template, and its vocabulary has the marks of no usual one.
    #[error("the model brings no chat template; choose one that was made for chats")]
    Missing,
    /// The template is not valid Jinja, or uses what this build lacks.
    #[error("the model's chat template is not understood; choose another model")]
    Malformed(#[source] Error),
    /// The template refused the conversation, for example for the order of its roles.
    #[error("the model's chat template refuses the conversation: {0}")]
    Refused(String),
    /// The template is too long, does not end, or makes values without end.
    #[error(
        "the model's chat template asks for more than a conversation needs; choose another model"
    )]
    TooMuch,
    /// The template failed.
    #[error("the model's chat template failed")]
    Failed(#[source] Error),
}

/// A model's chat template, ready to render.
#[derive(Clone)]
pub struct ChatTemplate {
    plain: Engine,
    /// The template for conversations with functions, if it is another one.
    with_tools: Option<Engine>,
    /// How calls are written.
    syntax: ToolSyntax,
    /// Whether the template knows functions. If not, they are described in plain messages.
    knows_tools: bool,
    bos: Option<String>,
    eos: Option<String>,
}

impl ChatTemplate {
    /// The template of a model; where it brings none, the one that its vocabulary was made for.
    ///
    /// # Errors
    /// `Missing`, `Malformed`, `TooMuch`.
    pub fn open(source: &ModelSource, tokenizer: &Tokenizer) -> Result<Self, ChatError> {
        let usual = || {
            let format = usual::format(tokenizer)?;
            tracing::info!(
                "the model brings no chat template; its vocabulary tells which one it knows"
            );
            Some(format.template)
        };
        let template = source.chat_template.as_deref().or_else(usual).ok_or(ChatError::Missing)?;
        let with_tools = source.tool_template.as_deref();
        let mut opened = Self::new(template, with_tools, tokenizer.bos(), tokenizer.eos())?;
        let silent = ToolSyntax::of_template(with_tools.unwrap_or(template)).is_none();
        if let (true, true, Some(syntax)) =
            (opened.knows_tools, silent, ToolSyntax::of_vocabulary(tokenizer))
        {
            opened.syntax = syntax;
        }
        Ok(opened)
    }

    /// A template from its Jinja text, with another one for conversations with functions where the
    /// model has two. `bos` and `eos` are the texts it may print.
    ///
    /// # Errors
    /// `Malformed`, `TooMuch`.
    pub fn new(
        template: &str,
        with_tools: Option<&str>,
        bos: Option<&str>,
        eos: Option<&str>,
    ) -> Result<Self, ChatError> {
        let compile = |text: &str| {
            Engine::new(text).map_err(|error| match error {
                EngineError::TooMuch => ChatError::TooMuch,
                EngineError::Jinja(error) => ChatError::Malformed(error),
            })
        };
        let plain = compile(template)?;
        let tools = with_tools.map(compile).transpose()?;
        let knows_tools = tools.as_ref().unwrap_or(&plain).knows_tools();
        let syntax = ToolSyntax::of_template(with_tools.unwrap_or(template));
        Ok(Self {
            syntax: syntax.filter(|_| knows_tools).unwrap_or(ToolSyntax::Hermes),
            knows_tools,
            plain,
            with_tools: tools,
            bos: bos.map(str::to_owned),
            eos: eos.map(str::to_owned),
        })
    }

    /// How the model writes function calls. A model whose template knows none is asked for Hermes'
    /// way.
    pub fn tool_syntax(&self) -> ToolSyntax {
        self.syntax
    }

    /// The text of a conversation, up to where the model's answer begins.
    ///
    /// `tools` are the functions that the model may call. `now` is what the template may print as
    /// today's date.
    ///
    /// # Errors
    /// `Refused`, `TooMuch`, `Failed`.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        tools: &[ToolDefinition],
        now: &Zoned,
    ) -> Result<String, ChatError> {
        let about_tools = |m: &ChatMessage| m.role == Role::Tool || !m.tool_calls.is_empty();
        let with_tools = !tools.is_empty() || messages.iter().any(about_tools);
        if !with_tools {
            return self.render_form(messages, &[], now, &self.plain);
        }
        if self.knows_tools {
            let engine = self.with_tools.as_ref().unwrap_or(&self.plain);
            return self.render_form(messages, tools, now, engine);
        }
        let messages = plain::without_tools(messages, tools);
        match self.render_form(&messages, &[], now, &self.plain) {
            Err(ChatError::Refused(_)) => {
                let messages = plain::without_system(&messages);
                self.render_form(&messages, &[], now, &self.plain)
            }
            done => done,
        }
    }

    /// The text of messages and tools that are in the OpenAI form already; `null` for no tools. For
    /// comparing templates with other implementations.
    ///
    /// # Errors
    /// `Refused`, `TooMuch`, `Failed`.
    pub fn render_json(
        &self,
        messages: &serde_json::Value,
        tools: &serde_json::Value,
        now: &Zoned,
    ) -> Result<String, ChatError> {
        let engine = self.with_tools.as_ref().filter(|_| !tools.is_null()).unwrap_or(&self.plain);
        self.render_values(
            Value::from_serialize(messages),
            Value::from_serialize(tools),
            now,
            engine,
        )
    }

    fn render_form(
        &self,
        messages: &[ChatMessage],
        tools: &[ToolDefinition],
        now: &Zoned,
        engine: &Engine,
    ) -> Result<String, ChatError> {
        let messages = Value::from_serialize(values::message_values(messages));
        let tools = match tools {
            [] => Value::from(()),
            tools => Value::from_serialize(values::tool_values(tools)),
        };
        self.render_values(messages, tools, now, engine)
    }

    fn render_values(
        &self,
        messages: Value,
        tools: Value,
        now: &Zoned,
        engine: &Engine,
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
            ("raise_exception", Value::from_function(raise_exception)),
        ];
        // A token the model lacks stays undefined, as in the original.
        variables.extend(self.bos.iter().map(|t| ("bos_token", Value::from(t.as_str()))));
        variables.extend(self.eos.iter().map(|t| ("eos_token", Value::from(t.as_str()))));
        engine.render(variables).map_err(|error| match error {
            EngineError::TooMuch => ChatError::TooMuch,
            EngineError::Jinja(error) => match refusal(&error) {
                Some(words) => ChatError::Refused(words),
                None => ChatError::Failed(error),
            },
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

#[expect(clippy::needless_pass_by_value, reason = "what the template engine calls")]
fn raise_exception(words: String) -> Result<Value, Error> {
    let words = words.chars().filter(|c| !c.is_control()).take(300).collect();
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
