//! Typed metadata values.

use super::cursor::Cursor;
use crate::WeightsError;

/// Lists may hold lists this deep.
const DEPTH_MAX: usize = 4;

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the variants are the format's types")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Text(String),
    Array(Array),
}

/// A list of values of one type, kept compact: the vocabulary alone has tens of thousands.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the variants are the format's types")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    Text(Vec<String>),
    Array(Vec<Array>),
}

impl Value {
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Self, WeightsError> {
        Ok(match cursor.u32()? {
            0 => Self::U8(u8::from_le_bytes(cursor.array()?)),
            1 => Self::I8(i8::from_le_bytes(cursor.array()?)),
            2 => Self::U16(u16::from_le_bytes(cursor.array()?)),
            3 => Self::I16(i16::from_le_bytes(cursor.array()?)),
            4 => Self::U32(cursor.u32()?),
            5 => Self::I32(i32::from_le_bytes(cursor.array()?)),
            6 => Self::F32(f32::from_le_bytes(cursor.array()?)),
            7 => Self::Bool(cursor.array::<1>()? != [0]),
            8 => Self::Text(cursor.string()?),
            9 => Self::Array(Array::read(cursor, DEPTH_MAX)?),
            10 => Self::U64(cursor.u64()?),
            11 => Self::I64(i64::from_le_bytes(cursor.array()?)),
            12 => Self::F64(f64::from_le_bytes(cursor.array()?)),
            other => return Err(cursor.corrupt(format!("it has a value of unknown type {other}"))),
        })
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Any integer that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(n) => Some(n.into()),
            Self::U16(n) => Some(n.into()),
            Self::U32(n) => Some(n.into()),
            Self::U64(n) => Some(n),
            Self::I8(n) => n.try_into().ok(),
            Self::I16(n) => n.try_into().ok(),
            Self::I32(n) => n.try_into().ok(),
            Self::I64(n) => n.try_into().ok(),
            _ => None,
        }
    }

    /// A float of either width.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(x) => Some(x.into()),
            Self::F64(x) => Some(x),
            _ => None,
        }
    }

    /// True or false.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(flag) => Some(flag),
            _ => None,
        }
    }

    /// A list of texts.
    pub fn as_texts(&self) -> Option<&[String]> {
        match self {
            Self::Array(Array::Text(texts)) => Some(texts),
            _ => None,
        }
    }

    /// A list of 32-bit integers.
    pub fn as_i32s(&self) -> Option<&[i32]> {
        match self {
            Self::Array(Array::I32(numbers)) => Some(numbers),
            _ => None,
        }
    }

    /// A list of 32-bit floats.
    pub fn as_f32s(&self) -> Option<&[f32]> {
        match self {
            Self::Array(Array::F32(numbers)) => Some(numbers),
            _ => None,
        }
    }
}

impl Array {
    fn read(cursor: &mut Cursor<'_>, depth: usize) -> Result<Self, WeightsError> {
        Ok(match cursor.u32()? {
            0 => Self::U8(list(cursor, u8::from_le_bytes)?),
            1 => Self::I8(list(cursor, i8::from_le_bytes)?),
            2 => Self::U16(list(cursor, u16::from_le_bytes)?),
            3 => Self::I16(list(cursor, i16::from_le_bytes)?),
            4 => Self::U32(list(cursor, u32::from_le_bytes)?),
            5 => Self::I32(list(cursor, i32::from_le_bytes)?),
            6 => Self::F32(list(cursor, f32::from_le_bytes)?),
            7 => Self::Bool(list(cursor, |byte: [u8; 1]| byte != [0])?),
            8 => {
                let count = cursor.count("texts", 8)?;
                Self::Text((0..count).map(|_| cursor.string()).collect::<Result<_, _>>()?)
            }
            9 => {
                if depth == 0 {
                    return Err(cursor.corrupt("its lists are nested too deep"));
                }
                let count = cursor.count("lists", 12)?;
                let lists = (0..count).map(|_| Self::read(cursor, depth - 1));
                Self::Array(lists.collect::<Result<_, _>>()?)
            }
            10 => Self::U64(list(cursor, u64::from_le_bytes)?),
            11 => Self::I64(list(cursor, i64::from_le_bytes)?),
            12 => Self::F64(list(cursor, f64::from_le_bytes)?),
            other => return Err(cursor.corrupt(format!("it has a list of unknown type {other}"))),
        })
    }
}

fn list<const N: usize, T>(
    cursor: &mut Cursor<'_>,
    read: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, WeightsError> {
    let count = cursor.count("values in a list", N as u64)?;
    let bytes = cursor.take(count * N)?;
    Ok(bytes.as_chunks::<N>().0.iter().map(|&chunk| read(chunk)).collect())
}
