//! Strings in Huffman's code, as blocks of headers have them (RFC 7541, section 5.2).
//!
//! The decoder of headers builds the code anew for every string, and looks up every bit of it (decision 0031). So it gets
//! blocks in which all strings are plain.

/// The bits of each symbol's code (RFC 7541, appendix B); 256 is the end of the string. The code is canonical: within a length the
/// codes go on by one in the order of the symbols.
const BITS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];
const SYMBOLS: usize = 257;
const END: u16 = 256;
const MOST_BITS: usize = 30;

/// The code by length.
struct Code {
    /// What the next 32 bits are below of where the next code has at most so many bits.
    limits: [u64; MOST_BITS + 1],
    /// The first code of each length, and the place of its symbol.
    first: [u32; MOST_BITS + 1],
    place: [usize; MOST_BITS + 1],
    /// By length, and within that by code.
    symbols: [u16; SYMBOLS],
}

static CODE: Code = Code::new();

impl Code {
    const fn new() -> Self {
        let mut code = Self {
            limits: [0; MOST_BITS + 1],
            first: [0; MOST_BITS + 1],
            place: [0; MOST_BITS + 1],
            symbols: [0; SYMBOLS],
        };
        let (mut next, mut count, mut bits) = (0u32, 0, 1);
        while bits <= MOST_BITS {
            next <<= 1;
            code.first[bits] = next;
            code.place[bits] = count;
            let mut symbol = 0;
            while symbol < SYMBOLS {
                if BITS[symbol] as usize == bits {
                    code.symbols[count] = symbol as u16;
                    count += 1;
                    next += 1;
                }
                symbol += 1;
            }
            code.limits[bits] = (next as u64) << (32 - bits);
            bits += 1;
        }
        code
    }

    /// The symbol whose code these 32 bits begin with, and its length.
    fn look(&self, window: u32) -> (u16, usize) {
        let is_longer = |bits: &usize| u64::from(window) >= self.limits[*bits];
        let bits = (5..MOST_BITS).find(|bits| !is_longer(bits)).unwrap_or(MOST_BITS);
        let nth = (window >> (32 - bits)) - self.first[bits];
        (self.symbols[self.place[bits] + nth as usize], bits)
    }
}

/// Decodes a string into `out`. False where it is not in the code: it has the end in it, or does not end in at most seven ones.
fn decode(coded: &[u8], out: &mut Vec<u8>) -> bool {
    let (mut held, mut count) = (0u64, 0);
    let mut coded = coded.iter();
    loop {
        while count <= 32
            && let Some(byte) = coded.next()
        {
            held = held << 8 | u64::from(*byte);
            count += 8;
        }
        let window = match count {
            0 => return true,
            32.. => (held >> (count - 32)) as u32,
            _ => (held << (32 - count)) as u32 | u32::MAX >> count,
        };
        let (symbol, bits) = CODE.look(window);
        if bits > count {
            return count < 8 && window == u32::MAX;
        }
        if symbol == END {
            return false;
        }
        out.push(symbol as u8);
        count -= bits;
    }
}

/// The same block of headers with all strings plain. `None` where one is not in the code; what else is wrong with the block is left
/// as it is.
pub(super) fn plain(block: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(2 * block.len());
    let (mut rest, mut string) = (block, Vec::new());
    'fields: while let [first, ..] = *rest {
        // The bits of the number that the field begins with, and how many strings follow (section 6).
        let (prefix, strings) = match first {
            0x80.. => (7, 0),
            0x40.. => (6, if first == 0x40 { 2 } else { 1 }),
            0x20.. => (5, 0),
            _ => (4, if first & 0x0f == 0 { 2 } else { 1 }),
        };
        let Some((_, length)) = number(rest, prefix) else {
            break;
        };
        out.extend_from_slice(&rest[..length]);
        rest = &rest[length..];
        for _ in 0..strings {
            let Some((size, length)) = number(rest, 7) else {
                break 'fields;
            };
            let Some(coded) = rest.get(length..length + size) else {
                break 'fields;
            };
            if rest[0] & 0x80 == 0 {
                out.extend_from_slice(&rest[..length + size]);
            } else {
                string.clear();
                if !decode(coded, &mut string) {
                    return None;
                }
                put_number(&mut out, string.len());
                out.extend_from_slice(&string);
            }
            rest = &rest[length + size..];
        }
    }
    out.extend_from_slice(rest);
    Some(out)
}

/// A number in the last bits of the first byte, and in those that follow (section 5.1); and its length. `None` where it does not end, or is
/// larger than any that makes sense.
fn number(bytes: &[u8], prefix: u32) -> Option<(usize, usize)> {
    let most = (1 << prefix) - 1;
    let first = usize::from(*bytes.first()?) & most;
    if first < most {
        return Some((first, 1));
    }
    let mut value = first;
    for (at, byte) in bytes.iter().enumerate().skip(1).take(4) {
        value += usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

/// A plain string's length.
fn put_number(out: &mut Vec<u8>, value: usize) {
    const MOST: usize = 0x7f;
    if value < MOST {
        return out.push(value as u8);
    }
    out.push(MOST as u8);
    let mut left = value - MOST;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

#[cfg(test)]
mod tests {
    use loona_hpack::Decoder;
    use loona_hpack::huffman::HuffmanDecoder;
    use proptest::prelude::*;

    use super::*;

    fn encode(text: &[u8]) -> Vec<u8> {
        let code_of = |symbol: u16| {
            let bits = usize::from(BITS[usize::from(symbol)]);
            let place = CODE.symbols.iter().position(|other| *other == symbol).unwrap();
            (CODE.first[bits] + (place - CODE.place[bits]) as u32, bits)
        };
        let mut bits: Vec<bool> = Vec::new();
        for byte in text {
            let (code, length) = code_of(u16::from(*byte));
            bits.extend((0..length).rev().map(|at| code >> at & 1 == 1));
        }
        bits.resize(bits.len().next_multiple_of(8), true);
        let byte = |eight: &[bool]| eight.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
        bits.chunks(8).map(byte).collect()
    }

    /// As another implementation says.
    fn fields(block: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        Decoder::new().decode(block).ok()
    }

    #[test]
    fn the_example_of_the_specification_is_decoded() {
        let coded = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        let mut out = Vec::new();
        assert!(decode(&coded, &mut out));
        assert_eq!(out, b"www.example.com");
    }

    proptest! {
        #[test]
        fn another_implementation_decodes_the_same(coded in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..12),
            proptest::collection::vec(prop_oneof![Just(0xff), any::<u8>()], 0..12),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(|text| encode(&text)),
        ]) {
            let mut out = Vec::new();
            let ours = decode(&coded, &mut out).then_some(out);
            prop_assert_eq!(ours, HuffmanDecoder::new().decode(&coded).ok());
        }

        #[test]
        fn any_text_comes_out_again(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            prop_assert!(decode(&encode(&text), &mut out));
            prop_assert_eq!(out, text);
        }

        #[test]
        fn a_plain_block_says_the_same(block in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..30),
            proptest::collection::vec((prop_oneof![Just(0x40u8), Just(0), Just(0x10), Just(0x44), Just(0x0f)], proptest::collection::vec(any::<u8>(), 0..200), any::<bool>()), 0..5).prop_map(|fields| {
                let mut block = Vec::new();
                for (kind, text, is_coded) in fields {
                    block.push(kind);
                    if kind == 0x0f {
                        block.push(1);
                    }
                    for _ in 0..if kind & 0x0f == 0 { 2 } else { 1 } {
                        let string = if is_coded { encode(&text) } else { text.clone() };
                        let at = block.len();
                        put_number(&mut block, string.len());
                        block[at] |= u8::from(is_coded) << 7;
                        block.extend(string);
                    }
                }
                block
            }),
        ]) {
            let expected = fields(&block);
            match plain(&block) {
                Some(plain) => {
                    prop_assert_eq!(fields(&plain), expected);
                    prop_assert_eq!(super::plain(&plain), Some(plain));
                }
                None => prop_assert_eq!(expected, None),
            }
        }
    }
}
