//! Vouchers: a payer's signed word for all that it ever owes to one gateway, as EIP-712 typed data, so
//! that a contract can collect what was promised.

use std::fmt;
use std::str::FromStr;

use alloy_primitives::{Address, B256, U256, keccak256};

use crate::error::WalletError;
use crate::identity::{IdentityKey, verify_hash};

/// The typed data's domain: name and version of the protocol, chain and contract.
const DOMAIN: &str =
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";
const NAME: &str = "Neurino";
const VERSION: &str = "1";
/// The voucher's type, as the contract spells it.
const VOUCHER: &str = "Voucher(address payer,address gateway,uint256 cumulative,uint64 epoch)";

/// Where vouchers are collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Escrow {
    /// The chain.
    pub chain_id: u64,
    /// The contract that holds deposits.
    pub contract: [u8; 20],
}

/// What a payer signs. Each voucher replaces those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voucher {
    /// Who pays, and signs.
    pub payer: [u8; 20],
    /// Whom it pays.
    pub gateway: [u8; 20],
    /// All that was ever promised to this gateway, in the smallest units of the token.
    pub cumulative: U256,
    /// The last epoch in which it is good: weeks since 1 January 1970.
    pub epoch: u64,
}

/// A voucher and its signature, as the header `Neurino-Voucher` carries it:
/// `payer=0x…; gateway=0x…; cumulative=1000; epoch=2968; signature=0x…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedVoucher {
    /// What was signed.
    pub voucher: Voucher,
    /// `0x` and 130 hex digits.
    pub signature: String,
}

/// Why a header is no voucher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VoucherError {
    /// A part is missing, there twice, or none of a voucher's.
    #[error(
        "a voucher is written `payer=0x…; gateway=0x…; cumulative=…; epoch=…; signature=0x…`, each \
         once"
    )]
    Parts,
    /// An address is none.
    #[error("`{0}` of a voucher is `0x` and 40 hex digits")]
    Address(&'static str),
    /// A number is none, or too large.
    #[error("`{0}` of a voucher is a whole number without a sign or leading zeros")]
    Number(&'static str),
    /// The signature cannot be one.
    #[error("`signature` of a voucher is `0x` and 130 hex digits")]
    Signature,
}

impl Escrow {
    fn separator(&self) -> B256 {
        let words = [
            keccak256(DOMAIN),
            keccak256(NAME),
            keccak256(VERSION),
            word(U256::from(self.chain_id)),
            address(self.contract),
        ];
        keccak256(words.concat())
    }

    /// The hash that is signed for a voucher.
    pub fn hash(&self, voucher: &Voucher) -> [u8; 32] {
        let words = [
            keccak256(VOUCHER),
            address(voucher.payer),
            address(voucher.gateway),
            word(voucher.cumulative),
            word(U256::from(voucher.epoch)),
        ];
        let content = keccak256(words.concat());
        keccak256([&[0x19, 0x01], self.separator().as_slice(), content.as_slice()].concat()).0
    }

    /// Signs a voucher. Its payer must be the key's own address.
    ///
    /// # Errors
    /// `BadAddress` for another payer.
    pub fn sign(&self, key: &IdentityKey, voucher: Voucher) -> Result<SignedVoucher, WalletError> {
        if hex_of(voucher.payer) != key.address() {
            return Err(WalletError::BadAddress);
        }
        Ok(SignedVoucher { voucher, signature: key.sign_hash(self.hash(&voucher)) })
    }

    /// Checks that the payer signed a voucher for this escrow.
    ///
    /// # Errors
    /// `BadSignature` for another signer, another escrow, or a second form of the same signature.
    pub fn verify(&self, signed: &SignedVoucher) -> Result<(), WalletError> {
        let payer = hex_of(signed.voucher.payer);
        verify_hash(self.hash(&signed.voucher), &signed.signature, &payer)
    }
}

fn word(number: U256) -> B256 {
    B256::from(number.to_be_bytes::<32>())
}

fn address(bytes: [u8; 20]) -> B256 {
    Address::from(bytes).into_word()
}

fn hex_of(bytes: [u8; 20]) -> String {
    format!("0x{}", hex::encode(bytes))
}

impl fmt::Display for SignedVoucher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Voucher { payer, gateway, cumulative, epoch } = self.voucher;
        write!(
            f,
            "payer={}; gateway={}; cumulative={cumulative}; epoch={epoch}; signature={}",
            hex_of(payer),
            hex_of(gateway),
            self.signature
        )
    }
}

impl FromStr for SignedVoucher {
    type Err = VoucherError;

    fn from_str(text: &str) -> Result<Self, VoucherError> {
        const NAMES: [&str; 5] = ["payer", "gateway", "cumulative", "epoch", "signature"];
        let mut found: [Option<&str>; 5] = [None; 5];
        for part in text.split(';') {
            let (name, value) = part.split_once('=').ok_or(VoucherError::Parts)?;
            let place = NAMES.iter().position(|known| *known == name.trim());
            let place = place.ok_or(VoucherError::Parts)?;
            if found[place].replace(value.trim()).is_some() {
                return Err(VoucherError::Parts);
            }
        }
        let [Some(payer), Some(gateway), Some(cumulative), Some(epoch), Some(signature)] = found
        else {
            return Err(VoucherError::Parts);
        };
        let digits = |text: &str, name| {
            let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty();
            let leading = text.len() > 1 && text.starts_with('0');
            if plain && !leading { Ok(()) } else { Err(VoucherError::Number(name)) }
        };
        digits(cumulative, "cumulative")?;
        digits(epoch, "epoch")?;
        let mut bytes = [0; 65];
        let is_signature = signature
            .strip_prefix("0x")
            .is_some_and(|digits| hex::decode_to_slice(digits, &mut bytes).is_ok());
        if !is_signature {
            return Err(VoucherError::Signature);
        }
        let voucher = Voucher {
            payer: read_address(payer, "payer")?,
            gateway: read_address(gateway, "gateway")?,
            cumulative: U256::from_str_radix(cumulative, 10)
                .map_err(|_| VoucherError::Number("cumulative"))?,
            epoch: epoch.parse().map_err(|_| VoucherError::Number("epoch"))?,
        };
        Ok(Self { voucher, signature: signature.to_ascii_lowercase() })
    }
}

fn read_address(text: &str, name: &'static str) -> Result<[u8; 20], VoucherError> {
    let mut bytes = [0; 20];
    let digits = text.strip_prefix("0x").ok_or(VoucherError::Address(name))?;
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| VoucherError::Address(name))?;
    Ok(bytes)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use serde_json::Value;

    use super::*;

    const JUNK: &str = "test test test test test test test test test test test junk";

    fn vectors() -> Vec<Value> {
        let file: Value =
            serde_json::from_str(include_str!("../tests/fixtures/vouchers.json")).unwrap();
        file["vouchers"].as_array().unwrap().clone()
    }

    fn of(vector: &Value) -> (Escrow, SignedVoucher) {
        let text = |name: &str| vector[name].as_str().unwrap();
        let escrow = Escrow {
            chain_id: vector["chain_id"].as_u64().unwrap(),
            contract: read_address(text("contract"), "contract").unwrap(),
        };
        let parts = ["payer", "gateway", "cumulative", "epoch", "signature"];
        let header = parts.map(|name| format!("{name}={}", text(name))).join("; ");
        let signed: SignedVoucher = header.parse().unwrap();
        assert_eq!(signed.to_string(), header);
        (escrow, signed)
    }

    #[test]
    fn vouchers_are_those_of_other_programs() {
        let key = IdentityKey::from_phrase(JUNK).map_err(|e| e.to_string()).unwrap();
        let vectors = vectors();
        assert!(vectors.len() >= 4);
        for vector in &vectors {
            let (escrow, signed) = of(vector);
            let hash = format!("0x{}", hex::encode(escrow.hash(&signed.voucher)));
            assert_eq!(hash, vector["hash"].as_str().unwrap());
            escrow.verify(&signed).unwrap();
            let own = escrow.sign(&key, signed.voucher).map_err(|e| e.to_string()).unwrap();
            assert_eq!(own, signed);
        }
    }

    #[test]
    fn what_was_not_signed_is_refused() {
        for vector in &vectors() {
            let (escrow, signed) = of(vector);
            let refused = |escrow: &Escrow, signed: &SignedVoucher| {
                assert!(escrow.verify(signed).is_err(), "{signed}");
            };
            refused(&Escrow { chain_id: escrow.chain_id ^ 1, ..escrow }, &signed);
            refused(&Escrow { contract: [1; 20], ..escrow }, &signed);
            let v = signed.voucher;
            let more = v.cumulative.wrapping_add(U256::from(1));
            for voucher in [
                Voucher { cumulative: more, ..v },
                Voucher { epoch: v.epoch ^ 1, ..v },
                Voucher { gateway: [1; 20], ..v },
                Voucher { payer: [1; 20], ..v },
            ] {
                refused(&escrow, &SignedVoucher { voucher, ..signed.clone() });
            }
            let high = vector["high_s"].as_str().unwrap().to_owned();
            let twin = SignedVoucher { signature: high, ..signed.clone() };
            let error = escrow.verify(&twin).unwrap_err().to_string();
            assert!(error.contains("`s` is high"), "{error}");
        }
    }

    #[test]
    fn a_header_that_is_no_voucher_is_named() {
        let (_, signed) = of(&vectors()[0]);
        let whole = signed.to_string();
        let refused = |text: String| text.parse::<SignedVoucher>().unwrap_err();
        assert_eq!(refused(String::new()), VoucherError::Parts);
        assert_eq!(refused(format!("{whole}; epoch=1")), VoucherError::Parts);
        assert_eq!(refused(whole.replace("payer", "payee")), VoucherError::Parts);
        let (number, address) = (VoucherError::Number, VoucherError::Address);
        for wrong in ["-1", "+1", "01", "", "1e3", "0x1", &"9".repeat(79)] {
            let text = whole.replace("cumulative=1;", &format!("cumulative={wrong};"));
            assert_eq!(refused(text), number("cumulative"), "{wrong}");
        }
        let text = whole.replace("epoch=0;", "epoch=18446744073709551616;");
        assert_eq!(refused(text), number("epoch"));
        assert_eq!(refused(whole.replace("payer=0x", "payer=0xzz")), address("payer"));
        assert_eq!(refused(format!("{whole}00")), VoucherError::Signature);
    }
}
