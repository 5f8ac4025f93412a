//! Renders a chat template, which comes with a model and is as trustworthy as the model's file.
//!
//! The template engine counts instructions, but a few of them can double a text again and again or
//! nest a list in itself a thousand times. So the compiled template is changed: everything that
//! makes a value goes through our own [functions](super::functions), which share one [`Budget`]. Rendering runs on
//! a thread of its own with a deep stack, and its owner stops waiting after [`TIME_MAX`].

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use minijinja::machinery::{
    CompiledTemplate, Instruction, Instructions, TemplateConfig, Vm, WhitespaceConfig,
    make_string_output,
};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, context};

use super::budget::{Budget, TooMuch};
use super::functions::environment;

/// The name under which the template is kept; its ending asks for no escapes.
const NAME: &str = "chat";
/// Longest template. The longest real ones have a third of it.
const TEMPLATE_BYTES_MAX: usize = 64 << 10;
/// Instructions of one rendering; a message takes about fifty.
const INSTRUCTIONS_MAX: u64 = 1_000_000;
/// Bytes of the template's own words that one rendering may repeat.
const RAW_BYTES_MAX: u64 = 512 << 20;
/// For the deepest nesting that the limits above allow; only what is used becomes memory.
const STACK_BYTES: usize = 64 << 20;
/// Longest rendering. A conversation takes a few milliseconds.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Why nothing was rendered.
#[derive(Debug)]
pub(super) enum EngineError {
    TooMuch,
    Jinja(Error),
}

/// A template that compiles.
#[derive(Clone)]
pub(super) struct Engine {
    source: Arc<str>,
    knows_tools: bool,
    /// A rendering ran out of time and still runs.
    stuck: Arc<AtomicBool>,
}

impl Engine {
    pub(super) fn new(source: &str) -> Result<Self, EngineError> {
        if source.len() > TEMPLATE_BYTES_MAX {
            return Err(EngineError::TooMuch);
        }
        // Marks for trainers, which print nothing.
        let source: Arc<str> = without_generation_marks(source).into();
        let mut engine = Self { source, knows_tools: false, stuck: Arc::default() };
        let text = Arc::clone(&engine.source);
        engine.knows_tools = engine.run(move || {
            compile(&text)?;
            let environment = Environment::new();
            let template = environment.template_from_str(&text)?;
            Ok(template.undeclared_variables(false).contains("tools"))
        })?;
        Ok(engine)
    }

    /// Whether the template speaks of functions.
    pub(super) fn knows_tools(&self) -> bool {
        self.knows_tools
    }

    /// The text of the template with these variables.
    pub(super) fn render(
        &self,
        variables: Vec<(&'static str, Value)>,
    ) -> Result<String, EngineError> {
        let text = Arc::clone(&self.source);
        self.run(move || {
            let budget = Arc::new(Budget::default());
            let mut environment = environment(&budget);
            let mut compiled = compile(&text)?;
            let mut longest = guard(&mut compiled.instructions);
            for block in compiled.blocks.values_mut() {
                longest = longest.max(guard(block));
            }
            let affordable = RAW_BYTES_MAX / (longest as u64).max(1);
            environment.set_fuel(Some(affordable.min(INSTRUCTIONS_MAX)));
            let mut prompt = String::new();
            let root = context! { ..Value::from_iter(variables) };
            Vm::new(&environment).eval(
                &compiled.instructions,
                root,
                &compiled.blocks,
                &mut make_string_output(&mut prompt),
                AutoEscape::None,
            )?;
            Ok(prompt)
        })
    }

    /// Runs `work` on a thread of its own, for so long.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, EngineError> {
        if self.stuck.load(Ordering::Acquire) {
            return Err(EngineError::TooMuch);
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let stuck = Arc::clone(&self.stuck);
        let spawned = std::thread::Builder::new()
            .name("chat-template".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                // Nobody listens any more where the time was up.
                let _ = sender.send(work());
                stuck.store(false, Ordering::Release);
            });
        if let Err(cause) = spawned {
            let error = Error::new(ErrorKind::InvalidOperation, "no thread can be started");
            return Err(EngineError::Jinja(error.with_source(cause)));
        }
        let done = receiver.recv_timeout(TIME_MAX).or_else(|cause| {
            if cause == mpsc::RecvTimeoutError::Timeout {
                self.stuck.store(true, Ordering::Release);
            }
            // It may have ended just now, before it was marked.
            receiver.try_recv().inspect(|_| self.stuck.store(false, Ordering::Release))
        });
        match done {
            Ok(Ok(made)) => Ok(made),
            Ok(Err(error)) if is_too_much(&error) => Err(EngineError::TooMuch),
            Ok(Err(error)) => Err(EngineError::Jinja(error)),
            Err(_) => Err(EngineError::TooMuch),
        }
    }
}

fn is_too_much(error: &Error) -> bool {
    if error.kind() == ErrorKind::OutOfFuel {
        return true;
    }
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if cause.is::<TooMuch>() {
            return true;
        }
        next = cause.source();
    }
    false
}

fn without_generation_marks(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, behind)) = rest.split_once("{%") {
        text.push_str(before);
        let Some((tag, after)) = behind.split_once("%}") else {
            rest = &rest[before.len()..];
            break;
        };
        let word = tag.trim_matches(['-', '+']).trim();
        if word == "generation" || word == "endgeneration" {
            // A comment keeps what the tag does to the spaces around it.
            let left = if tag.starts_with('-') { "-" } else { "" };
            let right = if tag.ends_with('-') { "-" } else { "" };
            let _ = write!(text, "{{%{left} set _ = 0 {right}%}}");
        } else {
            let _ = write!(text, "{{%{tag}%}}");
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

fn compile(source: &str) -> Result<CompiledTemplate<'_>, Error> {
    let config = TemplateConfig {
        syntax_config: SyntaxConfig,
        ws_config: WhitespaceConfig {
            keep_trailing_newline: false,
            lstrip_blocks: true,
            trim_blocks: true,
        },
        default_auto_escape: Arc::new(|_| AutoEscape::None),
    };
    CompiledTemplate::new(NAME, source, &config)
}

/// Sends every instruction that makes a value through a filter of [`environment`]. A filter takes
/// its arguments from the stack just as these instructions do. Returns the longest raw text.
fn guard(instructions: &mut Instructions<'_>) -> usize {
    /// No slot of the engine's cache of filters.
    const UNCACHED: u8 = u8::MAX;
    let (mut at, mut longest) = (0, 0);
    while let Some(instruction) = instructions.get_mut(at) {
        let filter = |name, count| Some(Instruction::ApplyFilter(name, count, UNCACHED));
        let guarded = match instruction {
            Instruction::Add => filter("$add", Some(2)),
            Instruction::Mul => filter("$mul", Some(2)),
            Instruction::StringConcat => filter("$concat", Some(2)),
            Instruction::Slice => filter("$slice", Some(4)),
            Instruction::BuildList(Some(0)) => None,
            Instruction::BuildList(count) => match count.map(u16::try_from) {
                None => filter("$list", None),
                Some(Ok(count)) => filter("$list", Some(count)),
                // More items than a template has room for.
                Some(Err(_)) => None,
            },
            Instruction::BuildMap(pairs) => match u16::try_from(*pairs * 2) {
                Ok(count) if count > 0 => filter("$map", Some(count)),
                _ => None,
            },
            Instruction::EmitRaw(text) => {
                longest = longest.max(text.len());
                None
            }
            _ => None,
        };
        if let Some(guarded) = guarded {
            *instruction = guarded;
        }
        at += 1;
    }
    longest
}
