//! What a peer did wrong, and what it is told.

/// An error code of HTTP/2 (RFC 9113, section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code(pub u32);

impl Code {
    pub(super) const NO_ERROR: Self = Self(0);
    pub(super) const PROTOCOL_ERROR: Self = Self(1);
    pub(super) const INTERNAL_ERROR: Self = Self(2);
    pub(super) const FLOW_CONTROL_ERROR: Self = Self(3);
    pub(super) const STREAM_CLOSED: Self = Self(5);
    pub(super) const FRAME_SIZE_ERROR: Self = Self(6);
    pub(super) const REFUSED_STREAM: Self = Self(7);
    #[cfg(test)]
    pub(super) const CANCEL: Self = Self(8);
    pub(super) const COMPRESSION_ERROR: Self = Self(9);
    pub(super) const ENHANCE_YOUR_CALM: Self = Self(11);
}

/// Something that HTTP/2 does not allow.
#[derive(Debug)]
pub(super) enum Fault {
    /// Ends the connection; what is wrong goes into GOAWAY.
    Connection(Code, String),
    /// Ends the connection: frames that carry nothing, without end.
    Flood,
    /// Ends one stream.
    Stream(u32, Code),
}

impl Fault {
    /// One that ends the connection.
    pub(super) fn connection(code: Code, text: &str) -> Self {
        Self::Connection(code, text.to_owned())
    }
}
