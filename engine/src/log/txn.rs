//! What a transaction is called, and how urgent it is.

use crate::error::{Error, Result};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TxnId {
    /// The incarnation that made it and a count: short in the log, unique for ever.
    Generated {
        incarnation: u64,
        count: u64,
    },
    Given(String),
}

impl TxnId {
    pub fn text(&self) -> String {
        match self {
            Self::Generated { incarnation, count } => {
                // By hand: every commit's audit leaf holds it.
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let digit = |shift: u32| HEX[(incarnation >> shift) as usize & 15];
                let mut text = String::with_capacity(28);
                text.extend((0..16).rev().map(|place| char::from(digit(place * 4))));
                text.push('-');
                text.push_str(&count.to_string());
                text
            }
            Self::Given(text) => text.clone(),
        }
    }

    /// What a text names: ids of the generated form are taken for generated ones.
    pub fn parse(text: &str) -> Self {
        let generated = || {
            let (incarnation, count) = text.split_once('-')?;
            let incarnation = u64::from_str_radix(incarnation, 16).ok()?;
            Some(Self::Generated { incarnation, count: count.parse().ok()? })
        };
        let known = generated().filter(|id| id.text() == text);
        known.unwrap_or_else(|| Self::Given(text.to_owned()))
    }

    /// Bytes to find it by; two ids with one text have one key.
    pub fn key(&self) -> Vec<u8> {
        match self {
            Self::Generated { incarnation, count } => {
                let mut key = Vec::with_capacity(17);
                key.push(0);
                key.extend_from_slice(&incarnation.to_be_bytes());
                key.extend_from_slice(&count.to_be_bytes());
                key
            }
            Self::Given(text) => match Self::parse(text) {
                generated @ Self::Generated { .. } => generated.key(),
                Self::Given(_) => [b"\x01", text.as_bytes()].concat(),
            },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Priority {
    #[default]
    Routine = 0,
    Critical = 1,
    Background = 2,
}

impl Priority {
    pub fn name(self) -> &'static str {
        match self {
            Self::Routine => "routine",
            Self::Critical => "critical",
            Self::Background => "background",
        }
    }

    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "routine" => Ok(Self::Routine),
            "critical" => Ok(Self::Critical),
            "background" => Ok(Self::Background),
            _ => Err(Error::argument(format!(
                "priority {text:?} is not one of \"critical\", \"routine\", \"background\""
            ))),
        }
    }
}
