//! Everything a template may use: the engine's own operators, filters and methods, each of which pays
//! from a [`Budget`] for what it makes.

use std::sync::Arc;

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, context};

use super::budget::{Budget, Limited, MADE_BYTES_MAX, too_much};
use crate::python_json;

/// Everything a template may use.
pub(super) fn environment(budget: &Arc<Budget>) -> Environment<'static> {
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
        Ok::<_, Error>(pairs.collect::<Value>())
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
                let value = if is_text && value.as_str().is_none() {
                    Value::from(shared.text(&value)?)
                } else {
                    value
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
    let widths = arguments[1..].iter().filter_map(Value::as_usize);
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
    let mut limited = Limited::new(budget);
    python_json::write(&mut limited, value, indent).map_err(|error| {
        if error.is_io() {
            return too_much();
        }
        Error::new(ErrorKind::BadSerialization, error.to_string())
    })?;
    Ok(Value::from_safe_string(limited.into_text()))
}

/// Python's methods of texts, lists and dictionaries.
fn call_method(
    budget: &Budget,
    state: &State<'_, '_>,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let with_self = || [std::slice::from_ref(value), arguments].concat();
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
