//! What a plot is drawn on: the same strokes as SVG and as PNG.

/// Red, green, blue.
pub(super) type Color = [u8; 3];

/// Which point of a text its place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    /// Its left end.
    Start,
    /// Its right end.
    End,
}

/// Takes strokes; places are in pixels from the top left.
pub(super) trait Canvas {
    /// A filled rectangle: left, top, width, height.
    fn rectangle(&mut self, place: [f64; 4], color: Color);
    /// Lines from point to point.
    fn lines(&mut self, points: &[(f64, f64)], color: Color, width: f64);
    /// A line of text with its baseline at a place.
    fn text(&mut self, place: (f64, f64), text: &str, anchor: Anchor, color: Color);
}
