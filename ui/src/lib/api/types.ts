// The contract between window and program, generated from crates/neurino-protocol and crates/neurino-core.
// Do not edit: `cargo xtask gen` writes this file and a test compares it.

/**
 * What this system tells; a rule that needs more cannot be used here.
 */
export type Abilities = {
/**
 * How long nobody has used mouse and keyboard.
 */
idle: boolean,
/**
 * Whether the machine runs on its battery.
 */
battery: boolean,
/**
 * Whether the network is metered.
 */
metered: boolean,
/**
 * Which programs run.
 */
programs: boolean,
/**
 * Which window is in front, and whether it fills the screen.
 */
front: boolean,
/**
 * How busy a program keeps the card.
 */
card_load: boolean,
/**
 * How hot the card that computes is.
 */
heat: boolean, };

/**
 * What the miner has to do, from the mildest to the strictest.
 */
export type Action = "run" | "take_no_jobs" | "finish_then_stop" | "hand_back";

/**
 * A long task under way.
 */
export type Activity = {
/**
 * Which.
 */
task: Task,
/**
 * Bytes done.
 */
done_bytes: number,
/**
 * Bytes in all; 0 if unknown.
 */
total_bytes: number,
/**
 * What a task has done that asks servers rather than reading a drive.
 */
asked: Asked | null, };

/**
 * Something the person should know.
 */
export type Alert = {
/**
 * What it is about.
 */
kind: AlertKind,
/**
 * What is the case and what helps, in two sentences.
 */
sentence: string,
/**
 * Since when, in milliseconds since the Unix epoch.
 */
since_ms: number,
/**
 * When it ended; none while it lasts.
 */
until_ms: number | null, };

/**
 * What an alert is about.
 */
export type AlertKind = "hot" | "no_points" | "stuck" | "low_disk" | "frozen";

/**
 * When to alert. What is missing in a file has its default, what is unknown is ignored.
 */
export type AlertRules = {
/**
 * Whether a hot card is told.
 */
hot: boolean,
/**
 * From this temperature, in degrees Celsius, 50 to 105.
 */
hot_c: number,
/**
 * After so many minutes of it, 1 to 120.
 */
hot_minutes: number,
/**
 * Whether mining without points is told.
 */
no_points: boolean,
/**
 * After so many hours of it, 1 to 168.
 */
no_points_hours: number,
/**
 * Whether a download that does not advance is told.
 */
stuck: boolean,
/**
 * After so many minutes of it, 1 to 1440.
 */
stuck_minutes: number,
/**
 * Whether a drive that is nearly full is told.
 */
low_disk: boolean,
/**
 * Below so many gigabytes free, 1 to 1000.
 */
low_disk_gb: number,
/**
 * Whether results without a reward are told.
 */
frozen: boolean, };

/**
 * What the window asks for; each is answered with an [`AlertsView`].
 */
export type AlertsCommand = { "ask": "look" } | { "ask": "set",
/**
 * All of them.
 */
rules: AlertRules, };

/**
 * Alerts, as the settings show them.
 */
export type AlertsView = {
/**
 * The rules in force.
 */
rules: AlertRules,
/**
 * What was told and is over, newest first.
 */
past: Array<Alert>, };

/**
 * Servers that were asked for the size of a file.
 */
export type Asked = {
/**
 * Questions with an answer.
 */
done: number,
/**
 * Questions in all.
 */
total: number, };

/**
 * Whether the computer is kept awake.
 */
export type AwakeState = { "state": "released" } | { "state": "held" } | { "state": "failed",
/**
 * Why, in one sentence.
 */
message: string, };

/**
 * What a number of pieces, or more, is worth.
 */
export type BoostStepView = {
/**
 * Pieces.
 */
nfts: number,
/**
 * The factor.
 */
multiplier: Multiplier, };

/**
 * What pieces of the Imaginaries are worth on each card.
 */
export type BoostView = {
/**
 * Where the table comes from, in words.
 */
note: string,
/**
 * Cards that one piece boosts.
 */
cards_per_nft: number,
/**
 * The table: pieces, and what they are worth.
 */
steps: Array<BoostStepView>,
/**
 * This machine's cards, once the number of pieces is known.
 */
cards: Array<BoostedCard>, };

/**
 * A card and its factor.
 */
export type BoostedCard = {
/**
 * Its name.
 */
name: string,
/**
 * Its factor.
 */
multiplier: Multiplier, };

/**
 * Both kinds of points; they are never added to each other.
 */
export type BothPoints = {
/**
 * Paid for text.
 */
llama: MicroPoints,
/**
 * Paid for pictures.
 */
waifu: MicroPoints, };

/**
 * What the person chose for a card, or for the processor.
 */
export type CardChoice = {
/**
 * Whether it may be used at all.
 */
use: boolean,
/**
 * What for.
 */
role: CardRole,
/**
 * What the person calls it.
 */
name?: string, };

/**
 * What a card is used for.
 */
export type CardRole = "both" | "text" | "pictures";

/**
 * What the window asks for; each is answered with a [`CatalogueView`].
 */
export type CatalogueCommand = { "ask": "look" } | { "ask": "read_lists",
/**
 * Where they lie.
 */
places: ListPlaces, } | { "ask": "check" };

/**
 * An edition of the signed catalogue.
 */
export type CatalogueEdition = {
/**
 * Rises with every edition.
 */
version: number,
/**
 * When it was made, if it says so, in milliseconds since the Unix epoch.
 */
issued_at_ms: number | null, };

/**
 * The signed catalogue, as the Models page shows it.
 */
export type CatalogueStatus = {
/**
 * The one in force; `None` where the models are those of this version of the program.
 */
edition: CatalogueEdition | null,
/**
 * Whether this build looks for newer ones: it names a place and a key.
 */
looks: boolean,
/**
 * It looks just now.
 */
looking: boolean,
/**
 * When it last looked, in milliseconds since the Unix epoch.
 */
checked_at_ms: number | null,
/**
 * Why the last look came to nothing.
 */
problem: ErrorBody | null, };

/**
 * What is known of the network's lists.
 */
export type CatalogueView = {
/**
 * Where they were read from last.
 */
places: ListPlaces,
/**
 * What became of their entries, since this program started.
 */
report: ListsReport | null, };

/**
 * What a rule saw.
 */
export type Cause = { "cause": "crash" } | { "cause": "game",
/**
 * The program.
 */
program: string,
/**
 * How it was recognised.
 */
sign: Sign, } | { "cause": "cool_down",
/**
 * The program.
 */
program: string, } | { "cause": "exclusive",
/**
 * The program.
 */
program: string,
/**
 * The device.
 */
device: JobDevice, } | { "cause": "other_user" } | { "cause": "battery" } | { "cause": "hot",
/**
 * What it reached, in degrees Celsius.
 */
reached_c: number,
/**
 * Down to which it has to cool.
 */
resume_c: number, } | { "cause": "in_use",
/**
 * Minutes without input that are needed.
 */
minutes: number, } | { "cause": "away_unknown" } | { "cause": "schedule",
/**
 * Whether cheap hours alone count.
 */
cheap_only: boolean, } | { "cause": "metered" } | { "cause": "update" } | { "cause": "moving" };

/**
 * What public chains say.
 */
export type ChainView = {
/**
 * Nodes that may be asked.
 */
nodes: Array<NodeView>,
/**
 * When the facts below were last asked for, in milliseconds since the Unix epoch.
 */
checked_at_ms: number | null,
/**
 * Whether the reward address knows this identity.
 */
binding: Fact,
/**
 * Pieces of the Imaginaries that the reward address holds.
 */
nfts: Fact,
/**
 * The contract of the Imaginaries, as the person entered it.
 */
collection: string | null,
/**
 * What the reward address has staked.
 */
staked: Fact,
/**
 * What the pieces are worth.
 */
boost: BoostView, };

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
 * How many receipts were computed again.
 */
export type Checked = {
/**
 * The amount follows from the rules.
 */
agree: number,
/**
 * It does not.
 */
differ: number,
/**
 * This version of the program does not know the rules.
 */
unknown: number, };

/**
 * How an entered address reads.
 */
export type CheckedAddress = {
/**
 * The address with the capitals of its checksum.
 */
address: string,
/**
 * Whether the capitals entered proved that no character is wrong.
 */
proven: boolean,
/**
 * Another address, now or once in use, that looks alike at both ends.
 */
looks_like: string | null,
/**
 * Whether points go there already.
 */
in_use: boolean,
/**
 * The address as a QR code.
 */
qr: QrView | null, };

/**
 * A time as this week's clock shows it.
 */
export type Clock = {
/**
 * The day, where it is not today; 0 is Monday.
 */
day: number | null,
/**
 * Minutes since that day's midnight.
 */
minute: number, };

/**
 * What the window can ask for.
 */
export type Command = { "cmd": "snapshot" } | { "cmd": "mining_start" } | { "cmd": "mining_stop", "payload": {
/**
 * Whether the running job may finish first.
 */
mode: StopMode, } } | { "cmd": "mining_order", "payload": {
/**
 * The order.
 */
order: Order, } } | { "cmd": "rules" } | { "cmd": "rules_set", "payload": {
/**
 * All of them.
 */
rules: Rules, } } | { "cmd": "decisions" } | { "cmd": "model_fetch", "payload": {
/**
 * The model.
 */
model: ModelId, } } | { "cmd": "library", "payload": LibraryAction } | { "cmd": "own_model", "payload": OwnModelCommand } | { "cmd": "catalogue", "payload": CatalogueCommand } | { "cmd": "chat_send", "payload": {
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
png: Png,
/**
 * What it was made with, if the file is to say so.
 */
settings: ImageJob | null, } } | { "cmd": "receipts", "payload": {
/**
 * Only those settled before this time, in milliseconds since the Unix epoch.
 */
before_ms: number | null,
/**
 * At most so many, up to 200.
 */
limit: number, } } | { "cmd": "earnings", "payload": {
/**
 * What is asked.
 */
about: EarningsAsk, } } | { "cmd": "data" } | { "cmd": "doctor" } | { "cmd": "preferences" } | { "cmd": "preferences_set", "payload": {
/**
 * All of them.
 */
preferences: Preferences, } } | { "cmd": "wallet", "payload": WalletCommand } | { "cmd": "onboarding", "payload": OnboardingCommand } | { "cmd": "power", "payload": PowerCommand } | { "cmd": "alerts", "payload": AlertsCommand } | { "cmd": "update", "payload": UpdateCommand } | { "cmd": "notices", "payload": NoticesCommand } | { "cmd": "hotkey", "payload": HotkeyCommand } | { "cmd": "filter", "payload": FilterCommand } | { "cmd": "card_choose", "payload": {
/**
 * The card's [`Device::card`].
 */
card: string,
/**
 * All of the choice.
 */
choice: CardChoice, } } | { "cmd": "window", "payload": {
/**
 * What to do with the window.
 */
action: WindowAction, } };

/**
 * The control's part of a snapshot.
 */
export type ControlStatus = {
/**
 * The decision in force.
 */
decision: Decision,
/**
 * What was given back when mining last stepped aside, while it still does.
 */
gave_back: GaveBack | null, };

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
 * How long it will take in all, told from others of its model, in milliseconds.
 */
estimate_ms?: number,
/**
 * Jobs in work, this one included.
 */
jobs: number, };

/**
 * What a folder is for.
 */
export type DataKind = "models" | "records" | "outbox" | "settings" | "logs" | "pictures" | "exports";

/**
 * A folder.
 */
export type DataPlace = {
/**
 * What it is for.
 */
kind: DataKind,
/**
 * Where it is, or would be.
 */
folder: string,
/**
 * What it holds, in bytes, without the other folders of this list that lie in it.
 */
size_bytes: number, };

/**
 * Hours of the day, in minutes since local midnight; over midnight if the begin is later than the end.
 */
export type DayWindow = {
/**
 * The first minute.
 */
from_minute: number,
/**
 * The minute behind the last.
 */
until_minute: number, };

/**
 * The one decision that is in force.
 */
export type Decision = {
/**
 * The state it means.
 */
state: State,
/**
 * What the miner has to do.
 */
action: Action,
/**
 * Why.
 */
why: Why,
/**
 * All of that in one sentence or two, for people.
 */
sentence: string,
/**
 * The same as data, to be said in another language.
 */
said: Saying,
/**
 * When it ends by itself, in milliseconds since the Unix epoch, where that is known.
 */
until_ms: number | null,
/**
 * What starting now would do, where something keeps mining from running.
 */
resume: string | null,
/**
 * What that would set aside.
 */
resume_lifts: Array<Lifted>,
/**
 * Where the rule that holds can be changed.
 */
change: Section | null,
/**
 * Which rules the person's own choice sets aside, as a sentence.
 */
aside: string | null,
/**
 * Whether it mines gently: somebody uses the machine, and the person wants it so.
 */
gentle: boolean,
/**
 * The same as data.
 */
aside_lifts: Array<Lifted>, };

/**
 * A device of this machine.
 */
export type Device = {
/**
 * Names this very device on this machine: a card's UUID, or [`crate::cards::PROCESSOR`].
 */
card: string,
/**
 * What the person calls it, else its maker's name.
 */
name: string,
/**
 * Its maker's name, where the person gave it another one.
 */
product: string | null,
/**
 * What the person chose for it; `None` where there is no choice.
 */
choice: CardChoice | null,
/**
 * It was here and does not answer any more.
 */
gone: boolean,
/**
 * The choice takes effect when the running jobs are finished.
 */
pending: boolean,
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
 * The hottest place of its memory, in degrees Celsius, where the driver tells it.
 */
memory_temperature_c: number | null,
/**
 * Watts.
 */
power_w: number | null,
/**
 * The limit that this program holds on its power, in watts.
 */
limit_w: number | null, };

/**
 * What a device is.
 */
export type DeviceKind = "gpu" | "cpu";

/**
 * Something the person should look at.
 */
export type EarningsAlarm = { "alarm": "drift",
/**
 * How many.
 */
receipts: number,
/**
 * Paid beyond what the rules give, or below it.
 */
difference: MicroPoints, } | { "alarm": "frozen",
/**
 * Results that wait, and those refused since.
 */
jobs: number,
/**
 * When something was last credited.
 */
credited_ms: number | null, } | { "alarm": "books",
/**
 * Which points.
 */
kind: PointsKind,
/**
 * What the receipts say.
 */
receipts: MicroPoints,
/**
 * What the books say.
 */
books: MicroPoints, };

/**
 * What is answered.
 */
export type EarningsAnswer = { "answer": "overview", "payload": EarningsOverview } | { "answer": "series", "payload": Array<SeriesBar> } | { "answer": "receipts", "payload": ReceiptPage } | { "answer": "recomputed", "payload": Recomputed } | { "answer": "jobs", "payload": JobPage } | { "answer": "telemetry", "payload": TelemetrySeries } | { "answer": "logs", "payload": LogPage } | { "answer": "saved", "payload": {
/**
 * Where it lies now.
 */
path: string, } } | { "answer": "ok" };

/**
 * What can be asked.
 */
export type EarningsAsk = { "ask": "overview" } | { "ask": "series",
/**
 * Width of a bar.
 */
by: SeriesStep,
/**
 * How many, the current one included; at most 400.
 */
count: number, } | { "ask": "receipts",
/**
 * Which.
 */
filter: ReceiptFilter,
/**
 * The `next` of the page before; the newest when absent.
 */
before: number | null,
/**
 * At most so many, up to 200.
 */
limit: number, } | { "ask": "recompute",
/**
 * As it was shown.
 */
receipt: Receipt, } | { "ask": "jobs",
/**
 * Which.
 */
filter: JobFilter,
/**
 * The `next` of the page before; the newest when absent.
 */
before: number | null,
/**
 * At most so many, up to 200.
 */
limit: number, } | { "ask": "telemetry",
/**
 * How far back.
 */
span: TelemetrySpan, } | { "ask": "logs",
/**
 * Which.
 */
filter: LogFilter,
/**
 * At most so many, up to 2000.
 */
limit: number, } | { "ask": "export",
/**
 * What.
 */
what: ExportKind,
/**
 * How.
 */
format: ExportFormat,
/**
 * From when on; everything when absent.
 */
since_ms: number | null, } | { "ask": "logs_save",
/**
 * Which.
 */
filter: LogFilter, } | { "ask": "bundle" } | { "ask": "tariff",
/**
 * The price.
 */
tariff: Tariff | null, };

/**
 * Everything the cards show.
 */
export type EarningsOverview = {
/**
 * When this was computed.
 */
at_ms: number,
/**
 * The time zone of its days, for example `Europe/Berlin`.
 */
time_zone: string,
/**
 * The rate of the last fifteen minutes, and what follows from it.
 */
rate: Rate,
/**
 * Today, the last 7 and 30 days, and all time.
 */
spans: Array<SpanTotal>,
/**
 * Results that no receipt has answered yet; their points are not part of any total.
 */
pending: Pending,
/**
 * Each model of the last 30 days, the best paid first.
 */
models: Array<ModelTotal>,
/**
 * Which factors paid in the last 30 days.
 */
multipliers: Array<MultiplierLine>,
/**
 * Why the last 24 hours differ from the 24 before, for each kind that was earned.
 */
changes: Array<RateChange>,
/**
 * The week that runs.
 */
week: WeekTotal,
/**
 * Past weeks in which something was earned, newest first, at most 60.
 */
weeks: Array<WeekTotal>,
/**
 * The price of energy, if the person has set one.
 */
tariff: Tariff | null,
/**
 * What needs the person's eye.
 */
alarms: Array<EarningsAlarm>,
/**
 * Receipts that were computed again here, out of all.
 */
checked: Checked,
/**
 * How closely the network watches this machine, where it says so.
 */
trust: NodeTrust | null, };

/**
 * How a hold ends.
 */
export type Ending = { "end": "also",
/**
 * The second cause.
 */
cause: Cause, } | { "end": "checked" } | { "end": "game_gone",
/**
 * So many seconds later; at once for 0.
 */
after_secs: number, } | { "end": "own_session" } | { "end": "program_ends" } | { "end": "mains" } | { "end": "cooled",
/**
 * Down to this, in degrees Celsius.
 */
resume_c: number, } | { "end": "idle",
/**
 * For so many minutes.
 */
minutes: number, } | { "end": "other_rule" } | { "end": "no_hour" } | { "end": "other_network" } | { "end": "updated" } | { "end": "moved" } | { "end": "at",
/**
 * It.
 */
time: Clock, } | { "end": "unknown" };

/**
 * Energy while mining.
 */
export type Energy = {
/**
 * All of it, in millijoules.
 */
used_mj: number,
/**
 * The part that was estimated because no sensor told it, in millijoules.
 */
estimated_mj: number, };

/**
 * A decision of the past.
 */
export type Entry = {
/**
 * When it was made, in milliseconds since the Unix epoch.
 */
at_ms: number,
/**
 * The state it meant.
 */
state: State,
/**
 * Its sentence.
 */
sentence: string,
/**
 * The same as data; none of a decision that an older version wrote down.
 */
said: Saying | null, };

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
export type ErrorCode = "invalid_request" | "too_large" | "unauthorized" | "forbidden" | "insufficient_credits" | "rate_limited" | "bad_signature" | "not_found" | "payload_shredded" | "unknown_model" | "context_too_long" | "model_not_ready" | "model_unreadable" | "no_node_available" | "deadline_passed" | "stale_lease" | "overloaded" | "cancelled" | "engine_failed" | "declined" | "unreachable" | "unsupported_version" | "internal";

/**
 * Where an estimate comes from.
 */
export type EstimateMethod = { "by": "own",
/**
 * How many.
 */
jobs: number, } | { "by": "network" };

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
 * How it is written.
 */
export type ExportFormat = "csv" | "json";

/**
 * What is exported.
 */
export type ExportKind = "receipts" | "jobs" | "days";

/**
 * A fact of a public chain.
 */
export type Fact = { "fact": "no_reward" } | { "fact": "no_node",
/**
 * The chain.
 */
chain: string, } | { "fact": "not_known",
/**
 * The contract.
 */
contract: string,
/**
 * Its chain.
 */
chain: string, } | { "fact": "not_checked" } | { "fact": "failed",
/**
 * Why, and what to do.
 */
error: ErrorBody, } | { "fact": "bound",
/**
 * The identity; none yet when absent.
 */
identity: string | null,
/**
 * Whether it is this machine's.
 */
ours: boolean, } | { "fact": "pieces",
/**
 * How many.
 */
count: number, } | { "fact": "staked",
/**
 * The amount, exactly, in the token's unit.
 */
amount: string,
/**
 * What one of it is worth in the token that was staked.
 */
rate: string, };

/**
 * What the window asks for; each is answered with [`FilterView`].
 */
export type FilterCommand = { "ask": "look" } | { "ask": "set",
/**
 * All of it.
 */
filter: FilterView, };

/**
 * The content filter.
 */
export type FilterView = {
/**
 * Whether the words are looked for.
 */
on: boolean,
/**
 * Words and phrases that a prompt must not hold: at most [`FilterView::WORDS_MAX`], each of at
 * most [`FilterView::WORD_CHARS_MAX`] characters.
 */
words: Array<string>, };

/**
 * A model to begin with.
 */
export type FirstModel = {
/**
 * The model.
 */
model: ModelId,
/**
 * Whether its files come with the program or with a download.
 */
comes_along: boolean, };

/**
 * A verdict.
 */
export type FitVerdict = "runs" | "slower_four_bit" | "slower_pieces" | "slower_streams" | "slower_processor" | "no";

/**
 * Where points went once.
 */
export type FormerRewardView = {
/**
 * The address.
 */
address: string,
/**
 * From when, in milliseconds since the Unix epoch.
 */
since_ms: number,
/**
 * Until when, in milliseconds since the Unix epoch.
 */
until_ms: number, };

/**
 * A key file of a miner of the first kind.
 */
export type FoundKeyView = {
/**
 * The file.
 */
path: string,
/**
 * Whose points it works for.
 */
reward: string,
/**
 * Address of its identity.
 */
identity: string,
/**
 * Whether others on this machine may read its words.
 */
readable_by_others: boolean, };

/**
 * What a miner of the first kind left on this disk.
 */
export type FoundMiner = {
/**
 * Its miner ids as it submits them.
 */
miner_ids: Array<string>,
/**
 * Reward addresses of ids and key files, each once.
 */
rewards: Array<string>,
/**
 * Its key files.
 */
keys: Array<FoundKeyView>,
/**
 * What was found and cannot be used, one sentence each.
 */
problems: Array<string>,
/**
 * Folder of its model files, if it has any.
 */
models_folder: string | null,
/**
 * How many there are.
 */
models_count: number,
/**
 * Their size in bytes.
 */
models_bytes: number, };

/**
 * Memory that a program got back, measured before and after.
 */
export type GaveBack = {
/**
 * Bytes in use before, less those in use after: of the card, else of the engine's processes.
 */
bytes: number,
/**
 * From the decision until the model was unloaded, in milliseconds.
 */
duration_ms: number,
/**
 * Jobs that were handed back.
 */
jobs: number, };

/**
 * A combination that one program may have to itself, whichever window is in front. What every program
 * needs (a letter alone, a letter with Shift) is none.
 */
export type Hotkey = string;

/**
 * What the window asks for; each is answered with [`HotkeyView`].
 */
export type HotkeyCommand = { "ask": "look" } | { "ask": "set",
/**
 * The keys; `None` for no hotkey.
 */
keys: Hotkey | null, };

/**
 * The hotkey as it stands.
 */
export type HotkeyView = {
/**
 * Whether there can be one.
 */
way: HotkeyWay,
/**
 * The keys that the person chose.
 */
keys: Hotkey | null,
/**
 * Why they do nothing at the moment.
 */
problem: ErrorBody | null, };

/**
 * Whether the system gives keys to programs.
 */
export type HotkeyWay = "here" | "wayland" | "not_here";

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
negative_prompt: string,
/**
 * What the sides of its pictures are multiples of: 8, and 16 for Flux.
 */
side_multiple: number,
/**
 * Which sampler makes its pictures, by the name that picture programs know: for who asks what a
 * picture was made with. At most [`ImageDefaults::SAMPLER_BYTES_LIMIT`] letters, digits and signs.
 */
sampler?: string, };

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
 * What computes the jobs.
 */
export type JobDevice = "cpu" | "gpu";

/**
 * Which jobs.
 */
export type JobFilter = {
/**
 * Part of the model's id, of the reason or of the job's id, in any case.
 */
text: string,
/**
 * Only one outcome.
 */
outcome: JobOutcome | null,
/**
 * Ended at or after.
 */
since_ms: number | null, };

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
 * How a job ended on this machine.
 */
export type JobOutcome = "paid" | "late" | "failed" | "handed_back" | "withdrawn" | "refused";

/**
 * A page of the job history.
 */
export type JobPage = {
/**
 * Newest first.
 */
jobs: Array<JobRecord>,
/**
 * How many match in all.
 */
matching: number,
/**
 * How many of all kept ended in each way.
 */
outcomes: Array<OutcomeCount>,
/**
 * Where the next page begins; nothing older when absent.
 */
next: number | null, };

/**
 * A job that ended on this machine. No prompt and no answer is part of it.
 */
export type JobRecord = {
/**
 * The job.
 */
job: JobId,
/**
 * The lease it ran under.
 */
lease: LeaseId,
/**
 * What it made.
 */
kind: JobKind,
/**
 * Its model.
 */
model: ModelId,
/**
 * When it ended here.
 */
ended_ms: number,
/**
 * How.
 */
outcome: JobOutcome,
/**
 * Why, where it was not paid; one sentence or fragment.
 */
reason: string | null,
/**
 * Where its time went, as far as this run of the program saw it.
 */
times: JobTimes | null,
/**
 * What it paid.
 */
points: MicroPoints, };

/**
 * What happens to a job on this machine.
 */
export type JobStage = "loading" | "running" | "sending";

/**
 * Where a job's time went, in milliseconds each.
 */
export type JobTimes = {
/**
 * Until its model was in memory.
 */
loading_ms: number,
/**
 * In the engine's queue behind other jobs.
 */
waiting_ms: number,
/**
 * Computing.
 */
computing_ms: number,
/**
 * Signing, saving, sending, and waiting for the receipt.
 */
sending_ms: number, };

/**
 * When the computer is kept from going to sleep by itself. The screen may always go dark.
 */
export type KeepAwake = "never" | "jobs" | "mining";

/**
 * The language of everything a person reads in the window and the tray.
 */
export type Language = "system" | "english" | "german";

/**
 * One attempt of one node at one job. Also the idempotency key of its result and payment.
 */
export type LeaseId = string;

/**
 * What the window can ask of the library.
 */
export type LibraryAction = { "action": "pause",
/**
 * The model.
 */
model: ModelId, } | { "action": "resume",
/**
 * The model.
 */
model: ModelId, } | { "action": "anyway" } | { "action": "cancel",
/**
 * The model.
 */
model: ModelId, } | { "action": "place",
/**
 * The model.
 */
model: ModelId,
/**
 * Its new place; 0 is first.
 */
index: number, } | { "action": "remove",
/**
 * The models.
 */
models: Array<ModelId>, } | { "action": "set",
/**
 * All of them.
 */
settings: LibrarySettings, } | { "action": "move",
/**
 * The folder, a whole path.
 */
folder: string, } | { "action": "look_again" } | { "action": "scrub" } | { "action": "replace",
/**
 * The model.
 */
model: ModelId, } | { "action": "reuse",
/**
 * The folder, a whole path.
 */
folder: string, } | { "action": "stop_task" } | { "action": "dismiss" };

/**
 * What is known of a model on this machine.
 */
export type LibraryModel = {
/**
 * The model.
 */
model: ModelId,
/**
 * What it takes on the drive, in bytes.
 */
disk_bytes: number,
/**
 * When it was last used, in milliseconds since the Unix epoch.
 */
used_ms: number | null,
/**
 * Whether it is the person's own, which no download brings back.
 */
own: boolean,
/**
 * The name of a file that was found damaged on the drive, until the model is whole again.
 */
damaged: string | null,
/**
 * A file that the drive does not give, until it does or is replaced.
 */
unreadable: Unreadable | null,
/**
 * The network has another version of it now, and the one that is here is used meanwhile.
 */
newer: NewerVersion | null,
/**
 * What a unit of work of it is worth on this network, in millionths; `None` if the network has
 * not said.
 */
factor: number | null,
/**
 * Whether it runs, for each device that could compute.
 */
fits: Array<ModelFit>,
/**
 * What the network wants of it; `None` where the network does not tell.
 */
demand: ModelDemand | null,
/**
 * What it may bring this machine; `None` where nothing is known to say so.
 */
estimate: PointsEstimate | null, };

/**
 * How downloads and the drive are used.
 */
export type LibrarySettings = {
/**
 * What the library should take at most, in bytes; a clean-up is offered above it.
 */
cap_bytes: number | null,
/**
 * What downloads take of the line at most, in bytes in a second.
 */
bytes_per_s_max: number | null,
/**
 * Connections at the same time, 1 to 8.
 */
connections: number,
/**
 * Downloads of the queue run only in these hours.
 */
window: DayWindow | null, };

/**
 * The model library as the window shows it.
 */
export type LibraryStatus = {
/**
 * Where it lies.
 */
folder: string,
/**
 * Why it cannot be used: its folder is not there, as on a drive that is not connected.
 */
away: ErrorBody | null,
/**
 * What it takes on its drive, in bytes.
 */
used_bytes: number,
/**
 * What is free on that drive, if it tells.
 */
free_bytes: number | null,
/**
 * How downloads and the drive are used.
 */
settings: LibrarySettings,
/**
 * What is known of each model of the catalogue beyond its [`crate::app::ModelStatus`].
 */
models: Array<LibraryModel>,
/**
 * The downloads, the first one running.
 */
queue: Array<QueueItem>,
/**
 * Why the queue rests though something is in it.
 */
resting: string | null,
/**
 * What it rests for, where that is somebody or something else at this machine; the person may
 * download all the same.
 */
waits_for: Cause | null,
/**
 * The one long task under way.
 */
activity: Activity | null,
/**
 * How the last one ended, until dismissed.
 */
outcome: Outcome | null,
/**
 * What would have to go to keep to the cap, those first that were not used for longest.
 */
clean_up: Array<ModelId>,
/**
 * The signed catalogue, which names the models.
 */
catalogue: CatalogueStatus, };

/**
 * A rule that the person's own choice sets aside.
 */
export type Lifted = { "rule": "away" } | { "rule": "schedule" } | { "rule": "other_user" } | { "rule": "battery" } | { "rule": "metered" } | { "rule": "hot" } | { "rule": "update" } | { "rule": "game",
/**
 * The game.
 */
program: string, } | { "rule": "exclusive",
/**
 * The program.
 */
program: string, };

/**
 * How a card's limit stands.
 */
export type LimitState = { "state": "own" } | { "state": "held" } | { "state": "theirs" } | { "state": "not_supported" } | { "state": "no_permission" } | { "state": "failed",
/**
 * Why, in one sentence.
 */
message: string, };

/**
 * Where the network's three lists lie: an https address, http on this machine, or the whole path of a file.
 * An empty place is an empty list.
 */
export type ListPlaces = {
/**
 * The list of models.
 */
models: string,
/**
 * The list of autoencoders.
 */
vae: string,
/**
 * The list of LoRAs.
 */
lora: string, };

/**
 * A setting of a list that is beyond what a job may ask for.
 */
export type ListedChange = {
/**
 * The model.
 */
model: ModelId,
/**
 * What stands in its place, in words for people.
 */
what: string, };

/**
 * An entry that cannot be used.
 */
export type ListedLeft = {
/**
 * Its name in the list.
 */
name: string,
/**
 * Why, in words for people.
 */
reason: string, };

/**
 * What became of the entries of the network's lists.
 */
export type ListsReport = {
/**
 * Models that the catalogue has from then on.
 */
added: Array<ModelId>,
/**
 * Models that it had already, with the same files.
 */
known: Array<ModelId>,
/**
 * Settings of added models that no job may have.
 */
changed: Array<ListedChange>,
/**
 * Entries that cannot be used.
 */
left_out: Array<ListedLeft>, };

/**
 * Which log lines.
 */
export type LogFilter = {
/**
 * Part of the line, in any case.
 */
text: string,
/**
 * This grave or graver.
 */
level: LogLevel,
/**
 * Only one day of the log's own calendar (UTC), for example `2026-11-22`.
 */
day: string | null, };

/**
 * How grave a log line is.
 */
export type LogLevel = "trace" | "debug" | "info" | "warn" | "error";

/**
 * One log line.
 */
export type LogLine = {
/**
 * When.
 */
at_ms: number,
/**
 * How grave.
 */
level: LogLevel,
/**
 * Which part of the program said it.
 */
part: string,
/**
 * What it said.
 */
text: string, };

/**
 * Log lines.
 */
export type LogPage = {
/**
 * Newest first; addresses and paths of the person are shortened.
 */
lines: Array<LogLine>,
/**
 * Days there are logs of, newest first.
 */
days: Array<string>,
/**
 * Whether older matching lines were left out.
 */
more: boolean, };

/**
 * An amount in micro-points (1e-6 point); negative in the debiting half of a posting pair.
 */
export type MicroPoints = number;

/**
 * What a miner's sentence says. The network and the job in work stand beside it in the snapshot.
 */
export type MiningSaying = { "say": "decided" } | { "say": "stopped" } | { "say": "starting",
/**
 * What happens at the moment.
 */
what: Preparing | null,
/**
 * What went wrong before and is being mended.
 */
problem: ErrorBody | null, } | { "say": "connecting" } | { "say": "waiting",
/**
 * What the network wants the person to know.
 */
notice: ErrorBody | null,
/**
 * Why it has no job for this machine.
 */
no_job: NoJob | null, } | { "say": "advised",
/**
 * It.
 */
model: ModelId,
/**
 * Jobs that wait for it.
 */
jobs: number, } | { "say": "resting" } | { "say": "working" } | { "say": "handing_back",
/**
 * How many.
 */
jobs: number, } | { "say": "finishing",
/**
 * Whether mining goes on after it.
 */
again: boolean, } | { "say": "no_card",
/**
 * Why.
 */
no_card: NoCard, } | { "say": "problem",
/**
 * Why.
 */
error: ErrorBody | null, };

/**
 * What the miner does.
 */
export type MiningState = "stopped" | "starting" | "waiting" | "working" | "finishing" | "paused" | "needs_you";

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
 * The same as data, to be said in another language.
 */
said: MiningSaying,
/**
 * Since when, in milliseconds since the Unix epoch.
 */
since_ms: number,
/**
 * What needs the person's attention.
 */
problem: ErrorBody | null, };

/**
 * Demand for one model.
 */
export type ModelDemand = {
/**
 * The model.
 */
model: ModelId,
/**
 * How many minutes the figures cover: 60, or fewer since the network's server started.
 */
minutes: number,
/**
 * Jobs paid in these minutes.
 */
jobs: number,
/**
 * Jobs that wait for a machine now.
 */
waiting: number,
/**
 * Connected machines that serve it.
 */
nodes: number,
/**
 * What a machine that served it for an hour was paid for it on average; `None` where too little
 * was seen to say so.
 */
points_per_node_hour_micro: MicroPoints | null, };

/**
 * Whether a model runs on a device.
 */
export type ModelFit = {
/**
 * The device's name.
 */
device: string,
/**
 * The verdict.
 */
verdict: FitVerdict,
/**
 * What it takes there, in bytes.
 */
needed_bytes: number,
/**
 * What the device has for it, in bytes.
 */
available_bytes: number,
/**
 * What of the device's memory is free at the moment, in bytes.
 */
free_bytes: number, };

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
 * What a model brought.
 */
export type ModelTotal = {
/**
 * The model.
 */
model: ModelId,
/**
 * Which points.
 */
kind: PointsKind,
/**
 * Confirmed points.
 */
points: MicroPoints,
/**
 * Jobs paid.
 */
jobs: number, };

/**
 * A factor in millionths: 1 000 000 is one.
 */
export type Multiplier = number;

/**
 * Factors that priced jobs.
 */
export type MultiplierLine = {
/**
 * The model.
 */
model: ModelId,
/**
 * Which points.
 */
kind: PointsKind,
/**
 * The rules that set them.
 */
rule_set: string,
/**
 * The model's factor.
 */
factor: Multiplier,
/**
 * The owner's multiplier: what holdings and season add, as one figure in the receipt.
 */
multiplier: Multiplier,
/**
 * Jobs paid so.
 */
jobs: number,
/**
 * Confirmed points.
 */
points: MicroPoints, };

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
 * Another version of a model.
 */
export type NewerVersion = {
/**
 * What of it is to be fetched, in bytes.
 */
bytes: number,
/**
 * How long that takes at the speed of the last download, or at the limit that the person set;
 * `None` where neither is known.
 */
seconds: number | null, };

/**
 * Why no card computes though mining is on.
 */
export type NoCard = { "why": "off" } | { "why": "processor_off" } | { "why": "gone",
/**
 * The first one's name.
 */
card: string,
/**
 * Whether there are more.
 */
several: boolean,
/**
 * What the driver's state says of it, in one sentence.
 */
driver: string | null, };

/**
 * Why a node with a free slot gets no job. As text: `no job: 3 need sdxl, 2 need 24 GB`.
 */
export type NoJob = {
/**
 * Jobs that wait and are not for this node.
 */
waiting: number,
/**
 * Why, the reason of most jobs first; rare ones may be missing.
 */
reasons?: Array<SkipCount>, };

/**
 * A node of the network: the lower-case `0x…` address of its identity key, optionally with a
 * `-tag` behind it so that several machines can share one key.
 */
export type NodeId = string;

/**
 * What a coordinator says of a node at `GET /v1/nodes/{node}/trust`, as far as the window shows it.
 */
export type NodeTrust = {
/**
 * How closely it is watched.
 */
stage: TrustStage,
/**
 * Share of its results that are computed again, in millionths.
 */
audited_ppm: number,
/**
 * Results in a row that held when others computed them again.
 */
held: number,
/**
 * How many more must hold before fewer are computed again.
 */
to_hold: number,
/**
 * Whether nobody of another owner could compute any of its results again.
 */
alone: boolean,
/**
 * For how long earnings can be called back, in milliseconds.
 */
escrow_ms: number,
/**
 * Earnings of that time, of both kinds.
 */
in_escrow_micro: MicroPoints, };

/**
 * A node of a chain.
 */
export type NodeView = {
/**
 * Its host; the rest of its address may hold an access key.
 */
host: string,
/**
 * Name of its chain, once it has said so.
 */
chain: string | null, };

/**
 * What is told. What is missing in a file has its default.
 */
export type NoticeSettings = {
/**
 * Mining cannot go on without the person.
 */
needs_you: boolean,
/**
 * A rule has stopped mining.
 */
paused: boolean,
/**
 * The first points of the day.
 */
first_points: boolean,
/**
 * What last week brought.
 */
weekly: boolean,
/**
 * A newer version is ready.
 */
update: boolean,
/**
 * A model has been fetched.
 */
model: boolean,
/**
 * Several jobs in a row brought nothing.
 */
jobs_fail: boolean,
/**
 * What Home tells as an alert.
 */
alerts: boolean,
/**
 * What the hotkey did; where no window is open nothing else shows it.
 */
hotkey: boolean, };

/**
 * What the window asks for; each is answered with [`NoticeSettings`].
 */
export type NoticesCommand = { "ask": "look" } | { "ask": "set",
/**
 * All of them.
 */
settings: NoticeSettings, } | { "ask": "test" };

/**
 * What closing the window does.
 */
export type OnClose = "ask" | "tray" | "quit";

/**
 * What the window can ask of the guide; always answered with an [`OnboardingView`].
 */
export type OnboardingCommand = { "ask": "look" } | { "ask": "go",
/**
 * The step.
 */
step: OnboardingStep, } | { "ask": "again" } | { "ask": "finish" } | { "ask": "at_login",
/**
 * Whether it does.
 */
on: boolean, };

/**
 * The steps in their order.
 */
export type OnboardingStep = "reward" | "key" | "machine" | "models" | "when" | "first_job";

/**
 * Where the guide stands.
 */
export type OnboardingView = {
/**
 * Whether it is to be shown.
 */
open: boolean,
/**
 * The step.
 */
step: OnboardingStep,
/**
 * Where models lie.
 */
models_folder: string,
/**
 * Room there in bytes, if the system says.
 */
free_bytes: number | null,
/**
 * The models to begin with.
 */
models: Array<FirstModel>,
/**
 * Whether Neurino starts with the computer; none where it cannot be arranged.
 */
at_login: boolean | null, };

/**
 * What the person orders.
 */
export type Order = { "order": "start" } | { "order": "stop" } | { "order": "finish" } | { "order": "snooze",
/**
 * After so many minutes, at most a day; never, if absent.
 */
minutes: number | null, } | { "order": "follow_rules" };

/**
 * How a long task ended.
 */
export type Outcome = {
/**
 * Which.
 */
task: Task,
/**
 * One sentence, if it ended well.
 */
sentence: string | null,
/**
 * What went wrong, if it did not.
 */
problem: ErrorBody | null, };

/**
 * How often jobs ended in a way.
 */
export type OutcomeCount = {
/**
 * The way.
 */
outcome: JobOutcome,
/**
 * How often.
 */
jobs: number, };

/**
 * What the window can ask about a file or folder that may be a model.
 */
export type OwnModelCommand = { "do": "look",
/**
 * The file or folder, a whole path.
 */
path: string, } | { "do": "add",
/**
 * The file or folder, a whole path.
 */
path: string,
/**
 * The id it gets.
 */
id: string, };

/**
 * What a file or folder is.
 */
export type OwnModelView = {
/**
 * The whole path.
 */
path: string,
/**
 * Its name for people.
 */
name: string,
/**
 * The id it could have; may be empty if its name makes none.
 */
id: string,
/**
 * What it makes.
 */
kind: JobKind,
/**
 * The architecture, as its files name it.
 */
arch: string,
/**
 * How most of its weights are stored.
 */
storage: string,
/**
 * Longest sequence, prompt and answer together, in tokens; 0 for an image model.
 */
context_tokens: number,
/**
 * How many files it has.
 */
files: number,
/**
 * Their bytes.
 */
size_bytes: number,
/**
 * Whether it runs, for each device that could compute.
 */
fits: Array<ModelFit>,
/**
 * The model of the catalogue that has a file of this very size, and so may be the same.
 */
may_be: ModelId | null, };

/**
 * Results on their way.
 */
export type Pending = {
/**
 * Results that wait for their receipt.
 */
jobs: number,
/**
 * When the oldest of them was finished.
 */
since_ms: number | null, };

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
 * What a model may bring this machine.
 */
export type PointsEstimate = {
/**
 * Points in an hour.
 */
points_per_hour_micro: MicroPoints,
/**
 * Where that comes from.
 */
method: EstimateMethod, };

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
 * A card and its limit.
 */
export type PowerCardView = {
/**
 * Its name for itself.
 */
card: string,
/**
 * Its name, as its maker spells it.
 */
name: string,
/**
 * What the limit may be.
 */
range: WattRange | null,
/**
 * The limit in force, in watts.
 */
now_w: number | null,
/**
 * The one that the person chose for mining, in watts.
 */
limit_w: number | null,
/**
 * How it stands.
 */
state: LimitState,
/**
 * What the administrator can type instead, where this program may not change limits.
 */
command: string | null, };

/**
 * What the window asks for; each is answered with a [`PowerView`].
 */
export type PowerCommand = { "ask": "look" } | { "ask": "limit",
/**
 * The card.
 */
card: string,
/**
 * In watts; none takes the limit away.
 */
limit_w: number | null, } | { "ask": "keep_awake",
/**
 * When.
 */
when: KeepAwake, } | { "ask": "sweep_start",
/**
 * The card.
 */
card: string, } | { "ask": "sweep_stop" };

/**
 * Power, as the settings show it.
 */
export type PowerView = {
/**
 * The cards that a driver shows.
 */
cards: Array<PowerCardView>,
/**
 * Why there is none, in one sentence.
 */
no_cards: string | null,
/**
 * The search for the best limit: under way, or the last one.
 */
sweep: SweepView | null,
/**
 * When the computer is kept awake.
 */
keep_awake: KeepAwake,
/**
 * Whether it is kept awake now.
 */
awake: AwakeState, };

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
on_close: OnClose,
/**
 * The language of window, tray and notifications.
 */
language: Language, };

/**
 * What a miner does before it can take jobs.
 */
export type Preparing = { "what": "looking" } | { "what": "checking" } | { "what": "fetching",
/**
 * How much of it is here, 0 to 100.
 */
percent: number, } | { "what": "paused",
/**
 * How much of it is here, 0 to 100.
 */
percent: number, } | { "what": "unpacking" } | { "what": "connecting",
/**
 * Which attempt it is.
 */
attempt: number, } | { "what": "loading",
/**
 * It.
 */
model: ModelId,
/**
 * How much of its files is read, 0 to 100, where that is known.
 */
percent: number | null,
/**
 * How many of its first steps are done, 0 to 100, once its files are read: in them a card
 * compiles and tunes what it needs.
 */
warm_percent: number | null, };

/**
 * A QR code as the path of an SVG.
 */
export type QrView = {
/**
 * Modules in a row.
 */
modules: number,
/**
 * The path's `d`, from (0, 0) to (`modules`, `modules`).
 */
path: string, };

/**
 * A download that the person asked for.
 */
export type QueueItem = {
/**
 * The model.
 */
model: ModelId,
/**
 * Where it stands.
 */
state: QueueState,
/**
 * Bytes here.
 */
done_bytes: number,
/**
 * Bytes in all.
 */
total_bytes: number,
/**
 * How fast it is, once that can be told.
 */
bytes_per_s: number | null,
/**
 * Seconds to go, once that can be told.
 */
seconds_left: number | null,
/**
 * Why it does not go on.
 */
problem: ErrorBody | null, };

/**
 * Where a download stands.
 */
export type QueueState = "running" | "waiting" | "paused" | "retrying" | "failed";

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
 * Points an hour, from the last fifteen minutes.
 */
export type Rate = { "state": "idle" } | { "state": "estimating",
/**
 * Mining time that is still missing, in milliseconds.
 */
ready_in_ms: number, } | { "state": "known",
/**
 * Points an hour.
 */
hour: BothPoints,
/**
 * Points in 24 hours at this rate.
 */
day: BothPoints,
/**
 * Time mined in the window, in milliseconds.
 */
mined_ms: number, };

/**
 * One cause.
 */
export type RateCause = {
/**
 * What changed.
 */
cause: RateCauseKind,
/**
 * Points it added (or took, below zero).
 */
effect: MicroPoints, };

/**
 * What can change a rate.
 */
export type RateCauseKind = "hours_mined" | "jobs_per_hour" | "model_mix" | "multiplier" | "job_size";

/**
 * Two windows of 24 hours beside each other, and what made the difference.
 */
export type RateChange = {
/**
 * Which points.
 */
kind: PointsKind,
/**
 * The earlier window.
 */
before: RateWindow,
/**
 * The later window.
 */
after: RateWindow,
/**
 * What each cause added or took; their sum is the difference. The largest first.
 */
causes: Array<RateCause>, };

/**
 * One window.
 */
export type RateWindow = {
/**
 * Confirmed points.
 */
points: MicroPoints,
/**
 * Jobs paid.
 */
jobs: number,
/**
 * Time mined, in milliseconds.
 */
mined_ms: number, };

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
 * Which receipts.
 */
export type ReceiptFilter = {
/**
 * Part of the model's id or of the rule set's name, in any case; everything when empty.
 */
text: string,
/**
 * Only one kind of points.
 */
kind: PointsKind | null,
/**
 * Settled at or after.
 */
since_ms: number | null,
/**
 * Settled before.
 */
until_ms: number | null,
/**
 * Only those whose amount does not follow from their rules.
 */
drifted: boolean, };

/**
 * A page of receipts.
 */
export type ReceiptPage = {
/**
 * Newest first.
 */
receipts: Array<Receipt>,
/**
 * How many match in all.
 */
matching: number,
/**
 * What the matching ones paid.
 */
points: BothPoints,
/**
 * Where the next page begins; nothing older when absent.
 */
next: number | null, };

/**
 * How a receipt compares with the rules it names.
 */
export type ReceiptVerdict = "agrees" | "differs" | "unknown";

/**
 * A receipt, computed again on this machine.
 */
export type Recomputed = {
/**
 * How it compares.
 */
verdict: ReceiptVerdict,
/**
 * What the rules give; absent where they are not known, or have no price for the model.
 */
quote: Quote | null, };

/**
 * The answer to a [`Command`].
 */
export type Reply = { "reply": "ok" } | { "reply": "snapshot", "payload": Snapshot } | { "reply": "saved", "payload": {
/**
 * Where it lies now.
 */
path: string, } } | { "reply": "rules", "payload": RulesView } | { "reply": "decisions", "payload": Array<Entry> } | { "reply": "receipts", "payload": Array<Receipt> } | { "reply": "earnings", "payload": EarningsAnswer } | { "reply": "doctor", "payload": Array<Check> } | { "reply": "preferences", "payload": Preferences } | { "reply": "wallet", "payload": WalletReply } | { "reply": "onboarding", "payload": OnboardingView } | { "reply": "power", "payload": PowerView } | { "reply": "alerts", "payload": AlertsView } | { "reply": "update", "payload": UpdateView } | { "reply": "notices", "payload": NoticeSettings } | { "reply": "hotkey", "payload": HotkeyView } | { "reply": "filter", "payload": FilterView } | { "reply": "data", "payload": Array<DataPlace> } | { "reply": "own_model", "payload": OwnModelView } | { "reply": "catalogue", "payload": CatalogueView } | { "reply": "chosen", "payload": {
/**
 * The whole path; `None` if the person chose nothing.
 */
path: string | null, } };

/**
 * SHA-256 of a result; what the node signs and the receipt names. Hex on the wire.
 */
export type ResultDigest = string;

/**
 * Where points go.
 */
export type RewardView = {
/**
 * The address.
 */
address: string,
/**
 * Since when, in milliseconds since the Unix epoch.
 */
since_ms: number,
/**
 * The address as a QR code.
 */
qr: QrView | null, };

/**
 * Who speaks in a conversation.
 */
export type Role = "system" | "user" | "assistant" | "tool";

/**
 * All rules. What is missing in a file has its default, what is unknown is ignored, so that
 * versions can be changed in both directions.
 */
export type Rules = {
/**
 * When mining runs at all.
 */
when: When,
/**
 * Minutes without mouse and keyboard after which the person counts as away, 1 to 240.
 */
idle_minutes: number,
/**
 * Whether mining that began while the person was away stops when they come back.
 */
stop_on_return: boolean,
/**
 * The hours of the week.
 */
week: Week,
/**
 * Of the allowed hours, take the cheap ones only.
 */
cheap_only: boolean,
/**
 * Step aside while the machine runs on its battery.
 */
pause_on_battery: boolean,
/**
 * Step aside while the network is metered.
 */
pause_on_metered: boolean,
/**
 * Take no jobs while the graphics card is hot.
 */
pause_when_hot: boolean,
/**
 * At this temperature of the card jobs are no longer taken, in degrees Celsius, 50 to 105.
 */
hot_stop_c: number,
/**
 * Down to this temperature it cools before jobs are taken again; below `hot_stop_c`.
 */
hot_resume_c: number,
/**
 * Mine gently while somebody uses the machine.
 */
gentle: boolean,
/**
 * Minutes without mouse and keyboard after which nobody uses it, 1 to 60.
 */
gentle_minutes: number,
/**
 * Gently, a card may draw this share of its usual limit, in per cent, 30 to 100.
 */
gentle_power_percent: number,
/**
 * Gently, one job at a time is taken.
 */
gentle_one_job: boolean,
/**
 * Programs that have the processor for themselves. Counts while jobs run on the processor.
 */
exclusive_cpu: Array<string>,
/**
 * Programs that have the graphics card for themselves. Counts while jobs run on the card.
 */
exclusive_gpu: Array<string>,
/**
 * Whether games are watched for.
 */
game_guard: boolean,
/**
 * A program that fills the screen counts as a game.
 */
guard_full_screen: boolean,
/**
 * A program in front that keeps the card busy counts as a game.
 */
guard_card_load: boolean,
/**
 * A program in a folder of Steam, Epic, GOG and their like counts as a game.
 */
guard_libraries: boolean,
/**
 * Programs that are games.
 */
games: Array<string>,
/**
 * Programs that are none, whatever they look like.
 */
not_games: Array<string>,
/**
 * Seconds between the end of a game and going on, 0 to 3600.
 */
cool_down_secs: number, };

/**
 * The rules as the settings show them.
 */
export type RulesView = {
/**
 * Those in force.
 */
rules: Rules,
/**
 * Those of a fresh installation.
 */
defaults: Rules,
/**
 * What this system tells.
 */
abilities: Abilities,
/**
 * The program that fills the screen or was taken for a game last, for the lists of programs.
 */
seen: string | null, };

/**
 * The sentence of a decision.
 */
export type Saying = { "say": "mining" } | { "say": "stopped",
/**
 * Whether they have rules that would start it, were it on.
 */
rules_wait: boolean, } | { "say": "finishing" } | { "say": "snoozed",
/**
 * Its end; none until the person resumes.
 */
until: Clock | null, } | { "say": "held",
/**
 * How strictly.
 */
how: Strictness,
/**
 * What it saw.
 */
cause: Cause,
/**
 * How that ends.
 */
end: Ending, };

/**
 * A text that may be a secret, on its way between the page and the application. It must travel, so
 * it is written into messages; it cannot be printed, and its memory is wiped when it is dropped.
 */
export type SecretText = string;

/**
 * A part of the settings.
 */
export type Section = "when" | "battery" | "metered" | "heat" | "programs" | "games";

/**
 * One bar.
 */
export type SeriesBar = {
/**
 * Its first instant.
 */
from_ms: number,
/**
 * The first instant after it.
 */
until_ms: number,
/**
 * Confirmed points.
 */
points: BothPoints,
/**
 * Jobs paid.
 */
jobs: number,
/**
 * Time mined, in milliseconds.
 */
mined_ms: number,
/**
 * Energy while mining.
 */
energy: Energy, };

/**
 * Width of a bar.
 */
export type SeriesStep = "hour" | "day" | "week";

/**
 * How a game was recognised.
 */
export type Sign = "listed" | "library" | "full_screen" | "card_load";

/**
 * So many jobs are not for a node, for one reason.
 */
export type SkipCount = {
/**
 * How many.
 */
jobs: number, } & ({ "why": "model",
/**
 * The model.
 */
model: ModelId, } | { "why": "memory",
/**
 * How much, in bytes.
 */
memory_bytes: number, } | { "why": "failed" } | { "why": "files",
/**
 * The model.
 */
model: ModelId, } | { "why": "shared",
/**
 * The model.
 */
model: ModelId, });

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
 * Whether it may mine, and what decides that.
 */
control: ControlStatus,
/**
 * What the person should know, most urgent first.
 */
alerts: Array<Alert>,
/**
 * Whether a newer version of the program waits.
 */
update: UpdateStatus,
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
 * The library that keeps them.
 */
library: LibraryStatus,
/**
 * The last receipts, newest first, at most 20.
 */
receipts: Array<Receipt>,
/**
 * Public address of the identity key.
 */
identity: string, };

/**
 * A stretch of time up to now.
 */
export type SpanKind = "today" | "week" | "month" | "lifetime";

/**
 * What a stretch of time brought and took.
 */
export type SpanTotal = {
/**
 * Which.
 */
span: SpanKind,
/**
 * When it began.
 */
since_ms: number,
/**
 * Confirmed points.
 */
points: BothPoints,
/**
 * Jobs paid.
 */
jobs: number,
/**
 * Time mined, in milliseconds.
 */
mined_ms: number,
/**
 * Energy while mining.
 */
energy: Energy,
/**
 * What that cost at the price of the hour it was spent in, in millionths of the currency's unit;
 * `None` without a price.
 */
cost_micro: number | null, };

/**
 * What state the control is in. The miner has states of its own while this says `Running`.
 */
export type State = "stopped" | "running" | "cooling" | "finishing" | "paused" | "snoozed";

/**
 * How to stop.
 */
export type StopMode = "finish" | "now";

/**
 * How strictly a rule holds.
 */
export type Strictness = "cooling" | "finishing" | "paused";

/**
 * What limits are compared by.
 */
export type SweepMeasure = "points" | "tokens" | "pictures";

/**
 * What happened at one limit.
 */
export type SweepRow = {
/**
 * The limit in watts.
 */
limit_w: number,
/**
 * What the card drew, in watts.
 */
drew_w: number,
/**
 * Points, tokens or pictures in an hour.
 */
per_hour: number,
/**
 * Points, tokens or pictures with a kilowatt hour.
 */
per_kwh: number, };

/**
 * What the search does.
 */
export type SweepStage = "settling" | "measuring" | "waiting" | "done" | "not_comparable" | "no_work" | "stopped";

/**
 * The search for the limit that earns most with a kilowatt hour.
 */
export type SweepView = {
/**
 * The card.
 */
card: string,
/**
 * What it does.
 */
stage: SweepStage,
/**
 * How far it is, 0 to 1.
 */
progress: number,
/**
 * The limit being tried, in watts; none when it is over.
 */
trying_w: number | null,
/**
 * What was measured, in the order of trying.
 */
rows: Array<SweepRow>,
/**
 * What limits are compared by.
 */
measure: SweepMeasure,
/**
 * The limit that does most with a kilowatt hour and keeps up, in watts.
 */
advice_w: number | null, };

/**
 * The price of energy.
 */
export type Tariff = {
/**
 * Price of a kilowatt hour in millionths of the currency's unit.
 */
kwh_micro: number,
/**
 * The same in the hours that the weekly schedule marks as cheap; `None` for one price at all
 * hours.
 */
cheap_kwh_micro: number | null,
/**
 * The currency, for example `EUR`; one to eight characters.
 */
currency: string, };

/**
 * A long task of the library.
 */
export type Task = "move" | "scrub" | "reuse" | "add" | "lists";

/**
 * What the sensors said at one time, or on average over a step.
 */
export type TelemetryPoint = {
/**
 * When, the beginning of the step.
 */
at_ms: number,
/**
 * Degrees Celsius.
 */
temperature_c: number | null,
/**
 * Watts.
 */
power_w: number | null,
/**
 * Memory of the device in use, in bytes.
 */
memory_used_bytes: number | null,
/**
 * 0 to 100.
 */
load_percent: number | null,
/**
 * Tokens written a second.
 */
tokens_per_s: number,
/**
 * Pictures finished a minute.
 */
pictures_per_min: number,
/**
 * Points credited in the step.
 */
points: BothPoints, };

/**
 * What the sensors said.
 */
export type TelemetrySeries = {
/**
 * The device whose sensors these are.
 */
device: string,
/**
 * First instant of the span.
 */
from_ms: number,
/**
 * Its end.
 */
until_ms: number,
/**
 * Time between two points, in milliseconds.
 */
step_ms: number,
/**
 * Memory of the device, in bytes.
 */
memory_bytes: number,
/**
 * Whether the watts are an estimate.
 */
power_estimated: boolean,
/**
 * Oldest first; stretches without mining are left out.
 */
points: Array<TelemetryPoint>, };

/**
 * How far back, and how fine.
 */
export type TelemetrySpan = "ten_minutes" | "day" | "month";

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
 * How closely a node is watched, for its owner to read.
 */
export type TrustStage = "new" | "watched" | "established" | "convicted";

/**
 * A file that the drive does not give.
 */
export type Unreadable = {
/**
 * Its name.
 */
file: string,
/**
 * What the system said.
 */
why: string, };

/**
 * What the window asks for; each is answered with an [`UpdateView`].
 */
export type UpdateCommand = { "ask": "look" } | { "ask": "check" } | { "ask": "install" } | { "ask": "later" } | { "ask": "back" } | { "ask": "set",
/**
 * All of them.
 */
preferences: UpdatePreferences, };

/**
 * Who puts a newer version in place.
 */
export type UpdateKeeper = "itself" | "person" | "nobody";

/**
 * What the person wants. What is missing in a file has its default.
 */
export type UpdatePreferences = {
/**
 * Whether newer versions are looked for.
 */
check: boolean,
/**
 * Whether they are installed between two jobs without a question.
 */
by_itself: boolean, };

/**
 * Where it stands.
 */
export type UpdateStatus = { "status": "none" } | { "status": "fetching",
/**
 * Its version.
 */
version: string,
/**
 * Bytes done.
 */
done_bytes: number,
/**
 * Bytes in all.
 */
total_bytes: number, } | { "status": "ready",
/**
 * Its version.
 */
version: string,
/**
 * What is new, by language.
 */
notes: { [key in string]: string },
/**
 * Put off by the person until then, in milliseconds since the Unix epoch.
 */
later_until_ms: number | null, } | { "status": "by_hand",
/**
 * Its version.
 */
version: string,
/**
 * What is new, by language.
 */
notes: { [key in string]: string },
/**
 * What to type.
 */
command: string, } | { "status": "installing",
/**
 * Its version.
 */
version: string, } | { "status": "taken_back",
/**
 * The version that did not come up.
 */
version: string,
/**
 * The person has read it.
 */
dismissed: boolean, };

/**
 * Updates, as the settings show them.
 */
export type UpdateView = {
/**
 * The version that runs.
 */
own: string,
/**
 * Who puts a newer one in place.
 */
keeper: UpdateKeeper,
/**
 * What the person wants.
 */
preferences: UpdatePreferences,
/**
 * When a list was last read, in milliseconds since the Unix epoch.
 */
checked_at_ms: number | null,
/**
 * Where it stands.
 */
status: UpdateStatus,
/**
 * Why the last look or the last update came to nothing.
 */
problem: ErrorBody | null,
/**
 * The version that can be gone back to.
 */
back_to: string | null, };

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
 * What the window can ask of the wallet.
 */
export type WalletCommand = { "ask": "look" } | { "ask": "reveal" } | { "ask": "quiz" } | { "ask": "quiz_answer",
/**
 * Three words.
 */
words: Array<SecretText>, } | { "ask": "restore",
/**
 * 12, 15, 18, 21 or 24 words.
 */
words: SecretText, } | { "ask": "former_back",
/**
 * Its address.
 */
address: string,
/**
 * The person was told what that means.
 */
accept: boolean, } | { "ask": "reward_check",
/**
 * What was entered; may be a secret pasted by mistake.
 */
text: SecretText, } | { "ask": "reward_set",
/**
 * What was entered.
 */
text: SecretText,
/**
 * What was pasted, if it was: refused when it is another address.
 */
pasted: SecretText | null,
/**
 * The address that the page believes it replaces: refused when it is another one.
 */
replaces: string | null, } | { "ask": "reward_remove",
/**
 * The address that the page believes it removes.
 */
replaces: string, } | { "ask": "key_export",
/**
 * The folder.
 */
folder: string,
/**
 * The person was told that the words lie in it unencrypted.
 */
accept: boolean, } | { "ask": "key_import",
/**
 * The file.
 */
path: string,
/**
 * Whether the reward address in its name is taken over too.
 */
take_reward: boolean, } | { "ask": "miner_look",
/**
 * The folder of its program.
 */
folder: string, } | { "ask": "rpc_add",
/**
 * Its address; may hold an access key.
 */
url: SecretText, } | { "ask": "rpc_remove",
/**
 * Its place in [`ChainView::nodes`].
 */
index: number, } | { "ask": "collection_set",
/**
 * The address, or none to forget it.
 */
address: string | null, } | { "ask": "chain_check" };

/**
 * The answer to a [`WalletCommand`].
 */
export type WalletReply = { "answer": "view", "with": WalletView } | { "answer": "words", "with": {
/**
 * The words.
 */
words: Array<SecretText>, } } | { "answer": "quiz", "with": {
/**
 * Counted from one.
 */
places: Array<number>, } } | { "answer": "checked", "with": CheckedAddress } | { "answer": "exported", "with": {
/**
 * Where it lies.
 */
path: string, } } | { "answer": "found", "with": FoundMiner };

/**
 * The wallet, without any secret.
 */
export type WalletView = {
/**
 * Address of the identity.
 */
identity: string,
/**
 * Where its key is kept, in words.
 */
key_store: string,
/**
 * Addresses of identities that were replaced and are kept, the last one first.
 */
former: Array<string>,
/**
 * When its words were written down, in milliseconds since the Unix epoch.
 */
backed_up_at_ms: number | null,
/**
 * Where points go.
 */
reward: RewardView | null,
/**
 * Where they went before, newest first.
 */
history: Array<FormerRewardView>,
/**
 * What needs the person's attention.
 */
problem: ErrorBody | null,
/**
 * Where key files of the first miners lie by default.
 */
keys_folder: string,
/**
 * What public chains say.
 */
chain: ChainView, };

/**
 * What a limit may be, in watts.
 */
export type WattRange = {
/**
 * The least.
 */
least_w: number,
/**
 * The most.
 */
most_w: number,
/**
 * What the card comes with.
 */
usual_w: number, };

/**
 * Seven days from Monday, 24 hours each. Written as seven rows of 24 letters: `.` no mining, `m`
 * mining, `c` mining with cheap electricity.
 */
export type Week = string[];

/**
 * A week of 7 times 24 hours that begins on a Thursday at 00:00 UTC.
 */
export type WeekTotal = {
/**
 * Its number, counted from 1 January 1970.
 */
number: number,
/**
 * Its first instant.
 */
from_ms: number,
/**
 * The snapshot: the first instant after it.
 */
until_ms: number,
/**
 * Confirmed points.
 */
points: BothPoints,
/**
 * Jobs paid.
 */
jobs: number,
/**
 * Time mined, in milliseconds.
 */
mined_ms: number,
/**
 * Energy while mining.
 */
energy: Energy, };

/**
 * When mining runs at all.
 */
export type When = "always" | "away" | "schedule" | "away_on_schedule";

/**
 * Why the decision is as it is.
 */
export type Why = { "by": "free" } | { "by": "person" } | { "by": "person_finishes" } | { "by": "snooze" } | { "by": "rule",
/**
 * What it saw.
 */
cause: Cause, };

/**
 * What the shell does with its window.
 */
export type WindowAction = "hide" | "quit" | "choose_file" | "choose_folder";
