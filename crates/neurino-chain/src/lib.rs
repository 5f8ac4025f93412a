//! Facts from public chains, read only: who is bound to whom, who holds what.
//!
//! Nothing is asked unless the person named a node to ask ([`RpcUrl`]). Reading order: [`RpcUrl`]
//! and [`Rpc`] (one careful question to a node), [`Contracts`] (where facts lie, as dated data),
//! [`bound_identity`], [`nft_count`], [`staked`] (the questions).

mod abi;
mod contracts;
mod error;
mod facts;
mod rpc;

pub use alloy_primitives::{Address, U256};
pub use contracts::{Contract, Contracts};
pub use error::ChainError;
pub use facts::{Staked, bound_identity, nft_count, shown_amount, staked};
pub use rpc::{Limits, Rpc, RpcUrl};
