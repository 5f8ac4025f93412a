// The contract between window and program, generated from crates/neurino-protocol and crates/neurino-core.
// Do not edit: `cargo xtask gen` writes this file and a test compares it.

/**
 * One message of a conversation.
 */
export type ChatMessage = {
/**
 * Who speaks.
 */
role: Role,
/**
 * What is said; what a function returned, for [`Role::Tool`].
 */
content: string,
/**
 * The functions that an earlier answer called.
 */
tool_calls?: Array<ToolCall>,
/**
 * For [`Role::Tool`]: the call that this is the result of.
 */
tool_call_id?: string | null,
/**
 * For [`Role::Tool`]: the function's name, if the caller says it.
 */
name?: string | null, };

/**
 * One step of a conversation's answer.
 */
export type ChatUpdate = { "kind": "queued" } | { "kind": "delta",
/**
 * The text.
 */
text: string, } | { "kind": "done",
/**
 * Tokens read and written.
 */
usage: Usage,
/**
 * From sending to the last token, in milliseconds.
 */
duration_ms: number, } | { "kind": "failed",
/**
 * Why, and what to do.
 */
error: ErrorBody, };

/**
 * One line of the doctor.
 */
export type Check = {
/**
 * What was checked, for example `GPU driver`.
 */
name: string,
/**
 * How it stands.
 */
status: CheckStatus,
/**
 * What was found, one sentence.
 */
finding: string,
/**
 * What to do, if anything.
 */
fix: string | null, };

/**
 * How a check stands.
 */
export type CheckStatus = "ok" | "warn" | "fail";

/**
 * What the window can ask for.
 */
export type Command = { "cmd": "snapshot" } | { "cmd": "mining_start" } | { "cmd": "mining_stop", "payload": {
/**
 * Whether the running job may finish first.
 */
mode: StopMode, } } | { "cmd": "model_fetch", "payload": {
/**
 * The model.
 */
model: ModelId, } } | { "cmd": "chat_send", "payload": {
/**
 * Chosen by the caller; names the answer's events.
 */
chat: string,
/**
 * The model.
 */
model: ModelId,
/**
 * The conversation, oldest first.
 */
messages: Array<ChatMessage>,
/**
 * 0 to 2.
 */
temperature: number,
/**
 * Most tokens to generate.
 */
max_tokens: number, } } | { "cmd": "chat_cancel", "payload": {
/**
 * The name given to [`Command::ChatSend`].
 */
chat: string, } } | { "cmd": "picture_send", "payload": {
/**
 * Chosen by the caller; names the picture's events.
 */
picture: string,
/**
 * What to make. Its `preview` is set by the application.
 */
job: ImageJob, } } | { "cmd": "picture_cancel", "payload": {
/**
 * The name given to [`Command::PictureSend`].
 */
picture: string, } } | { "cmd": "picture_save", "payload": {
/**
 * The picture.
 */
png: Png, } } | { "cmd": "receipts", "payload": {
/**
 * Only those settled before this time, in milliseconds since the Unix epoch.
 */
before_ms: number | null,
/**
 * At most so many, up to 200.
 */
limit: number, } } | { "cmd": "doctor" } | { "cmd": "preferences" } | { "cmd": "preferences_set", "payload": {
/**
 * All of them.
 */
preferences: Preferences, } } | { "cmd": "window", "payload": {
/**
 * What to do with the window.
 */
action: WindowAction, } };

/**
 * The job in work; of several, the oldest that is being computed.
 */
export type CurrentJob = {
/**
 * The job.
 */
job: JobId,
/**
 * What it makes.
 */
kind: JobKind,
/**
 * Its model.
 */
model: ModelId,
/**
 * What happens to it now.
 */
stage: JobStage,
/**
 * Tokens generated, or steps of the picture done.
 */
done: number,
/**
 * Most tokens it may generate, or all steps of the picture.
 */
of: number,
/**
 * Since the lease was received, in milliseconds.
 */
elapsed_ms: number,
/**
 * Milliseconds from receipt after which it earns nothing.
 */
budget_ms: number,
/**
 * Jobs in work, this one included.
 */
jobs: number, };

/**
 * A device of this machine.
 */
export type Device = {
/**
 * Its name, as its maker spells it.
 */
name: string,
/**
 * What it is.
 */
kind: DeviceKind,
/**
 * Whether jobs run on it.
 */
in_use: boolean,
/**
 * Why it is not used, or what to know about it, in one sentence.
 */
note: string | null,
/**
 * Its memory in bytes.
 */
memory_bytes: number,
/**
 * Memory in use by anybody, in bytes.
 */
memory_used_bytes: number,
/**
 * 0 to 100.
 */
load_percent: number | null,
/**
 * Degrees Celsius.
 */
temperature_c: number | null,
/**
 * Watts.
 */
power_w: number | null, };

/**
 * What a device is.
 */
export type DeviceKind = "gpu" | "cpu";

/**
 * An error as it crosses an edge: plain words first, and a way out where there is one.
 */
export type ErrorBody = {
/**
 * For programs.
 */
code: ErrorCode,
/**
 * For people: one sentence, no secrets, no prompt.
 */
message: string,
/**
 * What to do about it.
 */
hint?: string, };

/**
 * What went wrong, for programs. A variant exists only where somebody acts on it.
 */
export type ErrorCode = "invalid_request" | "too_large" | "unauthorized" | "forbidden" | "insufficient_credits" | "rate_limited" | "bad_signature" | "not_found" | "unknown_model" | "context_too_long" | "model_not_ready" | "model_unreadable" | "no_node_available" | "deadline_passed" | "stale_lease" | "overloaded" | "cancelled" | "engine_failed" | "unreachable" | "unsupported_version" | "internal";

/**
 * What happened, pushed to every viewer.
 */
export type Event = { "event": "snapshot", "payload": Snapshot } | { "event": "settled", "payload": Receipt } | { "event": "chat", "payload": {
/**
 * The name given to [`Command::ChatSend`].
 */
chat: string,
/**
 * What happened.
 */
update: ChatUpdate, } } | { "event": "picture", "payload": {
/**
 * The name given to [`Command::PictureSend`].
 */
picture: string,
/**
 * What happened.
 */
update: PictureUpdate, } } | { "event": "close_requested" };

/**
 * One event of the ledger: the postings that share it sum to zero.
 */
export type EventId = string;

/**
 * What suits an image model, for requests that leave it open.
 */
export type ImageDefaults = {
/**
 * In pixels.
 */
width: number,
/**
 * In pixels.
 */
height: number,
/**
 * Steps of the noise schedule.
 */
steps: number,
/**
 * How strongly the prompt guides.
 */
guidance: number,
/**
 * What is not to be seen, if the request does not say.
 */
negative_prompt: string, };

/**
 * A picture to make from words. Several pictures are several jobs.
 */
export type ImageJob = {
/**
 * Model of the catalogue.
 */
model: ModelId,
/**
 * What is to be seen. May be empty; at most [`ImageJob::PROMPT_BYTES_LIMIT`] bytes.
 */
prompt: string,
/**
 * What is not to be seen; same limit.
 */
negative_prompt: string,
/**
 * In pixels: a multiple of 8, [`ImageJob::SIDE_MIN`] to [`ImageJob::SIDE_MAX`].
 */
width: number,
/**
 * In pixels, as `width`.
 */
height: number,
/**
 * Steps of the noise schedule, 1 to [`ImageJob::STEPS_LIMIT`].
 */
steps: number,
/**
 * How strongly the prompt guides, 0 to [`ImageJob::GUIDANCE_MAX`]; at most 1 is no guidance.
 */
guidance: number,
/**
 * Makes the picture repeatable. The network sets one when the payer did not.
 */
seed: number,
/**
 * Whether progress carries small previews. Off unless asked for: they show what is being made.
 */
preview: boolean, };

/**
 * A job: one request of one payer, from admission to its terminal state. Version 7, so ids
 * sort by time of admission.
 */
export type JobId = string;

/**
 * The kind of a job.
 */
export type JobKind = "text" | "image";

/**
 * What happens to a job on this machine.
 */
export type JobStage = "loading" | "running" | "sending";

/**
 * One attempt of one node at one job. Also the idempotency key of its result and payment.
 */
export type LeaseId = string;

/**
 * An amount in micro-points (1e-6 point); negative in the debiting half of a posting pair.
 */
export type MicroPoints = number;

/**
 * What the miner does.
 */
export type MiningState = "stopped" | "starting" | "waiting" | "working" | "finishing" | "needs_you";

/**
 * What the miner does, and why.
 */
export type MiningStatus = {
/**
 * The state.
 */
state: MiningState,
/**
 * One sentence for people: what it does and, if it does nothing, why and what helps.
 */
sentence: string,
/**
 * Since when, in milliseconds since the Unix epoch.
 */
since_ms: number,
/**
 * What needs the person's attention.
 */
problem: ErrorBody | null, };

/**
 * A model of the catalogue, for example `smollm2-135m-instruct`.
 */
export type ModelId = string;

/**
 * Where a model stands on this machine.
 */
export type ModelState = { "state": "absent" } | { "state": "fetching",
/**
 * Bytes done.
 */
done_bytes: number,
/**
 * Bytes in all.
 */
total_bytes: number, } | { "state": "ready" } | { "state": "loaded" };

/**
 * A model of the catalogue, as this machine has it.
 */
export type ModelStatus = {
/**
 * Its id.
 */
id: ModelId,
/**
 * Its name for people.
 */
name: string,
/**
 * One sentence about it.
 */
summary: string,
/**
 * What it makes.
 */
kind: JobKind,
/**
 * What suits it, if it makes pictures.
 */
image: ImageDefaults | null,
/**
 * Size of its files in bytes.
 */
size_bytes: number,
/**
 * SPDX licence id.
 */
licence: string,
/**
 * Where it stands.
 */
state: ModelState,
/**
 * What went wrong with it last.
 */
problem: ErrorBody | null, };

/**
 * A factor in millionths: 1 000 000 is one.
 */
export type Multiplier = number;

/**
 * The network this machine works for.
 */
export type NetworkStatus = {
/**
 * Its name.
 */
name: string,
/**
 * Whether it is the built-in practice network of this machine.
 */
practice: boolean,
/**
 * Whether the miner is connected to it.
 */
connected: boolean,
/**
 * Base URL of its OpenAI-compatible gateway, for example `http://127.0.0.1:43110/v1`.
 */
gateway_url: string | null, };

/**
 * A node of the network: the lower-case `0x…` address of its identity key, optionally with a
 * `-tag` behind it so that several machines can share one key.
 */
export type NodeId = string;

/**
 * What closing the window does.
 */
export type OnClose = "ask" | "tray" | "quit";

/**
 * One step of a picture that is being made.
 */
export type PictureUpdate = { "kind": "queued" } | { "kind": "preview",
/**
 * Small.
 */
png: Png, } | { "kind": "done",
/**
 * The picture.
 */
png: Png,
/**
 * From sending to the last byte, in milliseconds.
 */
duration_ms: number, } | { "kind": "failed",
/**
 * Why, and what to do.
 */
error: ErrorBody, };

/**
 * The bytes of a PNG file. Base64 on the wire.
 */
export type Png = string;

/**
 * The two currencies of work.
 */
export type PointsKind = "llama" | "waifu";

/**
 * Points of one identity on one network.
 */
export type PointsSummary = {
/**
 * Llama points since local midnight.
 */
llama_today: MicroPoints,
/**
 * Llama points in all.
 */
llama_total: MicroPoints,
/**
 * Waifu points since local midnight.
 */
waifu_today: MicroPoints,
/**
 * Waifu points in all.
 */
waifu_total: MicroPoints,
/**
 * Jobs paid since local midnight.
 */
jobs_today: number,
/**
 * Jobs paid in all.
 */
jobs_total: number, };

/**
 * The window's preferences.
 */
export type Preferences = {
/**
 * Colours.
 */
theme: Theme,
/**
 * What closing the window does; asked once.
 */
on_close: OnClose, };

/**
 * How an amount came about; every step of the formula as an integer.
 */
export type Quote = {
/**
 * Which points.
 */
points: PointsKind,
/**
 * Tokens in and out (text), or pixels times steps (images).
 */
units: number,
/**
 * Base before factors: 1000 micro-points a token; of a picture pixels x steps / (512 x 512 x 20)
 * points, rounded down.
 */
base_micro: MicroPoints,
/**
 * The model's factor.
 */
factor: Multiplier,
/**
 * The owner's multiplier.
 */
multiplier: Multiplier,
/**
 * base x factor x multiplier, rounded down once, at the end.
 */
amount_micro: MicroPoints, };

/**
 * A signed statement that a job was paid, and how the amount was computed.
 */
export type Receipt = {
/**
 * The ledger event that holds the payment's postings.
 */
event: EventId,
/**
 * The paid job.
 */
job: JobId,
/**
 * The lease it was paid under.
 */
lease: LeaseId,
/**
 * Who was paid.
 */
node: NodeId,
/**
 * The model that served it.
 */
model: ModelId,
/**
 * Tokens read and written.
 */
usage: Usage,
/**
 * The rule set that priced it.
 */
rule_set: string,
/**
 * The amount, step by step.
 */
quote: Quote,
/**
 * SHA-256 of the result that was paid.
 */
digest: ResultDigest,
/**
 * From lease to accepted result, by the coordinator's clock, in milliseconds.
 */
duration_ms: number,
/**
 * When it was settled, in milliseconds since the Unix epoch.
 */
settled_at_ms: number,
/**
 * The network's name, for example `practice`.
 */
network: string,
/**
 * Address of the coordinator's key.
 */
coordinator: string,
/**
 * Its signature over [`Receipt::message`], `0x` and 130 hex digits.
 */
signature: string, };

/**
 * The answer to a [`Command`].
 */
export type Reply = { "reply": "ok" } | { "reply": "snapshot", "payload": Snapshot } | { "reply": "saved", "payload": {
/**
 * Where it lies now.
 */
path: string, } } | { "reply": "receipts", "payload": Array<Receipt> } | { "reply": "doctor", "payload": Array<Check> } | { "reply": "preferences", "payload": Preferences };

/**
 * SHA-256 of a result; what the node signs and the receipt names. Hex on the wire.
 */
export type ResultDigest = string;

/**
 * Who speaks in a conversation.
 */
export type Role = "system" | "user" | "assistant" | "tool";

/**
 * Everything the window shows.
 */
export type Snapshot = {
/**
 * Version of the program.
 */
version: string,
/**
 * The network this machine works for.
 */
network: NetworkStatus,
/**
 * What the miner does, and why.
 */
mining: MiningStatus,
/**
 * Points of this machine's identity on this network.
 */
points: PointsSummary,
/**
 * The devices of this machine; the one that computes first.
 */
devices: Array<Device>,
/**
 * The job in work.
 */
job: CurrentJob | null,
/**
 * Models of the catalogue.
 */
models: Array<ModelStatus>,
/**
 * The last receipts, newest first, at most 20.
 */
receipts: Array<Receipt>,
/**
 * Public address of the identity key.
 */
identity: string, };

/**
 * How to stop.
 */
export type StopMode = "finish" | "now";

/**
 * Colours of the window.
 */
export type Theme = "system" | "light" | "dark";

/**
 * A function call in an answer.
 */
export type ToolCall = {
/**
 * Names the call, so that its result can refer to it.
 */
id: string,
/**
 * The function.
 */
name: string,
/**
 * Its arguments, as JSON text: exactly what the model wrote.
 */
arguments: string, };

/**
 * Tokens read and written by one job.
 */
export type Usage = {
/**
 * Tokens of the prompt, after the chat template.
 */
prompt_tokens: number,
/**
 * Tokens generated in all answers, end tokens included.
 */
completion_tokens: number, };

/**
 * What the shell does with its window.
 */
export type WindowAction = "hide" | "quit";
