//! What the tray says, in the languages of the window. A language is a whole [`Words`], so that a
//! missing word does not compile; the window's own words are in `ui/src/lib`.

use neurino_control::games::Sign;
use neurino_control::{AlertKind, Cause, Clock, JobDevice, Saying, Strictness};
use neurino_protocol::app::{Language, MiningState};

/// The words of one language.
#[derive(Debug)]
pub(crate) struct Words {
    /// The language, as the page's `lang` names it.
    tag: &'static str,
    pub(crate) starting_up: &'static str,
    pub(crate) could_not_start: &'static str,
    pub(crate) start: &'static str,
    pub(crate) resume: &'static str,
    pub(crate) finish: &'static str,
    pub(crate) pause_hour: &'static str,
    pub(crate) pause: &'static str,
    pub(crate) stop_now: &'static str,
    pub(crate) open: &'static str,
    pub(crate) quit: &'static str,
    pub(crate) today: &'static str,
    pub(crate) llama: &'static str,
    pub(crate) waifu: &'static str,
    /// Between whole and fraction of an amount.
    pub(crate) decimal: char,
    stopped: &'static str,
    starting: &'static str,
    waiting: &'static str,
    working: &'static str,
    finishing: &'static str,
    needs_you: &'static str,
    paused: &'static str,
    /// Why it is paused, in a few words.
    why: fn(&Saying) -> String,
    pub(crate) notices: NoticeWords,
}

/// The words of notifications.
#[derive(Debug)]
pub(crate) struct NoticeWords {
    pub(crate) needs_you: &'static str,
    pub(crate) paused: &'static str,
    pub(crate) hotkey_body: &'static str,
    pub(crate) goes_on: &'static str,
    pub(crate) goes_on_body: &'static str,
    pub(crate) first_points: &'static str,
    pub(crate) first_points_body: &'static str,
    pub(crate) weekly: &'static str,
    pub(crate) update: &'static str,
    pub(crate) update_body: fn(&str) -> String,
    pub(crate) update_by_hand_body: fn(&str) -> String,
    pub(crate) model: &'static str,
    pub(crate) model_body: fn(&str) -> String,
    pub(crate) jobs_fail: &'static str,
    pub(crate) jobs_fail_body: fn(u32) -> String,
    pub(crate) alert: &'static str,
    pub(crate) alert_body: fn(AlertKind, &str) -> String,
    /// What the program says in English.
    pub(crate) from_program: fn(&str) -> String,
    pub(crate) test: &'static str,
    pub(crate) test_body: &'static str,
}

impl PartialEq for Words {
    fn eq(&self, other: &Self) -> bool {
        self.tag == other.tag
    }
}

impl Eq for Words {}

impl Words {
    /// The words of the chosen language; `system` is the desktop's.
    pub(crate) fn of(language: Language, system: Option<&str>) -> &'static Self {
        let german = match language {
            Language::English => false,
            Language::German => true,
            Language::System => system
                .and_then(|tag| tag.split(['-', '_', '.']).next())
                .is_some_and(|language| language.eq_ignore_ascii_case("de")),
        };
        if german { &GERMAN } else { &ENGLISH }
    }

    /// Why mining pauses, as a notification says it.
    pub(crate) fn held(&self, said: &Saying) -> String {
        capital(&(self.why)(said))
    }

    /// The state in a few words; `said` is what the control says where it is paused.
    pub(crate) fn state(&self, state: MiningState, said: Option<&Saying>) -> String {
        let word = match state {
            MiningState::Paused => return said.map_or(self.paused.to_owned(), self.why),
            MiningState::Stopped => self.stopped,
            MiningState::Starting => self.starting,
            MiningState::Waiting => self.waiting,
            MiningState::Working => self.working,
            MiningState::Finishing => self.finishing,
            MiningState::NeedsYou => self.needs_you,
        };
        word.to_owned()
    }
}

static ENGLISH: Words = Words {
    tag: "en",
    starting_up: "Starting Neurino",
    could_not_start: "Neurino could not start: open it to see why",
    start: "Start",
    resume: "Resume",
    finish: "Finish, then stop",
    pause_hour: "Pause for 1 hour",
    pause: "Pause until I resume",
    stop_now: "Stop now",
    open: "Open Neurino",
    quit: "Quit",
    today: "Today",
    llama: "Llama points",
    waifu: "Waifu points",
    decimal: '.',
    stopped: "Stopped",
    starting: "Starting",
    waiting: "Ready, waiting for a job",
    working: "Working on a job",
    finishing: "Finishing the last job",
    needs_you: "Needs you: open Neurino",
    paused: "Paused",
    why: |said| first(&said.to_string()),
    notices: NoticeWords {
        needs_you: "Neurino needs you",
        paused: "Mining is paused",
        hotkey_body: "Paused by you until you resume.",
        goes_on: "Mining goes on",
        goes_on_body: "Your hotkey resumed it.",
        first_points: "First points of the day",
        first_points_body: "A job was paid today.",
        weekly: "Points of the past week",
        update: "A newer Neurino is ready",
        update_body: |version| format!("Version {version} can be installed between two jobs."),
        update_by_hand_body: |version| {
            format!("Version {version} is here. Neurino shows the command that installs it.")
        },
        model: "A model is ready",
        model_body: |name| format!("{name} has been fetched and checked."),
        jobs_fail: "Jobs fail",
        jobs_fail_body: |count| format!("The last {count} jobs failed. Earnings, Jobs says why."),
        alert: "Neurino noticed something",
        alert_body: |_, sentence| sentence.to_owned(),
        from_program: capital,
        test: "Neurino",
        test_body: "Notifications work.",
    },
};

static GERMAN: Words = Words {
    tag: "de",
    starting_up: "Neurino startet",
    could_not_start: "Neurino konnte nicht starten: öffne es, um zu sehen, warum",
    start: "Start",
    resume: "Weiter",
    finish: "Job abschließen, dann anhalten",
    pause_hour: "1 Stunde pausieren",
    pause: "Pausieren, bis ich weitermache",
    stop_now: "Sofort anhalten",
    open: "Neurino öffnen",
    quit: "Beenden",
    today: "Heute",
    llama: "Llama-Punkte",
    waifu: "Waifu-Punkte",
    decimal: ',',
    stopped: "Angehalten",
    starting: "Startet",
    waiting: "Bereit, wartet auf einen Job",
    working: "Arbeitet an einem Job",
    finishing: "Schließt den letzten Job ab",
    needs_you: "Braucht dich: öffne Neurino",
    paused: "Pausiert",
    why: german,
    notices: NoticeWords {
        needs_you: "Neurino braucht dich",
        paused: "Das Mining pausiert",
        hotkey_body: "Von dir pausiert, bis du weitermachst.",
        goes_on: "Das Mining geht weiter",
        goes_on_body: "Dein Tastenkürzel hat es fortgesetzt.",
        first_points: "Die ersten Punkte des Tages",
        first_points_body: "Heute wurde ein Job bezahlt.",
        weekly: "Punkte der vergangenen Woche",
        update: "Ein neueres Neurino ist bereit",
        update_body: |version| {
            format!("Version {version} lässt sich zwischen zwei Jobs installieren.")
        },
        update_by_hand_body: |version| {
            format!("Version {version} ist da. Neurino zeigt den Befehl, der sie installiert.")
        },
        model: "Ein Modell ist bereit",
        model_body: |name| format!("{name} ist geladen und geprüft."),
        jobs_fail: "Jobs schlagen fehl",
        jobs_fail_body: |count| {
            format!(
                "Die letzten {count} Jobs sind fehlgeschlagen. Unter Einnahmen, Jobs steht, warum."
            )
        },
        alert: "Neurino ist etwas aufgefallen",
        alert_body: |kind, _| german_alert(kind).to_owned(),
        from_program: |_| "Öffne Neurino, um zu sehen, warum.".into(),
        test: "Neurino",
        test_body: "Die Mitteilungen funktionieren.",
    },
};

/// The program's messages are fragments in lower case; here they stand as a sentence.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let begun = format!("{first}{}", letters.as_str());
    if begun.ends_with(['.', '!', '?', '…']) { begun } else { format!("{begun}.") }
}

fn german_alert(kind: AlertKind) -> &'static str {
    match kind {
        AlertKind::Hot => "Die Grafikkarte ist seit Minuten sehr warm.",
        AlertKind::NoPoints => "Seit Stunden kommen beim Mining keine Punkte herein.",
        AlertKind::Stuck => "Ein Download kommt nicht mehr voran.",
        AlertKind::LowDisk => "Das Laufwerk der Modelle ist fast voll.",
        AlertKind::Frozen => "Für fertige Jobs kommt keine Belohnung.",
    }
}

/// The first sentence of a text: a menu has no room for more.
fn first(text: &str) -> String {
    text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.').to_owned()
}

fn german(said: &Saying) -> String {
    match said {
        Saying::Mining => "Läuft".into(),
        Saying::Stopped { .. } => "Angehalten".into(),
        Saying::Finishing => "Schließt den laufenden Job ab".into(),
        Saying::Snoozed { until: Some(until) } => {
            format!("Von dir pausiert bis {}", german_time(*until))
        }
        Saying::Snoozed { until: None } => "Von dir pausiert, bis du weitermachst".into(),
        Saying::Held { how, cause, .. } => {
            let begin = match how {
                Strictness::Cooling => "Kühlt ab, keine neuen Jobs",
                Strictness::Finishing => "Schließt den Job ab, dann Pause",
                Strictness::Paused => "Pausiert",
            };
            format!("{begin}: {}", german_cause(cause))
        }
    }
}

fn german_time(Clock { day, minute }: Clock) -> String {
    const DAYS: [&str; 7] = ["Mo", "Di", "Mi", "Do", "Fr", "Sa", "So"];
    let time = format!("{:02}:{:02} Uhr", minute / 60, minute % 60);
    match day.and_then(|day| DAYS.get(usize::from(day))) {
        Some(day) => format!("{day}, {time}"),
        None => time,
    }
}

fn german_cause(cause: &Cause) -> String {
    match cause {
        Cause::Crash => "Neurino ist beim letzten Mal abgestürzt".into(),
        Cause::Game { program, sign: Sign::FullScreen } => {
            format!("{program} läuft im Vollbild")
        }
        Cause::Game { program, sign: Sign::CardLoad } => {
            format!("{program} nutzt die Grafikkarte")
        }
        Cause::Game { program, .. } => format!("{program} läuft"),
        Cause::CoolDown { program } => format!("{program} lief gerade noch"),
        Cause::Exclusive { program, device: JobDevice::Gpu } => {
            format!("{program} hat die Grafikkarte für sich")
        }
        Cause::Exclusive { program, device: JobDevice::Cpu } => {
            format!("{program} hat den Prozessor für sich")
        }
        Cause::OtherUser => "jemand anderes benutzt den Rechner gerade".into(),
        Cause::Battery => "der Rechner läuft im Akkubetrieb".into(),
        Cause::Hot { reached_c, .. } => format!("die Grafikkarte hat {reached_c} °C erreicht"),
        Cause::InUse { .. } => "du benutzt den Rechner gerade".into(),
        Cause::AwayUnknown => "das System verrät nicht, ob du weg bist".into(),
        Cause::Schedule { cheap_only: false } => "nicht in deinem Zeitplan".into(),
        Cause::Schedule { cheap_only: true } => "der Strom ist gerade nicht günstig".into(),
        Cause::Metered => "das Netzwerk ist getaktet".into(),
        Cause::Moving => "die Modelle ziehen in einen anderen Ordner um".into(),
        Cause::Update => "eine andere Version von Neurino wird gleich installiert".into(),
    }
}

#[cfg(test)]
mod tests {
    use neurino_control::Ending;

    use super::*;

    #[test]
    fn the_language_is_the_chosen_one_else_the_desktops() {
        let check = |language, system, expect: &Words| {
            assert_eq!(Words::of(language, system), expect, "{language:?} {system:?}");
        };
        check(Language::System, Some("de_DE.UTF-8"), &GERMAN);
        check(Language::System, Some("de-AT"), &GERMAN);
        check(Language::System, Some("DE"), &GERMAN);
        check(Language::System, Some("den_CA"), &ENGLISH);
        check(Language::System, Some("fr-FR"), &ENGLISH);
        check(Language::System, None, &ENGLISH);
        check(Language::English, Some("de"), &ENGLISH);
        check(Language::German, Some("en-US"), &GERMAN);
    }

    #[test]
    fn a_menu_shows_the_first_sentence_in_both_languages() {
        let game = Cause::Game { program: "doom".into(), sign: Sign::Library };
        let end = Ending::GameGone { after_secs: 180 };
        let held = Saying::Held { how: Strictness::Paused, cause: game, end };
        let until = Some(Clock { day: None, minute: 22 * 60 + 40 });
        let snoozed = Saying::Snoozed { until };
        let check = |words: &Words, said: &Saying, expect: &str| {
            assert_eq!(words.state(MiningState::Paused, Some(said)), expect);
        };
        check(&ENGLISH, &held, "Paused: doom is running");
        check(&GERMAN, &held, "Pausiert: doom läuft");
        check(&ENGLISH, &snoozed, "Paused by you until 22:40");
        check(&GERMAN, &snoozed, "Von dir pausiert bis 22:40 Uhr");
        let tomorrow = Saying::Snoozed { until: Some(Clock { day: Some(1), minute: 65 }) };
        check(&GERMAN, &tomorrow, "Von dir pausiert bis Di, 01:05 Uhr");
    }
}
