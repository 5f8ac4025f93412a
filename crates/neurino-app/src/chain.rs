//! What public chains say about the reward address. Nobody is asked unless the person named a node,
//! and nobody before the person presses the button.

use neurino_chain::{
    Address, ChainError, Contract, Contracts, Limits, Rpc, RpcUrl, Staked, bound_identity,
    nft_count, shown_amount, staked,
};
use neurino_core::BoostTable;
use neurino_protocol::wallet::{BoostStepView, BoostView, BoostedCard, ChainView, Fact, NodeView};
use neurino_protocol::{ErrorBody, ErrorCode, SecretText};
use neurino_wallet::{ChainNode, RewardAddress};

use crate::wallet::{Wallet, invalid};
use crate::{App, lock, now_ms};

/// Nodes that a person may name.
const NODES_MAX: usize = 8;
/// The exchange rate is told in 1e-18.
const RATE_DECIMALS: u8 = 18;

/// What was read last.
#[derive(Default)]
pub(crate) struct Facts {
    checked_at_ms: Option<i64>,
    binding: Option<Result<Option<Address>, ErrorBody>>,
    nfts: Option<Result<u32, ErrorBody>>,
    staked: Option<Result<Staked, ErrorBody>>,
}

impl Facts {
    /// They were about somebody else.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// A question that can be asked: of whom, and where the answer lies.
struct Question {
    rpc: Rpc,
    contract: Contract,
    at: Address,
}

impl App {
    pub(crate) fn chain_view(&self, wallet: &Wallet, own: &str) -> ChainView {
        let (book, facts, contracts) = (&wallet.book, &wallet.facts, &self.contracts);
        let collection = collection(contracts, book.imaginaries);
        let fact = |contract: &Contract, read: Option<Fact>| {
            read.unwrap_or_else(|| match contract.address {
                _ if book.reward.is_none() => Fact::NoReward,
                None => Fact::NotKnown {
                    contract: contract.name.clone(),
                    chain: contract.chain.clone(),
                },
                Some(_) if book.nodes.iter().all(|n| n.chain_id != contract.chain_id) => {
                    Fact::NoNode { chain: contract.chain.clone() }
                }
                Some(_) => Fact::NotChecked,
            })
        };
        let nfts = facts.nfts.clone().map(|read| told(read, |count| Fact::Pieces { count }));
        let staked = facts.staked.clone().map(|read| told(read, shown_stake));
        let binding = facts.binding.clone().map(|read| {
            told(read, |bound| {
                let identity = bound.map(|b| RewardAddress::from_bytes(b.into_array()));
                Fact::Bound {
                    ours: identity.is_some_and(|identity| identity.lower() == own),
                    identity: identity.map(|identity| identity.checksummed()),
                }
            })
        });
        ChainView {
            nodes: book.nodes.iter().map(|node| node_view(node, contracts)).collect(),
            checked_at_ms: facts.checked_at_ms,
            binding: fact(&contracts.binding, binding),
            nfts: fact(&collection, nfts),
            collection: book.imaginaries.map(|address| address.checksummed()),
            staked: fact(&contracts.staked, staked),
            boost: self
                .boost_view(facts.nfts.as_ref().and_then(|read| read.as_ref().ok().copied())),
        }
    }

    /// What pieces are worth, and on which of this machine's cards. The cards with the most memory
    /// serve the largest models, so they count as the best.
    fn boost_view(&self, nfts: Option<u32>) -> BoostView {
        let table = BoostTable::built_in();
        let hardware = self.hardware();
        let gpus = hardware.gpus();
        let strengths: Vec<(u32, u64)> =
            gpus.iter().map(|gpu| (gpu.index, gpu.memory_bytes.unwrap_or(0))).collect();
        let cards = nfts.map_or_else(Vec::new, |nfts| {
            let factors = table.of_cards(nfts, &strengths);
            let named = gpus.iter().zip(factors);
            named
                .map(|(gpu, multiplier)| BoostedCard { name: self.card_name(gpu), multiplier })
                .collect()
        });
        let steps = table
            .steps
            .iter()
            .map(|step| BoostStepView { nfts: step.nfts, multiplier: table.multiplier(step.nfts) });
        BoostView {
            note: table.note.clone(),
            cards_per_nft: table.cards_per_nft,
            steps: steps.collect(),
            cards,
        }
    }

    /// Asks a node for its chain and remembers both.
    pub(crate) async fn rpc_add(&self, url: &SecretText) -> Result<(), ErrorBody> {
        let url = RpcUrl::read(url.expose()).map_err(|error| invalid(error.to_string()))?;
        let rpc = Rpc::new(url.clone(), Limits::default()).map_err(body)?;
        let chain_id = rpc.chain_id().await.map_err(body)?;
        if self.contracts.chain_name(chain_id).is_none() {
            let wanted =
                [&self.contracts.imaginaries, &self.contracts.staked, &self.contracts.binding]
                    .map(|contract| contract.chain.as_str())
                    .join(", ");
            return Err(invalid(format!(
                "the node at {} serves chain {chain_id}, where nothing of interest lies",
                rpc.host()
            ))
            .with_hint(format!("set a node of one of these chains: {wanted}")));
        }
        let node = ChainNode { url: url.expose().to_owned(), chain_id };
        if lock(&self.wallet).book.nodes.len() >= NODES_MAX {
            return Err(invalid("there are as many nodes as can be kept")
                .with_hint("remove one that you no longer use"));
        }
        self.change_book(|book| {
            // One node for each chain: the newest.
            book.nodes.retain(|old| old.chain_id != chain_id);
            book.nodes.push(node);
        })
    }

    pub(crate) fn rpc_remove(&self, index: u32) -> Result<(), ErrorBody> {
        let there = lock(&self.wallet).book.nodes.len();
        if index as usize >= there {
            return Err(invalid("there is no such node any more"));
        }
        self.change_book(|book| {
            book.nodes.remove(index as usize);
        })
    }

    pub(crate) fn collection_set(&self, address: Option<&str>) -> Result<(), ErrorBody> {
        let address = address
            .map(RewardAddress::read)
            .transpose()
            .map_err(|error| invalid(error.to_string()))?
            .map(|entered| entered.address);
        self.change_book(|book| book.imaginaries = address)?;
        lock(&self.wallet).facts.nfts = None;
        Ok(())
    }

    /// Reads every fact that can be read, all at once.
    pub(crate) async fn chain_check(&self) -> Result<(), ErrorBody> {
        let (reward, nodes, imaginaries) = {
            let wallet = lock(&self.wallet);
            let book = &wallet.book;
            (book.reward.as_ref().map(|r| r.address), book.nodes.clone(), book.imaginaries)
        };
        let reward = reward.ok_or_else(|| {
            invalid("there is no reward address to ask about").with_hint("set it first")
        })?;
        if nodes.is_empty() {
            return Err(invalid("no node of a chain is set").with_hint("set an RPC address first"));
        }
        let holder = Address::from(reward.bytes());
        let question = |contract: &Contract| question(contract, &nodes);
        let (binding, nfts, stake) = (
            question(&self.contracts.binding),
            question(&collection(&self.contracts, imaginaries)),
            question(&self.contracts.staked),
        );
        let (binding, nfts, stake) = tokio::join!(
            ask(binding, async |q| bound_identity(&q.rpc, &q.contract, q.at, holder).await),
            ask(nfts, async |q| nft_count(&q.rpc, &q.contract, q.at, holder).await),
            ask(stake, async |q| staked(&q.rpc, &q.contract, q.at, holder).await),
        );
        let mut wallet = lock(&self.wallet);
        // Answers about an address that is no longer in use are nobody's.
        if wallet.book.reward.as_ref().map(|r| r.address) == Some(reward) {
            let checked_at_ms = Some(now_ms());
            wallet.facts = Facts { checked_at_ms, binding, nfts, staked: stake };
        }
        Ok(())
    }
}

/// The question after a contract, if it is known where it lies and somebody may be asked.
fn question(contract: &Contract, nodes: &[ChainNode]) -> Option<Result<Question, ErrorBody>> {
    let at = contract.address?;
    let node = nodes.iter().find(|node| node.chain_id == contract.chain_id)?;
    let rpc = RpcUrl::read(&node.url).and_then(|url| Rpc::new(url, Limits::default()));
    Some(rpc.map_err(body).map(|rpc| Question { rpc, contract: contract.clone(), at }))
}

async fn ask<T>(
    question: Option<Result<Question, ErrorBody>>,
    ask: impl AsyncFnOnce(Question) -> Result<T, ChainError>,
) -> Option<Result<T, ErrorBody>> {
    match question? {
        Ok(question) => Some(ask(question).await.map_err(body)),
        Err(error) => Some(Err(error)),
    }
}

/// The collection, where the person says that it lies if nobody else does.
fn collection(contracts: &Contracts, entered: Option<RewardAddress>) -> Contract {
    let known = contracts.imaginaries.clone();
    let address = known.address.or(entered.map(|address| Address::from(address.bytes())));
    Contract { address, ..known }
}

fn told<T>(read: Result<T, ErrorBody>, tell: impl FnOnce(T) -> Fact) -> Fact {
    read.map_or_else(|error| Fact::Failed { error }, tell)
}

fn shown_stake(stake: Staked) -> Fact {
    Fact::Staked {
        amount: shown_amount(stake.amount, stake.decimals),
        rate: shown_amount(stake.exchange_rate, RATE_DECIMALS),
    }
}

fn node_view(node: &ChainNode, contracts: &Contracts) -> NodeView {
    let host = RpcUrl::read(&node.url).map(|url| url.host()).unwrap_or_default();
    NodeView { host, chain: contracts.chain_name(node.chain_id).map(str::to_owned) }
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn body(error: ChainError) -> ErrorBody {
    let code = match error {
        ChainError::BadUrl { .. } => ErrorCode::InvalidRequest,
        _ => ErrorCode::Unreachable,
    };
    ErrorBody::new(code, error.to_string())
}
