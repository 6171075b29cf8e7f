//! Headers of requests and answers: HPACK (RFC 7541), and what HTTP/2 asks of them (RFC 9113, section 8).

use bytes::{BufMut, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use loona_hpack::Decoder;

use super::fault::{Code, Fault};
use super::huffman;

/// The largest dynamic table that a peer may use until it knows of our settings.
const DEFAULT_TABLE_BYTES: usize = 4096;
/// What a header counts beside its name and value (RFC 9113, section 6.5.2).
const ENTRY_BYTES: usize = 32;
/// Headers of a connection, which mean nothing in HTTP/2 and must not come (section 8.2.2).
const OF_A_CONNECTION: [&[u8]; 5] = [
    b"connection",
    b"proxy-connection",
    b"keep-alive",
    b"transfer-encoding",
    b"upgrade",
];

/// The head of a request.
#[derive(Debug)]
pub(super) struct Head {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    /// Bytes that the body will have, where that was said.
    pub content_length: Option<u64>,
}

/// What a block of headers is.
#[derive(Debug)]
pub(super) enum Block {
    /// A request's.
    Request(Box<Head>),
    /// Not what HTTP/2 allows: the stream ends.
    Malformed,
    /// More than `max_list_bytes`.
    TooLarge,
}

/// Reads the headers of one connection. A peer that keeps no table costs no memory between two blocks.
#[derive(Default)]
pub(super) struct HeaderReader {
    /// None before the first block, and once the peer may not keep a table any more.
    decoder: Option<Box<Decoder<'static>>>,
    /// The peer knows that it may not keep a table.
    is_tableless: bool,
}

impl HeaderReader {
    /// The peer has acknowledged that its table has no room.
    pub(super) fn forget(&mut self) {
        self.is_tableless = true;
        self.decoder = None;
    }

    /// Reads a whole block.
    ///
    /// # Errors
    /// It cannot be decoded; nothing that follows could.
    pub(super) fn request(&mut self, block: &[u8], max_list_bytes: usize) -> Result<Block, Fault> {
        let mut reading = Reading::default();
        self.decode(block, max_list_bytes, &mut reading)?;
        Ok(reading.finish(max_list_bytes))
    }

    /// Reads the trailers of a request, which say nothing here. False where they are malformed.
    ///
    /// # Errors
    /// They cannot be decoded.
    pub(super) fn trailers(&mut self, block: &[u8], max_list_bytes: usize) -> Result<bool, Fault> {
        let mut reading = Reading::default();
        self.decode(block, max_list_bytes, &mut reading)?;
        Ok(!reading.is_malformed && !reading.has_pseudo)
    }

    fn decode(&mut self, block: &[u8], max_list_bytes: usize, reading: &mut Reading) -> Result<(), Fault> {
        let plain = huffman::plain(block).ok_or_else(|| {
            Fault::connection(Code::COMPRESSION_ERROR, "a string is not in the Huffman code")
        })?;
        let mut decoder = self.decoder.take().unwrap_or_else(|| {
            let mut decoder = Box::new(Decoder::new());
            let most = if self.is_tableless { 0 } else { DEFAULT_TABLE_BYTES };
            decoder.set_max_allowed_table_size(most);
            decoder.set_max_table_size(most);
            decoder
        });
        decoder
            .decode_with_cb(&plain, |name, value| reading.field(&name, &value, max_list_bytes))
            .map_err(|error| Fault::Connection(Code::COMPRESSION_ERROR, error.to_string()))?;
        if !self.is_tableless {
            self.decoder = Some(decoder);
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Reading {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
    headers: HeaderMap,
    bytes: usize,
    has_pseudo: bool,
    has_fields: bool,
    is_malformed: bool,
}

impl Reading {
    fn field(&mut self, name: &[u8], value: &[u8], max_list_bytes: usize) {
        self.bytes += name.len() + value.len() + ENTRY_BYTES;
        if self.bytes > max_list_bytes || self.is_malformed {
            return;
        }
        let read = match name.strip_prefix(b":") {
            Some(pseudo) => self.pseudo(pseudo, value),
            None => self.ordinary(name, value),
        };
        self.is_malformed = read.is_none();
    }

    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        if self.has_fields {
            return None;
        }
        self.has_pseudo = true;
        match name {
            b"method" => once(&mut self.method, Method::from_bytes(value).ok()?),
            b"scheme" => once(&mut self.scheme, Scheme::try_from(value).ok()?),
            b"authority" => once(&mut self.authority, Authority::try_from(value).ok()?),
            b"path" => once(&mut self.path, PathAndQuery::try_from(value).ok()?),
            _ => None,
        }
    }

    fn ordinary(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        self.has_fields = true;
        let is_trailers = value == b"trailers";
        if name.iter().any(u8::is_ascii_uppercase)
            || OF_A_CONNECTION.contains(&name)
            || (name == TE.as_str().as_bytes() && !is_trailers)
        {
            return None;
        }
        let name = HeaderName::from_bytes(name).ok()?;
        let value = HeaderValue::from_bytes(value).ok()?;
        self.headers.append(name, value);
        Some(())
    }

    fn finish(self, max_list_bytes: usize) -> Block {
        if self.bytes > max_list_bytes {
            return Block::TooLarge;
        }
        self.head()
            .map_or(Block::Malformed, |head| Block::Request(Box::new(head)))
    }

    fn head(self) -> Option<Head> {
        if self.is_malformed {
            return None;
        }
        let mut uri = Uri::builder().path_and_query(self.path?);
        match self.authority {
            Some(authority) => uri = uri.scheme(self.scheme?).authority(authority),
            None => drop(self.scheme?),
        }
        let content_length = match self.headers.get(CONTENT_LENGTH) {
            Some(length) => Some(length.to_str().ok()?.parse().ok()?),
            None => None,
        };
        Some(Head {
            method: self.method?,
            uri: uri.build().ok()?,
            headers: self.headers,
            content_length,
        })
    }
}

/// A pseudo-header comes once.
fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// Indices of HPACK's static table (RFC 7541, appendix A).
const STATUS_200: u8 = 0x80 | 8;
const STATUS: u8 = 8;
const CONTENT_TYPE_INDEX: u8 = 31;

/// Puts the head of an answer, without a table.
pub(super) fn put_head(out: &mut BytesMut, status: StatusCode, headers: &HeaderMap) {
    if status == StatusCode::OK {
        out.put_u8(STATUS_200);
    } else {
        out.put_u8(STATUS);
        put_string(out, status.as_str().as_bytes());
    }
    put_fields(out, headers);
}

/// Puts headers or trailers, without a table.
pub(super) fn put_fields(out: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        if name == CONTENT_TYPE {
            put_integer(out, 0, 4, usize::from(CONTENT_TYPE_INDEX));
        } else {
            out.put_u8(0);
            put_string(out, name.as_str().as_bytes());
        }
        put_string(out, value.as_bytes());
    }
}

fn put_string(out: &mut BytesMut, bytes: &[u8]) {
    put_integer(out, 0, 7, bytes.len());
    out.extend_from_slice(bytes);
}

/// An integer with a prefix of `bits` bits below `flags` (RFC 7541, section 5.1).
fn put_integer(out: &mut BytesMut, flags: u8, bits: u32, value: usize) {
    let most = (1usize << bits) - 1;
    if value < most {
        out.put_u8(flags | value as u8);
        return;
    }
    out.put_u8(flags | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        out.put_u8(0x80 | (rest % 128) as u8);
        rest /= 128;
    }
    out.put_u8(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 16 << 10;

    fn block(fields: &[(&str, &str)]) -> BytesMut {
        let mut out = BytesMut::new();
        for (name, value) in fields {
            out.put_u8(0);
            put_string(&mut out, name.as_bytes());
            put_string(&mut out, value.as_bytes());
        }
        out
    }

    fn request(more: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut fields = vec![
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/a.B/C"),
            (":authority", "broker:9092"),
        ];
        fields.extend(more);
        fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    fn read(fields: &[(String, String)]) -> Block {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        HeaderReader::default().request(&block(&fields), MOST).unwrap()
    }

    #[test]
    fn a_request_is_read_with_its_path_authority_and_headers() {
        let more = [
            ("te", "trailers"),
            ("content-length", "7"),
            ("x-a", "1"),
            ("x-a", "2"),
        ];
        let Block::Request(head) = read(&request(&more)) else {
            panic!("not a request")
        };
        assert_eq!(head.method, Method::POST);
        assert_eq!(head.uri, "http://broker:9092/a.B/C");
        assert_eq!(head.headers.get_all("x-a").iter().count(), 2);
        assert_eq!(head.content_length, Some(7));
    }

    #[test]
    fn what_http_2_does_not_allow_in_headers_is_malformed() {
        let bad = [
            ("X-Upper", "1"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
            (":method", "GET"),
            (":status", "200"),
            ("content-length", "many"),
            ("x y", "1"),
            ("x-a", "\n"),
            ("", "1"),
        ];
        for field in bad {
            assert!(matches!(read(&request(&[field])), Block::Malformed), "{field:?}");
        }
        for missing in 0..3 {
            let mut fields = request(&[]);
            fields.remove(missing);
            assert!(matches!(read(&fields), Block::Malformed), "without {missing}");
        }
        let mut late = request(&[("x-a", "1")]);
        late.swap(3, 4);
        assert!(matches!(read(&late), Block::Malformed));
    }

    #[test]
    fn a_list_longer_than_the_limit_is_told_from_a_malformed_one() {
        let long = "x".repeat(MOST);
        assert!(matches!(read(&request(&[("x-long", &long)])), Block::TooLarge));
        assert!(matches!(
            read(&request(&[("x-long", &long), ("X-Upper", "1")])),
            Block::TooLarge
        ));
    }

    #[test]
    fn what_is_put_is_decoded_again_by_another_implementation() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-message", HeaderValue::from_str(&"m".repeat(300)).unwrap());
        let mut out = BytesMut::new();
        put_head(&mut out, StatusCode::NOT_FOUND, &headers);
        put_head(&mut out, StatusCode::OK, &HeaderMap::new());
        let fields = Decoder::new().decode(&out).unwrap();
        let expected = [
            (":status", "404".to_owned()),
            ("content-type", "application/grpc".to_owned()),
            ("grpc-message", "m".repeat(300)),
            (":status", "200".to_owned()),
        ];
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| {
                (
                    str::from_utf8(name).unwrap(),
                    String::from_utf8(value.clone()).unwrap(),
                )
            })
            .collect();
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_table_is_kept_until_the_peer_knows_that_it_may_not() {
        // `x: y` with indexing, and then by its index.
        let indexed = [0x40, 1, b'x', 1, b'y'];
        let again = [0x80 | 62];
        let mut reader = HeaderReader::default();
        assert!(reader.trailers(&indexed, MOST).unwrap());
        assert!(reader.trailers(&again, MOST).unwrap());
        reader.forget();
        assert!(reader.trailers(&again, MOST).is_err());
        let literal = [0, 1, b'x', 1, b'y'];
        let smaller = [&[0x20][..], &literal].concat();
        assert!(reader.trailers(&smaller, MOST).is_ok());
        let larger = [&[0x3f, 1][..], &literal].concat();
        assert!(reader.trailers(&larger, MOST).is_err());
    }
}
