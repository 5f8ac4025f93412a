//! Shows that the files of its models are there, when the network asks.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use neurino_core::file_tree::ShownLeaf;
use neurino_protocol::ErrorCode;
use neurino_protocol::node::NodeMessage;
use neurino_protocol::node::files::{FileChallenge, FileProof, LEAVES_MAX};

use crate::run::{Inside, QUEUE_BUSY, Run};

/// Longest name of a question, in bytes: it comes back with the answer.
const NONCE_MAX: usize = 128;

/// What a library answers: the pieces that were asked for, or why it cannot show them.
pub type Showing = Pin<Box<dyn Future<Output = Result<Vec<ShownLeaf>, ErrorCode>> + Send>>;

/// Who has the files of the models.
pub trait ModelFiles: fmt::Debug + Send + Sync {
    /// Pieces of a file. Reads slowly: jobs are not to notice.
    fn show(&self, challenge: &FileChallenge) -> Showing;
}

impl Run {
    /// Answers beside the jobs, one question at a time: a coordinator that asks more is not answered.
    pub(crate) fn on_show_file(&mut self, challenge: FileChallenge) {
        let Some(files) = self.config.files.clone() else { return };
        let long = challenge.nonce.len() > NONCE_MAX || challenge.leaves.len() > LEAVES_MAX;
        // An answer is large; a coordinator that does not take what there is gets no more of them.
        if self.showing || long || self.queue.len() >= QUEUE_BUSY {
            tracing::debug!(model.id = %challenge.model, "a question for a file is left unanswered");
            return;
        }
        self.showing = true;
        tracing::debug!(model.id = %challenge.model, "showing pieces of {}", challenge.model);
        let inside = self.inside.clone();
        self.tasks.spawn(async move {
            let proof = proof(&files, challenge).await;
            let _ = inside.send(Inside::FileShown(proof)).await;
        });
    }

    /// Sends the answer, in whatever session there is: only the one that asked knows the question.
    pub(crate) fn on_file_shown(&mut self, proof: FileProof) {
        self.showing = false;
        if self.session.is_some() {
            self.queue.push_back(NodeMessage::FileShown(proof));
        }
    }
}

async fn proof(files: &Arc<dyn ModelFiles>, challenge: FileChallenge) -> FileProof {
    let nonce = challenge.nonce.clone();
    match files.show(&challenge).await {
        Ok(leaves) => FileProof { nonce, leaves, refused: None },
        Err(code) => {
            tracing::warn!(
                model.id = %challenge.model, code = ?code,
                "the files of {} cannot be shown", challenge.model,
            );
            FileProof { nonce, leaves: Vec::new(), refused: Some(code) }
        }
    }
}
