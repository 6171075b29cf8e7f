//! A plot as SVG.

use std::fmt::Write as _;

use super::canvas::{Anchor, Canvas, Color};

/// The plot so far.
pub(super) struct Svg {
    body: String,
}

impl Svg {
    /// An empty one.
    pub(super) fn new(width: u32, height: u32) -> Self {
        let mut body = String::new();
        let _ = writeln!(
            body,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"monospace\" font-size=\"13\">"
        );
        Self { body }
    }

    /// The file's content.
    pub(super) fn finish(mut self) -> String {
        self.body.push_str("</svg>\n");
        self.body
    }
}

fn hex(color: Color) -> String {
    format!("#{:02x}{:02x}{:02x}", color[0], color[1], color[2])
}

impl Canvas for Svg {
    fn rectangle(&mut self, [left, top, width, height]: [f64; 4], color: Color) {
        let _ = writeln!(
            self.body,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{}\"/>",
            hex(color)
        );
    }

    fn lines(&mut self, points: &[(f64, f64)], color: Color, width: f64) {
        let mut path = String::new();
        for (x, y) in points {
            let _ = write!(path, "{x:.1},{y:.1} ");
        }
        let _ = writeln!(
            self.body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\" stroke-linejoin=\"round\"/>",
            path.trim_end(),
            hex(color)
        );
    }

    fn text(&mut self, (x, y): (f64, f64), text: &str, anchor: Anchor, color: Color) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::End => "end",
        };
        let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{}\">{escaped}</text>",
            hex(color)
        );
    }
}
