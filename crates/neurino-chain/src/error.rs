//! Why a fact cannot be read. No message holds a node's whole address: it may carry an access key.

/// Why a fact cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The text is no address of a node that may be asked.
    #[error("the address of a node cannot be used: {rule}")]
    BadUrl {
        /// The rule it breaks.
        rule: &'static str,
    },
    /// The node cannot be reached.
    #[error("the node at {host} cannot be reached; check its address and the connection")]
    Unreachable {
        /// The node's host.
        host: String,
        /// The cause, without the node's address.
        #[source]
        source: reqwest::Error,
    },
    /// No answer in time.
    #[error("the node at {host} did not answer within {wait_ms} ms; try again, or set another one")]
    TimedOut {
        /// The node's host.
        host: String,
        /// How long was waited.
        wait_ms: u64,
    },
    /// An HTTP status that is no answer.
    #[error(
        "the node at {host} refused with HTTP status {status}; check its address and access key"
    )]
    Refused {
        /// The node's host.
        host: String,
        /// The status.
        status: u16,
    },
    /// More bytes than any answer has.
    #[error("the node at {host} sent more than {limit_bytes} bytes; set another one")]
    TooLarge {
        /// The node's host.
        host: String,
        /// Most bytes that are read.
        limit_bytes: usize,
    },
    /// No JSON-RPC answer to the question.
    #[error("what answers at {host} is no node of a chain: {what}")]
    NotRpc {
        /// The node's host.
        host: String,
        /// What is wrong with the answer.
        what: &'static str,
    },
    /// The node says that the question failed.
    #[error("the node at {host} says: {message} (code {code})")]
    Failed {
        /// The node's host.
        host: String,
        /// Its code.
        code: i64,
        /// Its words, cut short and without control characters.
        message: String,
    },
    /// The node belongs to another chain.
    #[error("the node at {host} serves chain {found}, and chain {wanted} is needed")]
    WrongChain {
        /// The node's host.
        host: String,
        /// The chain that is needed.
        wanted: u64,
        /// The chain that it serves.
        found: u64,
    },
    /// There is no such contract at the address.
    #[error("chain {chain} has no such contract at {address}")]
    NoContract {
        /// The chain.
        chain: u64,
        /// The address.
        address: String,
    },
    /// The contract's answer has another form.
    #[error("the contract at {address} answers in another form: {what}")]
    BadAnswer {
        /// The contract.
        address: String,
        /// What is wrong with the answer.
        what: &'static str,
    },
}
