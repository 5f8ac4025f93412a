//! Where facts lie, as dated data: chain, address, and who said so.

use alloy_primitives::Address;
use serde::Deserialize;

const BUILT_IN: &str = include_str!("../data/contracts.toml");

/// The contracts that are read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contracts {
    /// The day on which they were looked up, for example `2026-11-22`.
    pub as_of: String,
    /// Which identity works for a reward address.
    pub binding: Contract,
    /// The collection of 500.
    pub imaginaries: Contract,
    /// The staked token.
    pub staked: Contract,
}

/// One contract.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// Its name.
    pub name: String,
    /// Number of its chain.
    pub chain_id: u64,
    /// Name of its chain.
    pub chain: String,
    /// Where it lies, if that is known.
    pub address: Option<Address>,
    /// Who says so, and when.
    pub source: String,
}

impl Contracts {
    /// Those that the program knows.
    pub fn built_in() -> Self {
        toml::from_str(BUILT_IN).expect("a test reads the built-in file")
    }

    /// Name of a chain that one of them lies on.
    pub fn chain_name(&self, chain_id: u64) -> Option<&str> {
        [&self.binding, &self.imaginaries, &self.staked]
            .into_iter()
            .find(|contract| contract.chain_id == chain_id)
            .map(|contract| contract.chain.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_file_is_read_and_what_is_unknown_stays_unknown() {
        let contracts = Contracts::built_in();
        assert_eq!(contracts.imaginaries.address, None);
        assert_eq!(contracts.chain_name(8453), Some("Base"));
        assert_eq!(contracts.chain_name(5), None);
        let binding = contracts.binding.address.expect("known");
        assert_eq!(binding.to_checksum(None), "0x7798de1aE119b76037299F9B063e39760D530C10");
    }
}
