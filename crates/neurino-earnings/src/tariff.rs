//! The price of energy that the person set, in a small file.

use std::path::Path;

use neurino_protocol::earnings::Tariff;

use crate::error::{RecordError, replace};

/// Dearest price taken seriously, in millionths of the currency's unit: a million units, since some
/// currencies count a kilowatt hour in thousands.
const KWH_MICRO_MAX: u64 = 1_000_000_000_000;

/// Reads the price; none where there is no file or it is damaged.
pub fn load(path: &Path) -> Option<Tariff> {
    let bytes = std::fs::read(path).ok()?;
    let tariff = serde_json::from_slice(&bytes).ok()?;
    check(&tariff).is_ok().then_some(tariff)
}

/// Keeps a price, or forgets it.
///
/// # Errors
/// [`RecordError::Tariff`] for a price or currency that means nothing; [`RecordError::Io`].
pub fn save(path: &Path, tariff: Option<&Tariff>) -> Result<(), RecordError> {
    let Some(tariff) = tariff else {
        return match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(RecordError::io("remove", path)(error))
            }
            _ => Ok(()),
        };
    };
    check(tariff)?;
    replace(path, &serde_json::to_vec(tariff).expect("strings and integers always serialise"))
}

fn check(tariff: &Tariff) -> Result<(), RecordError> {
    let currency = tariff.currency.trim();
    if currency.is_empty() || currency.chars().count() > 8 || currency.contains(char::is_control) {
        return Err(RecordError::Tariff("the currency is one to eight characters, such as EUR"));
    }
    if tariff.kwh_micro > KWH_MICRO_MAX {
        return Err(RecordError::Tariff("the price of a kilowatt hour is 0 to 1000000"));
    }
    Ok(())
}

/// What energy costs at a price, in millionths of the currency's unit, rounded down.
pub fn cost_micro(used_mj: u64, tariff: &Tariff) -> u64 {
    let cost = u128::from(used_mj) * u128::from(tariff.kwh_micro) / 3_600_000_000;
    u64::try_from(cost).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_kept_forgotten_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tariff.json");
        assert_eq!(load(&path), None);
        save(&path, None).unwrap();
        let tariff = Tariff { kwh_micro: 320_000, currency: "EUR".into() };
        save(&path, Some(&tariff)).unwrap();
        assert_eq!(load(&path), Some(tariff.clone()));
        assert_eq!(cost_micro(3_600_000_000, &tariff), 320_000);
        assert_eq!(cost_micro(1_800_000, &tariff), 160);
        save(&path, None).unwrap();
        assert_eq!(load(&path), None);
        let mut dong = tariff.clone();
        (dong.kwh_micro, dong.currency) = (2_500_000_000, "VND".into());
        save(&path, Some(&dong)).unwrap();
        assert_eq!(load(&path), Some(dong));
        for (kwh_micro, currency) in [(1, ""), (1, "a currency"), (2_000_000_000_000, "EUR")] {
            let wrong = Tariff { kwh_micro, currency: currency.into() };
            assert!(save(&path, Some(&wrong)).is_err(), "{wrong:?}");
        }
        std::fs::write(&path, "{").unwrap();
        assert_eq!(load(&path), None);
    }
}
