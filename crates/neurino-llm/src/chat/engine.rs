//! Renders a chat template, which comes with a model and is as trustworthy as the model's file.
//!
//! The template engine counts instructions, but a few of them can double a text again and again or
//! nest a list in itself a thousand times. So the compiled template is changed: everything that
//! makes a value goes through functions of this file, which share one [`Budget`]. Rendering runs on
//! a thread of its own with a deep stack, and its owner stops waiting after [`TIME_MAX`].

use std::fmt::{self, Write as _};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use minijinja::machinery::{
    CompiledTemplate, Instruction, Instructions, TemplateConfig, Vm, WhitespaceConfig,
    make_string_output,
};
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, context};

use super::values::write_value;
use crate::python_json;

/// The name under which the template is kept; its ending asks for no escapes.
const NAME: &str = "chat";
/// Longest template. The longest real ones have a third of it.
const TEMPLATE_BYTES_MAX: usize = 64 << 10;
/// Instructions of one rendering; a message takes about fifty.
const INSTRUCTIONS_MAX: u64 = 1_000_000;
/// Bytes that all intermediate values and the prompt may have together.
const MADE_BYTES_MAX: usize = 64 << 20;
/// Bytes of the template's own words that one rendering may repeat.
const RAW_BYTES_MAX: u64 = 512 << 20;
/// Values made from other values that hold values; bounds how deep they can be nested.
const NESTINGS_MAX: usize = 4_000;
/// For the deepest nesting that the limits above allow; only what is used becomes memory.
const STACK_BYTES: usize = 128 << 20;
/// Longest rendering. A conversation takes a few milliseconds.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Stopped: the template asked for too much.
#[derive(Debug)]
pub(super) struct TooMuch;

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
    /// A rendering ran out of time, and perhaps still runs.
    stuck: Arc<AtomicBool>,
}

impl Engine {
    pub(super) fn new(source: &str) -> Result<Self, EngineError> {
        if source.len() > TEMPLATE_BYTES_MAX {
            return Err(EngineError::TooMuch);
        }
        // Marks for trainers, which print nothing.
        let source = without_generation_marks(source);
        let engine = Self { source: source.into(), stuck: Arc::default() };
        let text = Arc::clone(&engine.source);
        engine.run(move || compile(&text).map(|_| String::new()))?;
        Ok(engine)
    }

    /// The variables that the template expects from outside.
    pub(super) fn mentions(&self, variable: &str) -> bool {
        let text = Arc::clone(&self.source);
        let variable = variable.to_owned();
        let found = self.run(move || {
            let environment = Environment::new();
            let template = environment.template_from_str(&text)?;
            let found = template.undeclared_variables(false).contains(&variable);
            Ok(if found { "yes".to_owned() } else { String::new() })
        });
        found.is_ok_and(|answer| !answer.is_empty())
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
    fn run(
        &self,
        work: impl FnOnce() -> Result<String, Error> + Send + 'static,
    ) -> Result<String, EngineError> {
        if self.stuck.load(Ordering::Relaxed) {
            return Err(EngineError::TooMuch);
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let spawned = std::thread::Builder::new()
            .name("chat-template".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                // Nobody listens any more where the time was up.
                let _ = sender.send(work());
            });
        if let Err(cause) = spawned {
            let error = Error::new(ErrorKind::InvalidOperation, "no thread can be started");
            return Err(EngineError::Jinja(error.with_source(cause)));
        }
        match receiver.recv_timeout(TIME_MAX) {
            Ok(Ok(text)) => Ok(text),
            Ok(Err(error)) if is_too_much(&error) => Err(EngineError::TooMuch),
            Ok(Err(error)) => Err(EngineError::Jinja(error)),
            Err(_) => {
                self.stuck.store(true, Ordering::Relaxed);
                Err(EngineError::TooMuch)
            }
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
        syntax_config: Default::default(),
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

/// What one rendering may still make.
#[derive(Debug, Default)]
pub(super) struct Budget {
    made: AtomicUsize,
    nestings: AtomicUsize,
}

impl Budget {
    pub(super) fn charge(&self, bytes: usize) -> Result<(), Error> {
        let before = self.made.fetch_add(bytes.min(MADE_BYTES_MAX), Ordering::Relaxed);
        // Every call adds something, so that a million of them end, too.
        if before.saturating_add(bytes) > MADE_BYTES_MAX { Err(too_much()) } else { Ok(()) }
    }

    /// Counts a value that holds other values, if any of `parts` does so itself.
    fn nest<'a>(&self, parts: impl IntoIterator<Item = &'a Value>) -> Result<(), Error> {
        let holds = |value: &Value| value.as_object().is_some();
        if !parts.into_iter().any(holds) {
            return Ok(());
        }
        let before = self.nestings.fetch_add(1, Ordering::Relaxed);
        if before >= NESTINGS_MAX { Err(too_much()) } else { Ok(()) }
    }

    /// Counts a finished value.
    fn charge_value(&self, value: &Value) -> Result<(), Error> {
        self.charge(match value.as_str() {
            Some(text) => text.len(),
            None => value.len().unwrap_or(1).saturating_mul(size_of::<Value>()),
        })
    }

    /// A value as Python's `str` prints it.
    pub(super) fn text(&self, value: &Value) -> Result<String, Error> {
        let mut limited = Limited { budget: self, text: String::new() };
        write_value(&mut limited, value).map_err(|_| too_much())?;
        Ok(limited.text)
    }
}

fn too_much() -> Error {
    Error::new(ErrorKind::InvalidOperation, "the template asks for too much").with_source(TooMuch)
}

impl fmt::Display for TooMuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more than a conversation can need")
    }
}

impl std::error::Error for TooMuch {}

/// Text that costs its bytes.
struct Limited<'a> {
    budget: &'a Budget,
    text: String,
}

impl fmt::Write for Limited<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.budget.charge(text.len()).map_err(|_| fmt::Error)?;
        self.text.push_str(text);
        Ok(())
    }
}

impl io::Write for Limited<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.budget.charge(bytes.len()).map_err(io::Error::other)?;
        self.text.push_str(std::str::from_utf8(bytes).map_err(io::Error::other)?);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Everything a template may use.
fn environment(budget: &Arc<Budget>) -> Environment<'static> {
    let mut environment = Environment::new();
    for name in ["pprint", "format", "batch", "slice", "sum", "chain", "zip", "urlencode"] {
        environment.remove_filter(name);
    }
    environment.remove_global("debug");
    let shared = Arc::clone(budget);
    environment.set_formatter(move |out, _, value| {
        let text = shared.text(value)?;
        out.write_str(&text).map_err(Error::from)
    });
    let shared = Arc::clone(budget);
    environment.set_unknown_method_callback(move |state, value, method, arguments| {
        call_method(&shared, state, value, method, arguments)
    });
    add_operators(&mut environment, budget);
    add_filters(&mut environment, budget);
    let shared = Arc::clone(budget);
    let namespace = Value::from_function(minijinja::functions::namespace);
    environment.add_function("namespace", move |state: &State<'_, '_>, arguments: Rest<Value>| {
        shared.nest([&Value::from(vec![1]), &Value::from(vec![1])])?;
        namespace.call(state, &arguments)
    });
    let shared = Arc::clone(budget);
    let dict = Value::from_function(minijinja::functions::dict);
    environment.add_function("dict", move |state: &State<'_, '_>, arguments: Rest<Value>| {
        shared.nest(arguments.iter())?;
        dict.call(state, &arguments)
    });
    environment
}

fn add_operators(environment: &mut Environment<'static>, budget: &Arc<Budget>) {
    let shared = Arc::clone(budget);
    environment.add_filter("$concat", move |left: &Value, right: &Value| {
        let mut text = shared.text(left)?;
        text.push_str(&shared.text(right)?);
        Ok::<_, Error>(text)
    });
    let shared = Arc::clone(budget);
    environment.add_filter("$add", move |left: &Value, right: &Value| add(&shared, left, right));
    let shared = Arc::clone(budget);
    environment.add_filter("$mul", move |left: &Value, right: &Value| mul(&shared, left, right));
    let shared = Arc::clone(budget);
    environment.add_filter(
        "$slice",
        move |value: Value, start: Value, stop: Value, step: Value| {
            shared.charge_value(&value)?;
            shared.nest([&value])?;
            evaluate("value[start:stop:step]", context! { value, start, stop, step })
        },
    );
    let shared = Arc::clone(budget);
    environment.add_filter("$list", move |items: Rest<Value>| {
        shared.charge(items.len() * size_of::<Value>())?;
        shared.nest(items.iter())?;
        Ok::<_, Error>(Value::from(items.to_vec()))
    });
    let shared = Arc::clone(budget);
    environment.add_filter("$map", move |items: Rest<Value>| {
        shared.charge(items.len() * size_of::<Value>())?;
        shared.nest(items.iter())?;
        let pairs = items.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
        Ok::<_, Error>(Value::from_iter(pairs))
    });
}

/// An operator of the engine itself.
fn evaluate(expression: &str, context: Value) -> Result<Value, Error> {
    Environment::empty().compile_expression(expression)?.eval(context)
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn add(budget: &Budget, left: &Value, right: &Value) -> Result<Value, Error> {
    if is_list(left) && is_list(right) {
        let mut items = Vec::new();
        for item in left.try_iter()?.chain(right.try_iter()?) {
            budget.charge(size_of::<Value>())?;
            items.push(item);
        }
        budget.nest(&items)?;
        return Ok(Value::from(items));
    }
    let size = |value: &Value| value.as_str().map_or(0, str::len);
    budget.charge(size(left) + size(right))?;
    evaluate("left + right", context! { left, right })
}

fn mul(budget: &Budget, left: &Value, right: &Value) -> Result<Value, Error> {
    let (value, times) = if left.as_usize().is_some() { (right, left) } else { (left, right) };
    let times = times.as_usize().unwrap_or(1);
    if is_list(value) {
        let once: Vec<Value> = value.try_iter()?.take(MADE_BYTES_MAX).collect();
        budget.charge(once.len().saturating_mul(times).saturating_mul(size_of::<Value>()))?;
        budget.nest(&once)?;
        let all = (0..times).flat_map(|_| once.iter().cloned());
        return Ok(Value::from(all.collect::<Vec<_>>()));
    }
    budget.charge(value.as_str().map_or(0, str::len).saturating_mul(times))?;
    evaluate("left * right", context! { left, right })
}

/// Filters that take a text, whatever they are given.
const TEXT_FILTERS: [&str; 8] =
    ["escape", "e", "lower", "upper", "title", "capitalize", "trim", "indent"];
/// Filters that give values that hold values.
const LIST_FILTERS: [&str; 15] = [
    "dictsort",
    "items",
    "reverse",
    "split",
    "lines",
    "sort",
    "list",
    "select",
    "reject",
    "selectattr",
    "rejectattr",
    "map",
    "groupby",
    "unique",
    "replace",
];

fn add_filters(environment: &mut Environment<'static>, budget: &Arc<Budget>) {
    for name in TEXT_FILTERS.into_iter().chain(LIST_FILTERS) {
        let builtin = builtin(name);
        let is_text = TEXT_FILTERS.contains(&name);
        let shared = Arc::clone(budget);
        environment.add_filter(
            name,
            move |state: &State<'_, '_>, value: Value, rest: Rest<Value>| {
                let value = match is_text && value.as_str().is_none() {
                    true => Value::from(shared.text(&value)?),
                    false => value,
                };
                let mut arguments = vec![value];
                arguments.extend(rest.iter().cloned());
                match name {
                    "replace" => charge_replace(&shared, &arguments)?,
                    "indent" => charge_indent(&shared, &arguments)?,
                    _ => {}
                }
                shared.nest(&arguments)?;
                let made = builtin.call(state, &arguments)?;
                shared.charge_value(&made)?;
                Ok::<_, Error>(made)
            },
        );
    }
    let shared = Arc::clone(budget);
    environment.add_filter("string", move |value: &Value| shared.text(value));
    let shared = Arc::clone(budget);
    environment.add_filter("join", move |value: &Value, between: Option<&str>| {
        join(&shared, value, between.unwrap_or_default())
    });
    let shared = Arc::clone(budget);
    environment.add_filter("tojson", move |value: Value, options: Kwargs| {
        to_json(&shared, &value, &options)
    });
}

fn builtin(name: &str) -> Value {
    use minijinja::filters;
    match name {
        "escape" | "e" => Value::from_function(filters::escape),
        "lower" => Value::from_function(filters::lower),
        "upper" => Value::from_function(filters::upper),
        "title" => Value::from_function(filters::title),
        "capitalize" => Value::from_function(filters::capitalize),
        "trim" => Value::from_function(filters::trim),
        "indent" => Value::from_function(filters::indent),
        "dictsort" => Value::from_function(filters::dictsort),
        "items" => Value::from_function(filters::items),
        "reverse" => Value::from_function(filters::reverse),
        "split" => Value::from_function(filters::split),
        "lines" => Value::from_function(filters::lines),
        "sort" => Value::from_function(filters::sort),
        "list" => Value::from_function(filters::list),
        "select" => Value::from_function(filters::select),
        "reject" => Value::from_function(filters::reject),
        "selectattr" => Value::from_function(filters::selectattr),
        "rejectattr" => Value::from_function(filters::rejectattr),
        "map" => Value::from_function(filters::map),
        "groupby" => Value::from_function(filters::groupby),
        "unique" => Value::from_function(filters::unique),
        _ => Value::from_function(filters::replace),
    }
}

/// Charges for the text that replacing makes, before it is made.
fn charge_replace(budget: &Budget, arguments: &[Value]) -> Result<(), Error> {
    let text = |index: usize| arguments.get(index).and_then(Value::as_str);
    let (Some(value), Some(from), Some(to)) = (text(0), text(1), text(2)) else {
        return Ok(());
    };
    let found = value.matches(from).count();
    budget.charge(value.len().saturating_add(found.saturating_mul(to.len())))
}

fn charge_indent(budget: &Budget, arguments: &[Value]) -> Result<(), Error> {
    let lines = arguments[0].as_str().map_or(0, |text| text.lines().count() + 1);
    let widths = arguments[1..].iter().filter_map(|width| width.as_usize());
    let width = widths.max().unwrap_or(4);
    // A width can also come by name.
    let named = arguments[1..].iter().filter_map(|options| options.get_attr("width").ok());
    let width = named.filter_map(|width| width.as_usize()).fold(width, usize::max);
    budget.charge(lines.saturating_mul(width))
}

fn join(budget: &Budget, value: &Value, between: &str) -> Result<String, Error> {
    let mut text = String::new();
    for (index, item) in value.try_iter()?.enumerate() {
        if index > 0 {
            budget.charge(between.len() + 1)?;
            text.push_str(between);
        }
        text.push_str(&budget.text(&item)?);
    }
    Ok(text)
}

/// `ensure_ascii`, `separators` and `sort_keys` are accepted in their usual setting.
fn to_json(budget: &Budget, value: &Value, options: &Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let mut limited = Limited { budget, text: String::new() };
    python_json::write(&mut limited, value, indent).map_err(|error| match error.is_io() {
        true => too_much(),
        false => Error::new(ErrorKind::BadSerialization, error.to_string()),
    })?;
    Ok(Value::from_safe_string(limited.text))
}

/// Python's methods of texts, lists and dictionaries.
fn call_method(
    budget: &Budget,
    state: &State<'_, '_>,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let with_self = || [&[value.clone()], arguments].concat();
    match method {
        // Widths in a format can ask for any size; no chat template uses them.
        "format" => return Err(Error::from(ErrorKind::UnknownMethod)),
        "replace" => charge_replace(budget, &with_self())?,
        "join" => {
            let Some(items) = arguments.first() else {
                return Err(Error::from(ErrorKind::MissingArgument));
            };
            return join(budget, items, value.as_str().unwrap_or_default()).map(Value::from);
        }
        _ => {}
    }
    budget.nest([value])?;
    let made =
        minijinja_contrib::pycompat::unknown_method_callback(state, value, method, arguments)?;
    budget.charge_value(&made)?;
    Ok(made)
}
