//! Windows: a toast. The name it is shown under is registered by the installer
//! (`AppUserModelId` in `installers/windows/neurino.nsi`).

use windows::Data::Xml::Dom::XmlDocument;
use windows::UI::Notifications::{ToastNotification, ToastNotificationManager};
use windows::core::HSTRING;

use crate::notify::NotifyError;

/// As the installer registers it.
const APP: &str = "com.neurino.app";

/// Shows a toast.
pub(crate) fn notify(title: &str, body: &str) -> Result<(), NotifyError> {
    show(title, body).map_err(|error| NotifyError::Refused(error.message()))
}

fn show(title: &str, body: &str) -> windows::core::Result<()> {
    let (title, body) = (escaped(title), escaped(body));
    let text = format!(
        "<toast><visual><binding template=\"ToastGeneric\"><text>{title}</text>\
         <text>{body}</text></binding></visual></toast>"
    );
    let document = XmlDocument::new()?;
    document.LoadXml(&HSTRING::from(text))?;
    let toast = ToastNotification::CreateToastNotification(&document)?;
    ToastNotificationManager::CreateToastNotifierWithId(&HSTRING::from(APP))?.Show(&toast)
}

/// Text as it may stand in XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
