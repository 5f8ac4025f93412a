//! `text/`: tokenizers, chat templates, function calls and stop strings.

use std::collections::BTreeMap;
use std::path::Path;

use neurino_core::job::ToolCall;
use neurino_diffusion::clip::STANDARD_MERGES;
use neurino_llm::chat::prompt_date;
use neurino_llm::{ChatTemplate, StopMatcher, Tokenizer, ToolStream, ToolSyntax};
use serde::Deserialize;
use serde_json::Value;

use crate::Options;
use crate::case::Report;
use crate::language::same_ids;
use crate::reference::json;

pub(crate) fn run(folder: &Path, options: &Options, report: &mut Report<'_>) {
    tokenize(folder, report);
    real_tokenizers(folder, options, report);
    chat(folder, report);
    tool_calls(folder, report);
    stop(folder, report);
}

/// Reads the cases of a file, or reports that it cannot be; `None` also if it is not there.
fn cases<T: serde::de::DeserializeOwned>(
    folder: &Path,
    name: &str,
    report: &mut Report<'_>,
) -> Option<T> {
    let path = folder.join(name);
    if !path.is_file() {
        return None;
    }
    json(&path).map_err(|error| report.failed(&format!("text/{name}"), &error)).ok()
}

/// A text and its tokens.
#[derive(Deserialize)]
struct Tokenized {
    text: String,
    ids: Vec<u32>,
    ids_without_special: Option<Vec<u32>>,
    decoded: Option<String>,
}

fn tokenize(folder: &Path, report: &mut Report<'_>) {
    let all = cases::<BTreeMap<String, Vec<Tokenized>>>(folder, "tokenize.json", report);
    for (name, texts) in all.into_iter().flatten() {
        let case = format!("text/tokenize {name}");
        match Tokenizer::open_folder(&folder.join(&name)) {
            Ok(tokenizer) => each_text(&tokenizer, &case, &texts, report),
            Err(error) => report.failed(&case, &error),
        }
    }
}

/// Real vocabularies are nobody's to pass on, so that a folder holds only what they make of texts.
fn real_tokenizers(folder: &Path, options: &Options, report: &mut Report<'_>) {
    let all = cases::<BTreeMap<String, Vec<Tokenized>>>(folder, "real_tokenizers.json", report);
    for (name, texts) in all.into_iter().flatten() {
        let case = format!("text/real_tokenizers {name}");
        let given = options.vocabularies.as_ref().map(|folder| folder.join(&name));
        let opened = match given.filter(|folder| Tokenizer::is_in(folder)) {
            Some(folder) => Tokenizer::open_folder(&folder),
            // This one is part of the build.
            None if name == "clip" => Tokenizer::from_clip_merges(STANDARD_MERGES),
            None => {
                report.skipped(&case, "its vocabulary is not here; --vocabularies names where");
                continue;
            }
        };
        match opened {
            Ok(tokenizer) => each_text(&tokenizer, &case, &texts, report),
            Err(error) => report.failed(&case, &error),
        }
    }
}

fn each_text(tokenizer: &Tokenizer, case: &str, texts: &[Tokenized], report: &mut Report<'_>) {
    for (number, text) in texts.iter().enumerate() {
        report.equal(&format!("{case} {number}"), one_text(tokenizer, text));
    }
}

fn one_text(tokenizer: &Tokenizer, case: &Tokenized) -> Result<usize, String> {
    let encode = |special| tokenizer.encode(&case.text, special).map_err(|error| error.to_string());
    let wrong = |found: String| format!("{found} for {:?}", case.text);
    let mut count = same_ids(&encode(true)?, &case.ids).map_err(wrong)?;
    let Some(plain) = &case.ids_without_special else { return Ok(count) };
    count += same_ids(&encode(false)?, plain)
        .map_err(|found| wrong(format!("without special tokens: {found}")))?;
    let Some(decoded) = &case.decoded else { return Ok(count) };
    let found = tokenizer.decode(plain);
    if found != *decoded {
        return Err(format!("decoded {found:?} instead of {decoded:?}"));
    }
    // The same token by token, as an answer arrives.
    let mut stream = tokenizer.stream();
    let mut streamed: String = plain.iter().map(|&token| stream.push(token)).collect();
    streamed.push_str(&stream.finish());
    if streamed != *decoded {
        return Err(format!("streamed {streamed:?} instead of {decoded:?}"));
    }
    Ok(count + 1)
}

/// `chat.json`.
#[derive(Deserialize)]
struct Chats {
    templates: BTreeMap<String, String>,
    cases: Vec<ChatCase>,
}

#[derive(Deserialize)]
struct ChatCase {
    tokenizer: String,
    template: String,
    /// As OpenAI's API has them.
    messages: Value,
    #[serde(default)]
    tools: Value,
    text: String,
    ids: Vec<u32>,
}

fn chat(folder: &Path, report: &mut Report<'_>) {
    let Some(chats) = cases::<Chats>(folder, "chat.json", report) else { return };
    for (number, case) in chats.cases.iter().enumerate() {
        let name = format!("text/chat {number} {} {}", case.tokenizer, case.template);
        report.equal(&name, one_chat(folder, &chats.templates, case));
    }
}

fn one_chat(
    folder: &Path,
    templates: &BTreeMap<String, String>,
    case: &ChatCase,
) -> Result<usize, String> {
    let template = templates.get(&case.template).ok_or("the template is not in the file")?;
    let tokenizer =
        Tokenizer::open_folder(&folder.join(&case.tokenizer)).map_err(|e| e.to_string())?;
    let template = ChatTemplate::new(template, None, tokenizer.bos(), tokenizer.eos())
        .map_err(|error| error.to_string())?;
    let found = template
        .render_json(&case.messages, &case.tools, &prompt_date())
        .map_err(|error| error.to_string())?;
    if found != case.text {
        return Err(format!("{found:?} instead of {:?}", case.text));
    }
    let found = tokenizer.encode(&found, false).map_err(|error| error.to_string())?;
    same_ids(&found, &case.ids)
}

/// A case of `tool_calls.json`.
#[derive(Deserialize)]
struct ToolCase {
    output: String,
    content: Option<String>,
    tool_calls: Vec<Called>,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Called {
    name: String,
    arguments: String,
}

fn tool_calls(folder: &Path, report: &mut Report<'_>) {
    let all = cases::<Vec<ToolCase>>(folder, "tool_calls.json", report);
    for (number, case) in all.into_iter().flatten().enumerate() {
        report.equal(&format!("text/tool_calls {number}"), one_reply(&case));
    }
}

/// The reply in one piece, and letter by letter.
fn one_reply(case: &ToolCase) -> Result<usize, String> {
    let letters: Vec<&str> = case.output.split_inclusive(|_: char| true).collect();
    for pieces in [vec![case.output.as_str()], letters] {
        let mut stream = ToolStream::new(ToolSyntax::Hermes, &[], 0);
        let mut content: String = pieces.iter().map(|piece| stream.push(piece).text).collect();
        let last = stream.finish(false);
        content.push_str(&last.text);
        let call = |call: ToolCall| Called { name: call.name, arguments: call.arguments };
        let calls: Vec<Called> = last.calls.into_iter().map(call).collect();
        if content != case.content.as_deref().unwrap_or_default() {
            return Err(format!("content {content:?} instead of {:?}", case.content));
        }
        if calls != case.tool_calls {
            return Err(format!("calls {calls:?} instead of {:?}", case.tool_calls));
        }
    }
    Ok(1 + case.tool_calls.len())
}

/// A case of `stop.json`.
#[derive(Deserialize)]
struct StopCase {
    pieces: Vec<String>,
    stop: Vec<String>,
    text: String,
    pieces_used: usize,
    finish_reason: String,
}

fn stop(folder: &Path, report: &mut Report<'_>) {
    let all = cases::<Vec<StopCase>>(folder, "stop.json", report);
    for (number, case) in all.into_iter().flatten().enumerate() {
        if case.stop.iter().any(String::is_empty) {
            let reason = "it has an empty stop string, which jobs are refused with";
            report.skipped(&format!("text/stop {number}"), reason);
            continue;
        }
        let mut matcher = StopMatcher::new(&case.stop);
        let mut found = (String::new(), case.pieces.len(), "length");
        let mut stopped = false;
        for (index, piece) in case.pieces.iter().enumerate() {
            let passed = matcher.push(piece);
            found.0.push_str(&passed.text);
            if passed.stopped {
                (found.1, found.2, stopped) = (index + 1, "stop", true);
                break;
            }
        }
        if !stopped {
            found.0.push_str(&matcher.finish());
        }
        let expect = (case.text, case.pieces_used, case.finish_reason.as_str());
        let equal = (found.0.as_str(), found.1, found.2) == (expect.0.as_str(), expect.1, expect.2);
        let verdict = if equal { Ok(3) } else { Err(format!("{found:?} instead of {expect:?}")) };
        report.equal(&format!("text/stop {number}"), verdict);
    }
}
