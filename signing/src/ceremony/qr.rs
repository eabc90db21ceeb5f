// SPDX-License-Identifier: GPL-3.0-or-later
//! A digest as a QR code for a terminal.

use anyhow::{Context, Result};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use crate::digest::Sha256;

/// The whole digest in upper-case digits, as a QR code in half blocks: light on dark, as terminals are.
///
/// # Errors
/// When it cannot be encoded.
pub fn qr_code(digest: &Sha256) -> Result<String> {
    // Upper case, because QR packs those letters in five and a half bits each.
    let text = digest.to_string().to_ascii_uppercase();
    let code = QrCode::with_error_correction_level(text, EcLevel::M).context("making the QR code")?;
    let mut image = code.render::<Dense1x2>();
    Ok(image.dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a camera sees: each half block is one module, the blank border four wide.
    #[test]
    fn the_picture_has_the_modules_of_the_code() {
        let digest = Sha256::of(b"request");
        let code = QrCode::with_error_correction_level(digest.to_string().to_ascii_uppercase(), EcLevel::M).unwrap();
        let drawn = qr_code(&digest).unwrap();
        let rows: Vec<Vec<char>> = drawn.lines().map(|line| line.chars().collect()).collect();
        assert!(rows.iter().all(|row| row.len() == code.width() + 8 && row.len() <= 80));
        for (y, line) in code.to_colors().chunks(code.width()).enumerate() {
            for (x, color) in line.iter().enumerate() {
                let (row, upper) = ((y + 4) / 2, (y + 4) % 2 == 0);
                let lit = match rows[row][x + 4] {
                    '█' => true,
                    '▀' => upper,
                    '▄' => !upper,
                    ' ' => false,
                    other => panic!("{other}"),
                };
                assert_eq!(lit, *color == qrcode::Color::Light, "{x} {y}");
            }
        }
        assert_ne!(drawn, qr_code(&Sha256::of(b"Request")).unwrap());
    }
}
