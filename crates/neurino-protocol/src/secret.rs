//! A text that only the receiver may read.

use std::fmt;

use serde::{Deserialize, Serialize};
use ts_rs::TS;
use zeroize::Zeroize;

/// A text that may be a secret, on its way between the page and the application. It must travel, so
/// it is written into messages; it cannot be printed, and its memory is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(transparent)]
#[ts(type = "string")]
pub struct SecretText(String);

impl SecretText {
    /// Takes the text in.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text. Whoever asks sees to it that it goes no further.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{Command, Reply};
    use crate::wallet::{WalletCommand, WalletReply};

    #[test]
    fn messages_that_carry_secrets_do_not_print_them() {
        let secret = || SecretText::new("junk");
        let commands = [
            WalletCommand::Restore { words: secret() },
            WalletCommand::QuizAnswer { words: vec![secret()] },
            WalletCommand::RewardCheck { text: secret() },
            WalletCommand::RewardSet { text: secret(), pasted: Some(secret()), replaces: None },
            WalletCommand::RpcAdd { url: secret() },
        ];
        for command in commands {
            let command = Command::Wallet(command);
            assert!(!format!("{command:?}").contains("junk"));
            let json = serde_json::to_string(&command).expect("messages serialise");
            assert!(json.contains("junk"));
            assert_eq!(serde_json::from_str::<Command>(&json).ok(), Some(command));
        }
        let reply = Reply::Wallet(Box::new(WalletReply::Words { words: vec![secret()] }));
        assert!(!format!("{reply:?}").contains("junk"));
    }
}
