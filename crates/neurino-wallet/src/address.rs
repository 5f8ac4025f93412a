//! Addresses that people type: the one that receives points, and miner ids made of it.
//!
//! An address is kept as twenty bytes and compared as bytes. Its capitals (EIP-55) are a checksum
//! for the eye of a program; its first and last groups are what people compare.

use alloy_primitives::Address;

/// Hex digits of an address.
const DIGITS: usize = 40;
/// Longest text that is looked at; whatever is longer was pasted by mistake.
const TEXT_BYTES_MAX: usize = 512;
/// Longest tag of a miner id.
const TAG_CHARS_MAX: usize = 64;
/// Characters at either end that people compare, and that forgers imitate.
const SHOWN_ENDS: usize = 4;

/// Why a text is no address to send points to. No message repeats the text: it may be a secret
/// pasted into the wrong field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing was entered.
    #[error("no address was entered")]
    Empty,
    /// A name such as those that end in `.eth`.
    #[error(
        "names such as `name.eth` are not looked up, because a name can point elsewhere tomorrow; \
         paste the address itself, `0x` and 40 characters"
    )]
    Name,
    /// Words, as many as a recovery phrase has.
    #[error(
        "these look like recovery words; never paste them into a field for an address. Only the \
         address is needed here, `0x` and 40 characters"
    )]
    Words,
    /// As long as a private key.
    #[error(
        "this has the length of a private key; never paste one into a field for an address. Only \
         the address is needed here, `0x` and 40 characters"
    )]
    PrivateKey,
    /// Does not begin with `0x`.
    #[error("an address of this kind begins with `0x`; addresses of other networks do not fit")]
    NoPrefix,
    /// Too few or too many digits.
    #[error("an address has 40 characters after `0x`, and this has {digits}; copy it again whole")]
    WrongLength {
        /// Characters after `0x`.
        digits: usize,
    },
    /// A character that no address has.
    #[error("after `0x` an address has only the digits 0 to 9 and the letters a to f")]
    NotHex,
    /// The capitals do not match: a character was mistyped.
    #[error(
        "the capital letters of this address do not fit its digits, so at least one character is \
         wrong; copy it again from your wallet"
    )]
    BadChecksum,
    /// The address of nobody.
    #[error("this is the address of nobody: points sent there are lost")]
    Zero,
    /// The part after the dash.
    #[error("what follows the `-` of a miner id is 1 to 64 letters, digits, `_` or `-`")]
    BadTag,
}

/// The address that receives points. Only this is ever known of the wallet behind it: no key, no
/// words.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RewardAddress(Address);

/// An address as it was entered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EnteredAddress {
    /// The address.
    pub address: RewardAddress,
    /// Whether its capitals proved that no character is wrong. An address in one case has no
    /// checksum: it is accepted, and the person compares it.
    pub checksum_proven: bool,
}

impl RewardAddress {
    /// Reads what a person entered; blanks around it do not matter.
    ///
    /// # Errors
    /// [`AddressError`], one for each kind of mistake.
    pub fn read(text: &str) -> Result<EnteredAddress, AddressError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() <= TEXT_BYTES_MAX && text.split_whitespace().count() >= 12 {
            return Err(AddressError::Words);
        }
        let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) else {
            return Err(without_prefix(text));
        };
        let length = digits.chars().count();
        if length == 64 && is_hex(digits) {
            return Err(AddressError::PrivateKey);
        }
        if length != DIGITS {
            return Err(AddressError::WrongLength { digits: length });
        }
        let mut bytes = [0_u8; 20];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| AddressError::NotHex)?;
        let address = Address::from(bytes);
        if address.is_zero() {
            return Err(AddressError::Zero);
        }
        let lower = !digits.bytes().any(|b| b.is_ascii_uppercase());
        let upper = !digits.bytes().any(|b| b.is_ascii_lowercase());
        let proven = address.to_checksum(None)[2..] == *digits;
        if !proven && !lower && !upper {
            return Err(AddressError::BadChecksum);
        }
        // Without letters there are no capitals that could prove anything.
        let checksum_proven = proven && !(lower && upper);
        Ok(EnteredAddress { address: Self(address), checksum_proven })
    }

    /// The address of these bytes.
    pub fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(Address::from(bytes))
    }

    /// Its twenty bytes.
    pub fn bytes(&self) -> [u8; 20] {
        self.0.into_array()
    }

    /// `0x` and 40 lower-case hex digits: the form on the wire and in file names.
    pub fn lower(&self) -> String {
        format!("0x{}", hex::encode(self.0))
    }

    /// With the capitals of EIP-55, for people.
    pub fn checksummed(&self) -> String {
        self.0.to_checksum(None)
    }

    /// Whether two different addresses look alike at the ends that people compare. Forgers make
    /// such addresses and hope that one is copied for the other.
    pub fn looks_like(&self, other: &Self) -> bool {
        let (one, two) = (self.lower(), other.lower());
        let ends = 2 + SHOWN_ENDS;
        self != other
            && one[..ends] == two[..ends]
            && one[one.len() - SHOWN_ENDS..] == two[two.len() - SHOWN_ENDS..]
    }

    /// What an identity key signs for this address in an hour: the address in lower case, `-`, and
    /// the hour's first second since the Unix epoch.
    pub fn hourly_message(&self, unix_secs: u64) -> String {
        format!("{}-{}", self.lower(), unix_secs - unix_secs % 3600)
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// What a text without `0x` most likely is.
fn without_prefix(text: &str) -> AddressError {
    let name = text.contains('.')
        && !text.contains(char::is_whitespace)
        && text.chars().any(char::is_alphabetic);
    match text.len() {
        _ if name => AddressError::Name,
        64 if is_hex(text) => AddressError::PrivateKey,
        _ => AddressError::NoPrefix,
    }
}

/// Compares what was pasted with what is about to be saved: programs that steal swap addresses on
/// their way through the clipboard or the field.
///
/// # Errors
/// [`AddressError`] when the pasted text is no address.
pub fn is_what_was_pasted(pasted: &str, saved: &RewardAddress) -> Result<bool, AddressError> {
    Ok(RewardAddress::read(pasted)?.address == *saved)
}

/// A machine or card on the network, as the first miners spell it: `address[-tag]`.
#[derive(Clone, PartialEq, Eq)]
pub struct MinerId {
    /// Who is paid.
    pub reward: RewardAddress,
    /// What tells cards of one owner apart, in lower case.
    pub tag: Option<String>,
}

impl MinerId {
    /// Reads `address` or `address-tag`; a tag may hold further `-`.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn read(text: &str) -> Result<Self, AddressError> {
        let (address, tag) = match text.trim().split_once('-') {
            Some((address, tag)) => (address, Some(tag)),
            None => (text, None),
        };
        let reward = RewardAddress::read(address)?.address;
        let tag = tag.map(checked_tag).transpose()?;
        Ok(Self { reward, tag })
    }

    /// The id of one card: without a tag, the first six hex digits of the card's UUID stand for it.
    #[must_use]
    pub fn of_card(&self, uuid: &str) -> Self {
        let digits = uuid.strip_prefix("GPU-").unwrap_or(uuid);
        let first: String = digits.chars().filter(char::is_ascii_hexdigit).take(6).collect();
        let own = (!first.is_empty()).then(|| first.to_ascii_lowercase());
        Self { reward: self.reward, tag: self.tag.clone().or(own) }
    }

    /// As it is submitted: in lower case.
    pub fn submitted(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!("-{tag}")).unwrap_or_default();
        format!("{}{tag}", self.reward.lower())
    }
}

fn checked_tag(tag: &str) -> Result<String, AddressError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if tag.is_empty() || tag.len() > TAG_CHARS_MAX || !tag.chars().all(fits) {
        return Err(AddressError::BadTag);
    }
    Ok(tag.to_ascii_lowercase())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const MIXED: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

    fn read(text: &str) -> Result<(String, bool), AddressError> {
        RewardAddress::read(text).map(|e| (e.address.checksummed(), e.checksum_proven))
    }

    #[test]
    fn a_good_checksum_is_proof_and_one_case_is_accepted_without_it() {
        let shown = MIXED.to_owned();
        assert_eq!(read(MIXED), Ok((shown.clone(), true)));
        assert_eq!(read(&format!("  {MIXED}\n")), Ok((shown.clone(), true)));
        assert_eq!(read(&MIXED.to_lowercase()), Ok((shown.clone(), false)));
        let upper = format!("0x{}", MIXED[2..].to_uppercase());
        assert_eq!(read(&upper), Ok((shown, false)));
        let digits = "0x1111111111111111111111111111111111111111";
        assert_eq!(read(digits), Ok((digits.into(), false)));
    }

    #[test]
    fn every_flipped_capital_is_noticed() {
        for (at, c) in MIXED.char_indices().skip(2).filter(|(_, c)| c.is_alphabetic()) {
            let flipped =
                if c.is_uppercase() { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() };
            let mut text = MIXED.to_owned();
            text.replace_range(at..=at, &flipped.to_string());
            assert_eq!(read(&text), Err(AddressError::BadChecksum), "{text}");
        }
    }

    #[test]
    fn each_mistake_has_its_words() {
        let short = &MIXED[..41];
        let key = format!("0x{}", "ab".repeat(32));
        let words = "test test test test test test test test test test test junk";
        for (text, error) in [
            ("", AddressError::Empty),
            ("vitalik.eth", AddressError::Name),
            ("pay.me.example", AddressError::Name),
            (words, AddressError::Words),
            (&key, AddressError::PrivateKey),
            (&key[2..], AddressError::PrivateKey),
            ("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", AddressError::NoPrefix),
            (&MIXED[2..], AddressError::NoPrefix),
            (short, AddressError::WrongLength { digits: 39 }),
            (&format!("{MIXED}0"), AddressError::WrongLength { digits: 41 }),
            ("0xg39Fd6e51aad88F6F4ce6aB8827279cffFb92266", AddressError::NotHex),
            ("0xéééééééééééééééééééééééééééééééééééééééé", AddressError::NotHex),
            (&format!("0x{}", "0".repeat(40)), AddressError::Zero),
        ] {
            assert_eq!(read(text), Err(error), "{text}");
            let told = error.to_string();
            assert!(!told.contains("junk") && !told.contains("abab"), "{told}");
        }
        assert!(AddressError::Name.to_string().contains("name.eth"));
    }

    #[test]
    fn a_forged_look_alike_is_told_from_another_address() {
        let one = RewardAddress::read(MIXED).unwrap().address;
        let forged = format!("0xf39f{}2266", "0".repeat(32));
        let forged = RewardAddress::read(&forged).unwrap().address;
        let other = RewardAddress::read(&format!("0x{}", "12".repeat(20))).unwrap().address;
        assert!(one.looks_like(&forged) && forged.looks_like(&one));
        assert!(!one.looks_like(&one) && !one.looks_like(&other));
    }

    #[test]
    fn what_was_pasted_must_be_what_is_saved() {
        let saved = RewardAddress::read(MIXED).unwrap().address;
        assert_eq!(is_what_was_pasted(&MIXED.to_lowercase(), &saved), Ok(true));
        let swapped = format!("0x{}", "12".repeat(20));
        assert_eq!(is_what_was_pasted(&swapped, &saved), Ok(false));
        assert_eq!(is_what_was_pasted("hello", &saved), Err(AddressError::NoPrefix));
    }

    #[test]
    fn miner_ids_are_read_and_submitted_in_lower_case() {
        let lower = MIXED.to_lowercase();
        for (text, submitted) in [
            (MIXED.to_owned(), lower.clone()),
            (format!("{MIXED}-Rig_1"), format!("{lower}-rig_1")),
            (format!(" {lower}-a-b "), format!("{lower}-a-b")),
        ] {
            assert_eq!(MinerId::read(&text).map(|id| id.submitted()), Ok(submitted), "{text}");
        }
        for bad in ["-", "-a b", "-é", &format!("-{}", "x".repeat(65))] {
            let id = MinerId::read(&format!("{lower}{bad}")).map(|id| id.submitted());
            assert_eq!(id, Err(AddressError::BadTag), "{bad}");
        }
        assert_eq!(MinerId::read("rig-1").err(), Some(AddressError::NoPrefix));
    }

    #[test]
    fn a_card_without_a_tag_is_named_by_its_uuid() {
        let uuid = "GPU-1A2B3C4d-0000-1111-2222-333344445555";
        let lower = MIXED.to_lowercase();
        let id = MinerId::read(MIXED).unwrap();
        assert_eq!(id.of_card(uuid).submitted(), format!("{lower}-1a2b3c"));
        assert_eq!(id.of_card("").submitted(), lower);
        let tagged = MinerId::read(&format!("{MIXED}-desk")).unwrap();
        assert_eq!(tagged.of_card(uuid).submitted(), format!("{lower}-desk"));
    }

    #[test]
    fn the_hourly_message_counts_whole_hours() {
        let lower = MIXED.to_lowercase();
        let address = RewardAddress::read(MIXED).unwrap().address;
        for (now, hour) in [(0, 0), (3599, 0), (3600, 3600), (1_714_659_999, 1_714_658_400)] {
            assert_eq!(address.hourly_message(now), format!("{lower}-{hour}"));
        }
    }
}
