//! Chat templates against the reference, and templates that ask for too much.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;
use std::time::Instant;

use neurino_core::job::ToolCall;
use serde::Deserialize;
use serde_json::json;

use super::*;

const CASES: &str = include_str!("../../../../tests/fixtures/text/chat.json");

#[derive(Deserialize)]
struct Fixture {
    templates: std::collections::BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    tokenizer: String,
    template: String,
    messages: serde_json::Value,
    tools: serde_json::Value,
    text: String,
    ids: Vec<u32>,
}

fn noon() -> Zoned {
    "2026-11-21T12:00:00[UTC]".parse().unwrap()
}

fn says(role: Role, content: &str) -> ChatMessage {
    ChatMessage::new(role, content)
}

fn weather() -> ToolDefinition {
    ToolDefinition {
        name: "get_weather".into(),
        description: Some("Weather of a city".into()),
        parameters: Some(
            json!({ "type": "object", "properties": { "city": { "type": "string" } } }),
        ),
    }
}

fn asks_weather() -> ChatMessage {
    let arguments = r#"{"city":"K\u00f6ln"}"#.into();
    let call = ToolCall { id: "call_1".into(), name: "get_weather".into(), arguments };
    ChatMessage { tool_calls: vec![call], ..says(Role::Assistant, "") }
}

fn template(jinja: &str) -> ChatTemplate {
    ChatTemplate::new(jinja, None, Some("<s>"), None).unwrap()
}

fn render(jinja: &str, messages: &[ChatMessage]) -> Result<String, ChatError> {
    ChatTemplate::new(jinja, None, Some("<s>"), None)?.render(messages, &[], &noon())
}

#[test]
fn renders_and_encodes_as_the_reference() {
    let fixture: Fixture = serde_json::from_str(CASES).unwrap();
    assert!(fixture.cases.len() >= 18);
    for case in fixture.cases {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/text");
        let tokenizer = Tokenizer::open_folder(&root.join(&case.tokenizer)).unwrap();
        let jinja = &fixture.templates[&case.template];
        let template = ChatTemplate::new(jinja, None, tokenizer.bos(), tokenizer.eos()).unwrap();
        let text = template.render_json(&case.messages, &case.tools, &noon()).unwrap();
        assert_eq!(text, case.text, "{} with {}", case.template, case.tokenizer);
        assert_eq!(tokenizer.encode(&text, false).unwrap(), case.ids, "{text:?}");
    }
}

/// The same conversations as the network carries them.
#[test]
fn jobs_render_as_the_reference() {
    let fixture: Fixture = serde_json::from_str(CASES).unwrap();
    for case in fixture.cases.iter().filter(|case| case.tokenizer == "llama3") {
        let jinja = &fixture.templates[&case.template];
        let bos = Some("<|begin_of_text|>");
        let template = ChatTemplate::new(jinja, None, bos, Some("<|im_end|>")).unwrap();
        let messages: Vec<ChatMessage> =
            case.messages.as_array().unwrap().iter().map(network).collect();
        let tools: Vec<ToolDefinition> = case
            .tools
            .as_array()
            .map(|all| {
                all.iter().map(|t| Deserialize::deserialize(&t["function"]).unwrap()).collect()
            })
            .unwrap_or_default();
        let text = template.render(&messages, &tools, &noon()).unwrap();
        assert_eq!(text, case.text, "{}", case.template);
    }
}

fn network(message: &serde_json::Value) -> ChatMessage {
    let call = |call: &serde_json::Value| ToolCall {
        id: String::new(),
        name: call["function"]["name"].as_str().unwrap().into(),
        arguments: call["function"]["arguments"].to_string(),
    };
    let role: Role = Deserialize::deserialize(&message["role"]).unwrap();
    let calls = message["tool_calls"].as_array();
    ChatMessage {
        tool_calls: calls.map(|calls| calls.iter().map(call).collect()).unwrap_or_default(),
        ..says(role, message["content"].as_str().unwrap_or_default())
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
fn values_print_as_in_python() {
    let template =
        "{{ {'b': [1, 2.5, 'é<\\n'], 'a': none, 'c': true, 'd': {}, 'e': []} | tojson }}";
    let expected = r#"{"b": [1, 2.5, "é<\n"], "a": null, "c": true, "d": {}, "e": []}"#;
    assert_eq!(render(template, &[]).unwrap(), expected);
    let indented = render("{{ {'b': [1]} | tojson(indent=2) }}", &[]).unwrap();
    assert_eq!(indented, "{\n  \"b\": [\n    1\n  ]\n}");
    let printed =
        render("{{ none }} {{ true }} {{ [1, 'a', {'k': \"it's\"}] }} {{ 1 ~ 'x' }}", &[]);
    assert_eq!(printed.unwrap(), "None True [1, 'a', {'k': \"it's\"}] 1x");
    let operators = "{{ [1, 2] + [3] }}{{ 'ab' * 2 }}{{ 1 + 2 }}{{ 'a' + 'b' }}{{ 'abcd'[1:3] }}\
                     {{ [1, 2, 3][::-1] | join('-') }}{{ 'a-b' | replace('-', '+') | upper }}\
                     {{ ['x', 1] | join(', ') }}{{ '-'.join(['p', 'q']) }}{{ [[1, 2]] | length }}";
    let expected = "[1, 2, 3]abab3abbc3-2-1A+Bx, 1p-q1";
    assert_eq!(render(operators, &[]).unwrap(), expected);
    let loops = "{% set ns = namespace(t='') %}{% for i in range(3) %}{% set ns.t = ns.t ~ i %}\
                 {% endfor %}{{ ns.t }}{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(5) }}\
                 {%- generation -%} z {%- endgeneration -%} !";
    assert_eq!(render(loops, &[]).unwrap(), "012<5>z!");
}

#[test]
fn functions_reach_a_template_that_knows_them() {
    let jinja = "{% if tools %}{{ tools[0].function.name }} <tool_call>{% endif %}\
                 {% for m in messages %}{{ m.tool_calls[0].function.arguments.city }}{% endfor %}";
    let knows = template(jinja);
    assert_eq!(knows.tool_syntax(), ToolSyntax::Hermes);
    let text = knows.render(&[asks_weather()], &[weather()], &noon()).unwrap();
    assert_eq!(text, "get_weather <tool_call>Köln");
    let two = ChatTemplate::new("plain", Some("{{ tools | length }} [TOOL_CALLS]"), None, None);
    let two = two.unwrap();
    assert_eq!(two.tool_syntax(), ToolSyntax::Mistral);
    assert_eq!(two.render(&[], &[weather()], &noon()).unwrap(), "1 [TOOL_CALLS]");
    assert_eq!(two.render(&[], &[], &noon()).unwrap(), "plain");
}

#[test]
fn functions_are_described_to_a_template_that_does_not_know_them() {
    let jinja = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n---\n{% endfor %}";
    let result = |text: &str| says(Role::Tool, text);
    let messages = [
        says(Role::System, "Be kind."),
        says(Role::User, "Weather?"),
        asks_weather(),
        result("3"),
        result("4"),
    ];
    let text = template(jinja).render(&messages, &[weather()], &noon()).unwrap();
    for part in [
        "<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", ",
        "</tool_call>\n\nBe kind.\n---\nuser: Weather?",
        "assistant: <tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Köln\"}}\n</tool_call>",
        "user: <tool_response>\n3\n</tool_response>\n<tool_response>\n4\n</tool_response>\n---",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let strict = format!(
        "{{% if messages[0].role == 'system' %}}{{{{ raise_exception('no system') }}}}{{% endif %}}{jinja}"
    );
    let text = template(&strict).render(&messages[1..2], &[weather()], &noon()).unwrap();
    assert!(text.starts_with("user: You may call") && text.contains("\n\nWeather?"), "{text}");
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

#[test]
fn a_template_without_end_is_stopped() {
    let spin = |body: &str| {
        format!(
            "{{% set ns = namespace(x='ab', l=[1]) %}}{{% for a in range(9999) %}}{{% for b in \
                 range(9999) %}}{body}{{% endfor %}}{{% endfor %}}"
        )
    };
    for body in [
        "",
        "{% set ns.x = ns.x ~ ns.x %}",
        "{% set ns.x = ns.x + ns.x %}",
        "{% set ns.x = ns.x * 9 %}",
        "{% set ns.x = ns.x | replace('a', 'aa') %}",
        "{% set ns.x = ns.x | indent(9999) %}",
        "{% set ns.x = [ns.x, ns.x] | join %}",
        "{% set ns.x = ns.x.replace('b', 'bb') %}",
        "{% set ns.x = ns.x.join([ns.x, ns.x]) %}",
        "{% set x %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = x %}",
        "{% set ns.l = ns.l + ns.l %}",
        "{% set ns.l = ns.l * 3 %}",
        "{% set ns.l = [ns.l] %}",
        "{% set ns.l = [ns.l, ns.l] %}",
        "{% set ns.l = {'a': ns.l} %}",
        "{% set ns.l = ns.l[:] %}",
        "{% set ns.l = namespace(l=ns.l) %}",
        "{% set ns.l = dict(l=ns.l) %}",
        "{% set ns.l = ns.l | list %}",
        "{% set ns.l = ns.l | map('upper') %}",
        "{{ ns.x * 1000 }}",
    ] {
        let start = Instant::now();
        let error = render(&spin(body), &[]).expect_err(body);
        assert!(matches!(error, ChatError::TooMuch), "{body}: {error:?}");
        assert!(start.elapsed().as_secs() < 9, "{body} took {:?}", start.elapsed());
    }
    let print = "{% set ns = namespace(l=[1]) %}{% for a in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}";
    for use_of_it in ["{{ ns.l }}", "{{ ns.l | tojson }}", "{{ ns.l ~ '' }}", "{{ ns.l | string }}"]
    {
        let error = render(&format!("{print}{use_of_it}"), &[]).unwrap_err();
        assert!(matches!(error, ChatError::TooMuch), "{use_of_it}: {error:?}");
    }
    let raw = format!("{{% for a in range(99999) %}}{}{{% endfor %}}", "raw text ".repeat(7000));
    assert!(matches!(render(&raw, &[]), Err(ChatError::TooMuch)));
    let long = "x".repeat(70_000);
    assert!(matches!(render(&long, &[]), Err(ChatError::TooMuch)));
}

/// The engine reads and drops such templates recursively.
#[test]
fn a_deep_template_needs_no_more_stack_than_there_is() {
    let long = |unit: &str| unit.repeat(65_000 / unit.len());
    let deep = format!("{{{{ {}1 }}}}", "1+".repeat(30_000));
    assert_eq!(render(&deep, &[]).unwrap(), "30001");
    for template in [
        format!("{{{{ messages{} }}}}", long(".b")),
        format!("{{{{ messages{} }}}}", long("[0]")),
        format!("{{{{ 1{} }}}}", long("|e")),
        format!("{{{{ 1{} }}}}", long("~1")),
        format!("{{{{ 1{} }}}}", long("<1")),
        format!("{{{{ 1{} }}}}", long(" or 0")),
        format!("{{{{ 1{} }}}}", long(" is odd")),
        format!("{{{{ {}1 }}}}", long("-")),
        format!("{{{{ {}1 }}}}", long("not ")),
        format!("{{{{ {} }}}}", long("[")),
        format!("{{{{ 1{} }}}}", long(" if 0 else 1")),
        format!("{{{{ {} }}}}", long("messages(")),
        format!("{{% if 0 %}}{}{{% endif %}}", long("{% elif 0 %}")),
        long("{% if 1 %}"),
        long("{% for a in messages %}"),
        long("{{"),
        long("{%-"),
        long("{#"),
    ] {
        let _ = render(&template, &[says(Role::User, "hi")]);
    }
    let nested = "{% set ns = namespace(l=[1]) %}{% for a in range(3900) %}{% set ns.l = [ns.l] %}{% endfor %}";
    for use_of_it in ["{{ ns.l }}", "{{ ns.l | tojson }}", "{{ ns.l == [ns.l] }}"] {
        let text = render(&format!("{nested}{use_of_it}"), &[]).unwrap();
        assert!(text.len() > 3900 || text == "False", "{text}");
    }
}

#[test]
fn a_template_that_computes_on_and_on_is_given_up() {
    // Comparing texts costs the engine nothing that it counts.
    let slow = "{% set x = 'ab' * 9000000 %}{% set y = 'ab' * 9000000 %}{% for a in range(99999) %}\
                {% if x == y %}{% endif %}{% endfor %}";
    let template = template(slow);
    let start = Instant::now();
    for _ in 0..2 {
        let error = template.render(&[], &[], &noon()).unwrap_err();
        assert!(matches!(error, ChatError::TooMuch), "{error:?}");
    }
    assert!(start.elapsed().as_secs() < 9, "the second time was not waited for");
}

#[test]
fn a_model_without_a_template_has_the_one_that_its_vocabulary_was_made_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let messages = [says(Role::System, "Be brief."), says(Role::User, " Hello ")];
    let chatml = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hello <|im_end|>\n\
                  <|im_start|>assistant\n";
    let headers = "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>\
                   <|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>\
                   <|start_header_id|>assistant<|end_header_id|>\n\n";
    let llama = Tokenizer::open_folder(&root.join("text/llama3")).unwrap();
    assert_eq!(usual::format(&llama).unwrap().end, "<|im_end|>");
    assert_eq!(render(usual::format(&llama).unwrap().template, &messages).unwrap(), chatml);
    // Llama 3's own vocabulary has no mark of ChatML.
    let text = std::fs::read_to_string(root.join("text/llama3/tokenizer.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let own =
        text.replace("<|im_start|>", "<|reserved_1|>").replace("<|im_end|>", "<|reserved_2|>");
    std::fs::write(folder.path().join("tokenizer.json"), own).unwrap();
    let llama = Tokenizer::open_folder(folder.path()).unwrap();
    assert_eq!(usual::format(&llama).unwrap().end, "<|eot_id|>");
    assert_eq!(render(usual::format(&llama).unwrap().template, &messages).unwrap(), headers);
    let neither = Tokenizer::open_folder(&root.join("text/t5")).unwrap();
    assert!(usual::format(&neither).is_none());
}
