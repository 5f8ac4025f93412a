//! The grammar of `neurino voucher` and `neurino coordinator vouchers`.

use clap::{Args, Subcommand};
use neurino_core::MicroCredits;
use neurino_ledger::epoch::Address;

/// Where vouchers are collected.
#[derive(Debug, Args)]
pub struct EscrowArgs {
    /// The chain of the contract.
    #[arg(long, value_name = "N")]
    pub chain_id: u64,
    /// The contract that holds deposits.
    #[arg(long, value_name = "ADDRESS", value_parser = Address::of_wallet)]
    pub contract: Address,
}

/// `neurino voucher`
#[derive(Debug, Subcommand)]
pub enum VoucherAction {
    /// Sign a voucher with this machine's identity, and print it as the header of a request.
    Sign {
        /// Where it is collected; `/v1/vouchers` of the gateway says so.
        #[command(flatten)]
        escrow: EscrowArgs,
        /// Whom it is made out to.
        #[arg(long, value_name = "ADDRESS", value_parser = Address::of_wallet)]
        gateway: Address,
        /// All that was ever promised to this gateway, in the smallest units of the token.
        #[arg(long, value_name = "N")]
        cumulative: u128,
        /// The last epoch in which it is good; in four weeks when absent.
        #[arg(long, value_name = "N")]
        epoch: Option<u64>,
    },
    /// Check who signed a voucher.
    Check {
        /// Where it is collected.
        #[command(flatten)]
        escrow: EscrowArgs,
        /// The header.
        voucher: String,
    },
}

/// `neurino coordinator vouchers`
#[derive(Debug, Subcommand)]
pub enum VouchersAction {
    /// Show where vouchers are collected, every channel, and the voucher to collect.
    List,
    /// Take vouchers, and say where they are collected.
    Terms {
        /// The contract.
        #[command(flatten)]
        escrow: EscrowArgs,
        /// Whom they are made out to; the coordinator's own address when absent.
        #[arg(long, value_name = "ADDRESS", value_parser = Address::of_wallet)]
        gateway: Option<Address>,
        /// Smallest units of the token that a millionth of a credit costs.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        units_per_micro: u64,
    },
    /// Open a payer's channel, or say how large its deposit is now, in all.
    Open {
        /// The payer's address.
        #[arg(value_parser = Address::of_wallet)]
        payer: Address,
        /// Its deposit in credits, for example `12.5`.
        deposit: MicroCredits,
    },
    /// Take no further vouchers of a payer.
    Close {
        /// The payer's address.
        #[arg(value_parser = Address::of_wallet)]
        payer: Address,
    },
}
