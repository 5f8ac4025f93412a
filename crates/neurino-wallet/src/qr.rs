//! An address as a QR code, to be compared or taken over by a phone.

use std::fmt::Write as _;

use qrcodegen::{QrCode, QrCodeEcc};

/// A QR code as the path of an SVG: dark modules are squares of side one, light ones are left out.
/// Readers want a margin of four modules around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QrPath {
    /// Modules in a row.
    pub modules: u32,
    /// The `d` of an SVG path, from (0, 0) to (`modules`, `modules`).
    pub path: String,
}

/// The QR code of a short text, or `None` for one that no code holds.
pub fn qr_path(text: &str) -> Option<QrPath> {
    let code = QrCode::encode_text(text, QrCodeEcc::Medium).ok()?;
    let size = code.size();
    let mut path = String::new();
    for y in 0..size {
        let mut x = 0;
        while x < size {
            let run = (x..size).take_while(|&x| code.get_module(x, y)).count() as i32;
            if run > 0 {
                let _ = write!(path, "M{x} {y}h{run}v1h-{run}z");
            }
            x += run + 1;
        }
    }
    Some(QrPath { modules: size.unsigned_abs(), path })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    /// Draws the path again and compares with the code, module by module.
    #[test]
    fn the_path_draws_the_code() {
        let text = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
        let qr = qr_path(text).unwrap();
        let code = QrCode::encode_text(text, QrCodeEcc::Medium).unwrap();
        let side = qr.modules as usize;
        let mut drawn = vec![vec![false; side]; side];
        for square in qr.path.split('M').filter(|s| !s.is_empty()) {
            let (x, rest) = square.split_once(' ').unwrap();
            let (y, rest) = rest.split_once('h').unwrap();
            let (run, _) = rest.split_once('v').unwrap();
            let x: usize = x.parse().unwrap();
            for module in
                &mut drawn[y.parse::<usize>().unwrap()][x..x + run.parse::<usize>().unwrap()]
            {
                assert!(!*module);
                *module = true;
            }
        }
        for (y, row) in drawn.iter().enumerate() {
            for (x, dark) in row.iter().enumerate() {
                assert_eq!(*dark, code.get_module(x as i32, y as i32), "{x} {y}");
            }
        }
    }

    #[test]
    fn what_no_code_holds_is_none() {
        assert_eq!(qr_path(&"x".repeat(10_000)), None);
    }
}
