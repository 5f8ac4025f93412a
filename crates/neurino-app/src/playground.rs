//! The Playground's commands.

use std::sync::Arc;

use neurino_protocol::app::{ChatUpdate, Event};
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio_util::sync::CancellationToken;

use crate::chat::{self, Gateway, Question};
use crate::{App, lock};

/// Conversations that may run at once.
const CHATS_MAX: usize = 16;

impl App {
    /// Sends a conversation; its answer follows as [`Event::Chat`].
    pub(crate) fn chat_send(
        self: &Arc<Self>,
        chat: String,
        question: Question,
    ) -> Result<(), ErrorBody> {
        let gateway = self.playground_gateway()?;
        let cancel = CancellationToken::new();
        {
            let mut chats = lock(&self.chats);
            if chats.contains_key(&chat) {
                return Err(ErrorBody::new(
                    ErrorCode::InvalidRequest,
                    "This conversation is still being answered.",
                ));
            }
            if chats.len() >= CHATS_MAX {
                return Err(ErrorBody::new(
                    ErrorCode::Overloaded,
                    "Too many conversations are being answered at once.",
                ));
            }
            chats.insert(chat.clone(), cancel.clone());
        }
        let app = Arc::clone(self);
        self.tasks.spawn(async move {
            let emit = |update: ChatUpdate| {
                // The name is free again before anybody hears that the answer is over.
                if matches!(update, ChatUpdate::Done { .. } | ChatUpdate::Failed { .. }) {
                    lock(&app.chats).remove(&chat);
                }
                let _ = app.events.send(Event::Chat { chat: chat.clone(), update });
            };
            chat::ask(&gateway, &question, &cancel, emit).await;
        });
        Ok(())
    }

    /// The gateway that the Playground asks.
    pub(crate) fn playground_gateway(&self) -> Result<Gateway, ErrorBody> {
        let hint = "Ask the network's operator for a key and use any OpenAI-compatible program.";
        self.network.gateway().cloned().ok_or_else(|| {
            let words = "This network needs an API key to ask it something.";
            ErrorBody::new(ErrorCode::Unauthorized, words).with_hint(hint)
        })
    }

    /// Withdraws a conversation's running request, if there is one.
    pub(crate) fn chat_cancel(&self, chat: &str) {
        if let Some(cancel) = lock(&self.chats).get(chat) {
            cancel.cancel();
        }
    }
}
