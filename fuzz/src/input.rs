//! What the input decides, taken from its bytes one after the other.

/// The rest of an input. Where it is used up, everything is zero.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of an input.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    /// The next two bytes.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Yes or no, from a byte.
    pub fn flag(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// A number from `low` to `high`, both included, of which a byte or two tell where it lies.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        match high - low {
            0 => low,
            span @ 1..=255 => low + u64::from(self.byte()) % (span + 1),
            span @ 256..=65_535 => low + u64::from(self.short()) % (span + 1),
            // The ends, what is near the lower one, and whatever lies between.
            span => match self.byte() % 4 {
                0 => low,
                1 => high,
                2 => low + u64::from(self.short()).min(span),
                _ => low + (u128::from(self.short()) * u128::from(span) / 65_535) as u64,
            },
        }
    }

    /// The same as 32 bits.
    pub fn between32(&mut self, low: u32, high: u32) -> u32 {
        self.between(low.into(), high.into()) as u32
    }

    /// Any number: the likely and the extreme ones alike.
    pub fn number(&mut self) -> u64 {
        let kind = self.byte();
        match kind % 6 {
            0 => 0,
            1 => u64::MAX,
            2 => self.short().into(),
            // Nanoseconds, bytes.
            3 => u64::from(self.short()) << 20,
            4 => 1 << (kind / 6),
            _ => u64::MAX - u64::from(self.short()),
        }
    }

    /// One of these.
    pub fn one_of<T: Copy, const N: usize>(&mut self, all: [T; N]) -> T {
        all[usize::from(self.byte()) % N]
    }
}
