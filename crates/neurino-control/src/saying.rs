//! What a decision says, as data, so that a window can say it in another language.
//!
//! [`Saying`]'s `Display` is the English sentence, word for word the one in
//! [`crate::Decision::sentence`].

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::decision::Cause;
use crate::facts::JobDevice;
use crate::games::Sign;
use crate::week::clock;

/// The sentence of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Saying {
    /// Mining.
    Mining,
    /// The person has switched mining off.
    Stopped {
        /// Whether they have rules that would start it, were it on.
        rules_wait: bool,
    },
    /// The running job is finished on the person's word.
    Finishing,
    /// Paused by the person.
    Snoozed {
        /// Its end; none until the person resumes.
        until: Option<Clock>,
    },
    /// A rule holds.
    Held {
        /// How strictly.
        how: Strictness,
        /// What it saw.
        cause: Cause,
        /// How that ends.
        end: Ending,
    },
}

/// How strictly a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Strictness {
    /// No new jobs; the model stays loaded.
    Cooling,
    /// The running job may end.
    Finishing,
    /// Nothing runs.
    Paused,
}

/// How a hold ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum Ending {
    /// Not before this ends, too.
    Also {
        /// The second cause.
        cause: Cause,
    },
    /// When the person has looked at the machine.
    Checked,
    /// After the game is gone.
    GameGone {
        /// So many seconds later; at once for 0.
        after_secs: u32,
    },
    /// When the person's own session is in front again.
    OwnSession,
    /// When the program ends.
    ProgramEnds,
    /// On mains power.
    Mains,
    /// When the card has cooled.
    Cooled {
        /// Down to this, in degrees Celsius.
        resume_c: i16,
    },
    /// Without mouse and keyboard.
    Idle {
        /// For so many minutes.
        minutes: u32,
    },
    /// When another rule is chosen.
    OtherRule,
    /// Never: no hour of the week is allowed.
    NoHour,
    /// On another network.
    OtherNetwork,
    /// When the new version runs.
    Updated,
    /// When the library lies in its new folder.
    Moved,
    /// At a time.
    At {
        /// It.
        time: Clock,
    },
    /// Not known.
    Unknown,
}

/// A time as this week's clock shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Clock {
    /// The day, where it is not today; 0 is Monday.
    pub day: Option<u8>,
    /// Minutes since that day's midnight.
    pub minute: u16,
}

/// A rule that the person's own choice sets aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum Lifted {
    /// Being away, until the person follows the rules again.
    Away,
    /// The hours of the week, until the person follows the rules again.
    Schedule,
    /// Another person at this machine, until they are gone.
    OtherUser,
    /// Battery, until mains power is back.
    Battery,
    /// Metered networks, until this one is left.
    Metered,
    /// Temperature, until the card has cooled.
    Hot,
    /// The newer version, which is installed another time.
    Update,
    /// The game guard, until this game is gone.
    Game {
        /// The game.
        program: String,
    },
    /// What a program has for itself, until it ends.
    Exclusive {
        /// The program.
        program: String,
    },
}

impl Display for Saying {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mining => f.write_str("Mining."),
            Self::Stopped { rules_wait: true } => {
                f.write_str("Not mining. Your rules start nothing until you press Start.")
            }
            Self::Stopped { rules_wait: false } => {
                f.write_str("Not mining. Press Start to earn points.")
            }
            Self::Finishing => f.write_str("Finishing the running job, then stopping."),
            Self::Snoozed { until: Some(until) } => write!(f, "Paused by you until {until}."),
            Self::Snoozed { until: None } => f.write_str("Paused by you until you resume."),
            Self::Held { how, cause, end } => {
                let begin = match how {
                    Strictness::Cooling => "Cooling down, no new jobs",
                    Strictness::Finishing => "Finishing the running job, then pausing",
                    Strictness::Paused => "Paused",
                };
                write!(f, "{begin}: {}. {end}", Seen(cause))
            }
        }
    }
}

/// What a rule saw, as the beginning of a sentence after "Paused: ".
pub(crate) struct Seen<'a>(pub(crate) &'a Cause);

impl Display for Seen<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Cause::Crash => f.write_str("Neurino ended without a word while it was mining"),
            Cause::Game { program, sign: Sign::FullScreen } => {
                write!(f, "{program} fills the screen")
            }
            Cause::Game { program, sign: Sign::CardLoad } => {
                write!(f, "{program} is using the graphics card")
            }
            Cause::Game { program, .. } => write!(f, "{program} is running"),
            Cause::CoolDown { program } => write!(f, "{program} was running a moment ago"),
            Cause::Exclusive { program, device } => {
                let device = match device {
                    JobDevice::Cpu => "processor",
                    JobDevice::Gpu => "graphics card",
                };
                write!(f, "{program} is running and has the {device} for itself")
            }
            Cause::OtherUser => f.write_str("another person is using this machine"),
            Cause::Battery => f.write_str("this machine runs on its battery"),
            Cause::Hot { reached_c, .. } => write!(f, "the graphics card reached {reached_c} °C"),
            Cause::InUse { .. } => f.write_str("you are using this machine"),
            Cause::AwayUnknown => f.write_str("this system does not tell whether you are away"),
            Cause::Schedule { cheap_only: false } => {
                f.write_str("this hour is not in your schedule")
            }
            Cause::Schedule { cheap_only: true } => {
                f.write_str("electricity is not cheap at this hour")
            }
            Cause::Metered => f.write_str("the network is metered"),
            Cause::Update => f.write_str("another version of Neurino is about to be installed"),
            Cause::Moving => f.write_str("the library of models is moving to another folder"),
        }
    }
}

impl Display for Ending {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            // Two causes end at two times: neither of them is when it goes on.
            Self::Also { cause } => write!(f, "Also, {}.", Seen(cause)),
            Self::Checked => f.write_str("Check that the machine is well, then resume."),
            Self::GameGone { after_secs: 0 } => f.write_str("Resumes when it is gone."),
            Self::GameGone { after_secs } => {
                write!(f, "Resumes {} after it is gone.", spell(*after_secs))
            }
            Self::ProgramEnds => f.write_str("Resumes when it ends."),
            Self::OwnSession => f.write_str("Resumes when your session is in front again."),
            Self::Mains => f.write_str("Resumes on mains power."),
            Self::Cooled { resume_c } => write!(f, "Resumes at {resume_c} °C."),
            Self::Idle { minutes } => {
                write!(f, "Resumes after {} without mouse and keyboard.", spell(minutes * 60))
            }
            Self::OtherRule => f.write_str("Choose another rule in the settings."),
            Self::NoHour => f.write_str("No hour of the week is allowed."),
            Self::OtherNetwork => f.write_str("Resumes on another network."),
            Self::Updated => f.write_str("Resumes when it runs."),
            Self::Moved => f.write_str("Resumes when it has moved."),
            Self::At { time } => write!(f, "Resumes at {time}."),
            Self::Unknown => Ok(()),
        }
    }
}

impl Display for Clock {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&clock(self.day, self.minute))
    }
}

impl Display for Lifted {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away => {
                f.write_str("the rule about being away, until you follow your rules again")
            }
            Self::Schedule => f.write_str("your schedule, until you follow your rules again"),
            Self::OtherUser => {
                f.write_str("the rule about other people at this machine, until they are gone")
            }
            Self::Battery => f.write_str("the rule about the battery, until mains power is back"),
            Self::Metered => f.write_str("the rule about metered networks, until this one is left"),
            Self::Hot => f.write_str("the rule about temperature, until the card has cooled"),
            Self::Update => f.write_str("the other version of Neurino, which is installed later"),
            Self::Game { program } => {
                write!(f, "the game guard for {program}, until it is gone")
            }
            Self::Exclusive { program } => write!(f, "the rule about {program}, until it ends"),
        }
    }
}

/// `3 min`, `90 s`, `1 h`.
fn spell(seconds: u32) -> String {
    match seconds {
        seconds if seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}
