//! The few calls that are made, in the encoding of contracts: four bytes that name the function,
//! then words of 32 bytes.

use alloy_primitives::{Address, U256};

/// `identityAddress(address)` of the registry of identities.
pub(crate) const IDENTITY_ADDRESS: [u8; 4] = [0x15, 0x00, 0xc1, 0xed];
/// `balanceOf(address)` of tokens, of both kinds.
pub(crate) const BALANCE_OF: [u8; 4] = [0x70, 0xa0, 0x82, 0x31];
/// `exchangeRate()` of the staking contract.
pub(crate) const EXCHANGE_RATE: [u8; 4] = [0x3b, 0xa0, 0xb9, 0xa9];
/// `decimals()` of tokens.
pub(crate) const DECIMALS: [u8; 4] = [0x31, 0x3c, 0xe5, 0x67];

/// The call of a function that takes nothing, or one address.
pub(crate) fn call(function: [u8; 4], argument: Option<Address>) -> String {
    let argument = argument.map(|a| hex::encode(a.into_word())).unwrap_or_default();
    format!("0x{}{argument}", hex::encode(function))
}

/// The one word of an answer.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn word(answer: &str) -> Result<[u8; 32], &'static str> {
    let digits = answer.strip_prefix("0x").ok_or("it is not hexadecimal")?;
    if digits.len() != 64 {
        return Err("it is not one word of 32 bytes");
    }
    let mut word = [0; 32];
    hex::decode_to_slice(digits, &mut word).map_err(|_| "it is not hexadecimal")?;
    Ok(word)
}

/// An answer that is an address.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn address(answer: &str) -> Result<Address, &'static str> {
    let word = word(answer)?;
    if word[..12].iter().any(|&b| b != 0) {
        return Err("it is no address");
    }
    Ok(Address::from_slice(&word[12..]))
}

/// An answer that is a number.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn number(answer: &str) -> Result<U256, &'static str> {
    word(answer).map(U256::from_be_bytes)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use alloy_primitives::keccak256;

    use super::*;

    /// The first four bytes of the hash of a function's signature name it.
    #[test]
    fn functions_are_named_by_their_signatures() {
        for (bytes, signature) in [
            (IDENTITY_ADDRESS, "identityAddress(address)"),
            (BALANCE_OF, "balanceOf(address)"),
            (EXCHANGE_RATE, "exchangeRate()"),
            (DECIMALS, "decimals()"),
        ] {
            assert_eq!(hex::encode(bytes), hex::encode(&keccak256(signature)[..4]), "{signature}");
        }
    }

    #[test]
    fn calls_are_encoded_as_every_wallet_does() {
        let holder: Address = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266".parse().unwrap();
        assert_eq!(
            call(BALANCE_OF, Some(holder)),
            "0x70a08231000000000000000000000000f39fd6e51aad88f6f4ce6ab8827279cfffb92266"
        );
        assert_eq!(call(EXCHANGE_RATE, None), "0x3ba0b9a9");
    }

    #[test]
    fn answers_are_one_word_and_nothing_else() {
        let one = format!("0x{}1", "0".repeat(63));
        assert_eq!(number(&one), Ok(U256::from(1)));
        let most = format!("0x{}", "f".repeat(64));
        assert_eq!(number(&most), Ok(U256::MAX));
        assert_eq!(address(&most), Err("it is no address"));
        let some = format!("0x{}{}", "0".repeat(24), "ab".repeat(20));
        assert_eq!(address(&some), Ok(Address::from([0xab; 20])));
        for bad in ["", "0x", "0x1", &one[2..], &format!("{one}0"), &one.replace('1', "g")] {
            assert!(number(bad).is_err() && address(bad).is_err(), "{bad}");
        }
    }
}
