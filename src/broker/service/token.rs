//! Tokens of a subscription that brings other brokers' messages name the broker that issued them.

use bytes::{BufMut, Bytes, BytesMut};

/// `token` with the broker's name before it. An empty name is this broker.
pub(super) fn wrap(broker: &str, token: &[u8]) -> Bytes {
    let name = broker.as_bytes().get(..broker.len().min(255)).unwrap_or_default();
    let mut wrapped = BytesMut::with_capacity(1 + name.len() + token.len());
    wrapped.put_u8(name.len() as u8);
    wrapped.put_slice(name);
    wrapped.put_slice(token);
    wrapped.freeze()
}

/// The broker's name and its token; `None` if it is not such a token.
pub(super) fn unwrap(wrapped: &Bytes) -> Option<(&str, Bytes)> {
    let length = usize::from(*wrapped.first()?);
    let name = std::str::from_utf8(wrapped.get(1..=length)?).ok()?;
    Some((name, wrapped.slice(length + 1..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_token_comes_back_and_garbage_is_none() {
        let wrapped = wrap("orders-1", b"abc");
        assert_eq!(unwrap(&wrapped), Some(("orders-1", Bytes::from_static(b"abc"))));
        assert_eq!(unwrap(&wrap("", b"")), Some(("", Bytes::new())));
        assert_eq!(unwrap(&Bytes::from_static(&[9, 1])), None);
        assert_eq!(unwrap(&Bytes::new()), None);
    }
}
