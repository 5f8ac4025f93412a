//! Notifications in the words of the language that the person chose.

use neurino_app::Notifier;
use neurino_core::MicroPoints;
use neurino_platform::NotifyError;
use neurino_protocol::app::Language;
use neurino_protocol::error::{ErrorBody, ErrorCode};
use neurino_protocol::notices::Notice;
use tokio::sync::watch;

use crate::tray::in_short;
use crate::words::Words;

/// The desktop's own notifications.
pub(crate) struct Desktop {
    pub(crate) language: watch::Receiver<Language>,
}

impl Notifier for Desktop {
    fn show(&self, notice: &Notice) -> Result<(), ErrorBody> {
        let language = *self.language.borrow();
        let words = Words::of(language, neurino_platform::language().as_deref());
        let (title, body) = told(notice, words);
        neurino_platform::notify(&title, &body).map_err(|error| match error {
            NotifyError::NoService => ErrorBody::new(
                ErrorCode::InvalidRequest,
                "Nothing on this desktop shows notifications.",
            ),
            NotifyError::Refused(reason) => ErrorBody::new(
                ErrorCode::InvalidRequest,
                format!("The desktop shows no notification: {reason}"),
            ),
        })
    }
}

/// Title and text of a notice.
fn told(notice: &Notice, words: &Words) -> (String, String) {
    let of = &words.notices;
    let say = |title: &str, body: String| (title.to_owned(), body);
    match notice {
        Notice::NeedsYou(why) => say(of.needs_you, (of.from_program)(why)),
        Notice::Paused(said) => say(of.paused, words.held(said)),
        Notice::FirstPoints => say(of.first_points, of.first_points_body.to_owned()),
        Notice::Weekly(llama, waifu) => say(of.weekly, amounts(*llama, *waifu, words)),
        Notice::Update(version) => say(of.update, (of.update_body)(version)),
        Notice::UpdateByHand(version) => say(of.update, (of.update_by_hand_body)(version)),
        Notice::Model(name) => say(of.model, (of.model_body)(name)),
        Notice::JobsFail(count) => say(of.jobs_fail, (of.jobs_fail_body)(*count)),
        Notice::Alert(kind, sentence) => say(of.alert, (of.alert_body)(*kind, sentence)),
        Notice::Hotkey(true) => say(of.goes_on, of.goes_on_body.to_owned()),
        Notice::Hotkey(false) => say(of.paused, of.hotkey_body.to_owned()),
        Notice::Test => say(of.test, of.test_body.to_owned()),
    }
}

/// Points of both kinds, those of which there are none left out.
fn amounts(llama: MicroPoints, waifu: MicroPoints, words: &Words) -> String {
    let kinds = [(llama, words.llama), (waifu, words.waifu)];
    let some = kinds.iter().filter(|(amount, _)| amount.0 > 0);
    let told: Vec<String> =
        some.map(|(amount, name)| format!("{} {name}", in_short(*amount, words))).collect();
    told.join(", ")
}

#[cfg(test)]
mod tests {
    use neurino_control::AlertKind;

    use super::*;

    fn check(language: Language, notice: &Notice, title: &str, body: &str) {
        let words = Words::of(language, None);
        assert_eq!(told(notice, words), (title.to_owned(), body.to_owned()));
    }

    #[test]
    fn notices_are_told_in_the_chosen_language() {
        use Language::{English, German};
        let needs = Notice::NeedsYou("the model file is damaged".into());
        check(English, &needs, "Neurino needs you", "The model file is damaged.");
        let open = "Öffne Neurino, um zu sehen, warum.";
        check(German, &needs, "Neurino braucht dich", open);
        let paused = "Von dir pausiert, bis du weitermachst.";
        check(German, &Notice::Hotkey(false), "Das Mining pausiert", paused);
        check(English, &Notice::Hotkey(true), "Mining goes on", "Your hotkey resumed it.");
        let week = Notice::Weekly(MicroPoints(1_250_000), MicroPoints(0));
        check(German, &week, "Punkte der vergangenen Woche", "1,250 Llama-Punkte");
        let full = Notice::Alert(AlertKind::LowDisk, "Less than 5 GB are free.".into());
        check(English, &full, "Neurino noticed something", "Less than 5 GB are free.");
        let body = "Das Laufwerk der Modelle ist fast voll.";
        check(German, &full, "Neurino ist etwas aufgefallen", body);
    }
}
