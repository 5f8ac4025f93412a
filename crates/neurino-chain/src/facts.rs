//! The questions that are asked.

use alloy_primitives::{Address, U256};

use crate::abi;
use crate::contracts::Contract;
use crate::error::ChainError;
use crate::rpc::Rpc;

/// Most decimals that a token of the usual kind has.
const DECIMALS_MAX: u64 = 77;

/// What somebody has staked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staked {
    /// Their part, in the token's smallest unit.
    pub amount: U256,
    /// Digits behind the decimal point.
    pub decimals: u8,
    /// What one part is worth in the token that was staked, in 1e-18.
    pub exchange_rate: U256,
}

/// The identity that works for a reward address, or `None` when none is bound yet.
///
/// # Errors
/// [`ChainError`].
pub async fn bound_identity(
    rpc: &Rpc,
    registry: &Contract,
    at: Address,
    reward: Address,
) -> Result<Option<Address>, ChainError> {
    let answer = ask(rpc, registry, at, abi::IDENTITY_ADDRESS, Some(reward)).await?;
    let bound = abi::address(&answer).map_err(bad_answer(at))?;
    Ok((!bound.is_zero()).then_some(bound))
}

/// How many pieces of a collection somebody holds.
///
/// # Errors
/// [`ChainError`].
pub async fn nft_count(
    rpc: &Rpc,
    collection: &Contract,
    at: Address,
    holder: Address,
) -> Result<u32, ChainError> {
    let answer = ask(rpc, collection, at, abi::BALANCE_OF, Some(holder)).await?;
    let count = abi::number(&answer).map_err(bad_answer(at))?;
    u32::try_from(count).map_err(|_| bad_answer(at)("nobody holds so many pieces"))
}

/// What somebody has staked, and what it is worth.
///
/// # Errors
/// [`ChainError`].
pub async fn staked(
    rpc: &Rpc,
    vault: &Contract,
    at: Address,
    holder: Address,
) -> Result<Staked, ChainError> {
    let number = |answer: String| abi::number(&answer).map_err(bad_answer(at));
    let amount = number(ask(rpc, vault, at, abi::BALANCE_OF, Some(holder)).await?)?;
    let decimals = number(ask(rpc, vault, at, abi::DECIMALS, None).await?)?;
    let exchange_rate = number(ask(rpc, vault, at, abi::EXCHANGE_RATE, None).await?)?;
    if decimals > U256::from(DECIMALS_MAX) {
        return Err(bad_answer(at)("no token has so many decimals"));
    }
    Ok(Staked { amount, decimals: decimals.to::<u8>(), exchange_rate })
}

/// An amount with its decimal point and without needless zeros, for example `1200.5`.
pub fn shown_amount(amount: U256, decimals: u8) -> String {
    let digits = format!("{amount:0>width$}", width = usize::from(decimals) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(decimals));
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
}

async fn ask(
    rpc: &Rpc,
    contract: &Contract,
    at: Address,
    function: [u8; 4],
    argument: Option<Address>,
) -> Result<String, ChainError> {
    rpc.expect_chain(contract.chain_id).await?;
    let answer = rpc.call(at, &abi::call(function, argument)).await?;
    if answer == "0x" {
        // What a node answers where nothing lies.
        let address = at.to_checksum(None);
        return Err(ChainError::NoContract { chain: contract.chain_id, address });
    }
    Ok(answer)
}

fn bad_answer(at: Address) -> impl Fn(&'static str) -> ChainError {
    move |what| ChainError::BadAnswer { address: at.to_checksum(None), what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_shown_exactly() {
        let e18 = U256::from(10).pow(U256::from(18));
        for (amount, decimals, shown) in [
            (U256::ZERO, 18, "0"),
            (U256::from(1), 18, "0.000000000000000001"),
            (e18, 18, "1"),
            (e18 * U256::from(1200) + e18 / U256::from(2), 18, "1200.5"),
            (U256::from(42), 0, "42"),
        ] {
            assert_eq!(shown_amount(amount, decimals), shown);
        }
        assert_eq!(shown_amount(U256::MAX, 77).len(), 79);
    }
}
