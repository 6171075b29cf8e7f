//! A plot as PNG. The font is part of the executable: a container has none.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use tiny_skia::{
    LineCap, LineJoin, Paint, PathBuilder, Pixmap, PremultipliedColorU8, Rect, Stroke, Transform,
};

use super::canvas::{Anchor, Canvas, Color};

const WEIGHT: FontWeight = FontWeight::Regular;
const HEIGHT: RasterHeight = RasterHeight::Size16;
/// From the top of a glyph to its baseline, in pixels.
const ASCENT: i32 = 13;

/// The plot so far.
pub(super) struct Png {
    pixels: Pixmap,
}

impl Png {
    /// An empty one; `None` for a size of nothing.
    pub(super) fn new(width: u32, height: u32) -> Option<Self> {
        Pixmap::new(width, height).map(|pixels| Self { pixels })
    }

    /// The file's content.
    pub(super) fn finish(&self) -> Result<Vec<u8>, String> {
        self.pixels.encode_png().map_err(|error| error.to_string())
    }

    /// Blends a pixel of text over what is there; the background is opaque.
    fn blend(&mut self, x: i32, y: i32, coverage: u8, color: Color) {
        let (width, height) = (self.pixels.width() as i32, self.pixels.height() as i32);
        if coverage == 0 || !(0..width).contains(&x) || !(0..height).contains(&y) {
            return;
        }
        let Some(pixel) = self.pixels.pixels_mut().get_mut((y * width + x) as usize) else {
            return;
        };
        let mix = |under: u8, over: u8| {
            let part = u16::from(coverage);
            ((u16::from(under) * (255 - part) + u16::from(over) * part) / 255) as u8
        };
        let mixed = PremultipliedColorU8::from_rgba(
            mix(pixel.red(), color[0]),
            mix(pixel.green(), color[1]),
            mix(pixel.blue(), color[2]),
            255,
        );
        if let Some(mixed) = mixed {
            *pixel = mixed;
        }
    }
}

fn paint(color: Color) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color_rgba8(color[0], color[1], color[2], 255);
    paint.anti_alias = true;
    paint
}

impl Canvas for Png {
    fn rectangle(&mut self, [left, top, width, height]: [f64; 4], color: Color) {
        let rectangle = Rect::from_xywh(left as f32, top as f32, width as f32, height as f32);
        if let Some(rectangle) = rectangle {
            self.pixels
                .fill_rect(rectangle, &paint(color), Transform::identity(), None);
        }
    }

    fn lines(&mut self, points: &[(f64, f64)], color: Color, width: f64) {
        let mut builder = PathBuilder::new();
        for (index, (x, y)) in points.iter().enumerate() {
            if index == 0 {
                builder.move_to(*x as f32, *y as f32);
            } else {
                builder.line_to(*x as f32, *y as f32);
            }
        }
        let stroke = Stroke {
            width: width as f32,
            line_cap: LineCap::Butt,
            line_join: LineJoin::Round,
            ..Stroke::default()
        };
        if let Some(path) = builder.finish() {
            self.pixels
                .stroke_path(&path, &paint(color), &stroke, Transform::identity(), None);
        }
    }

    fn text(&mut self, (x, y): (f64, f64), text: &str, anchor: Anchor, color: Color) {
        let advance = get_raster_width(WEIGHT, HEIGHT) as i32;
        let mut left = x.round() as i32;
        if anchor == Anchor::End {
            left -= advance * text.chars().count() as i32;
        }
        let top = y.round() as i32 - ASCENT;
        for character in text.chars() {
            let glyph = get_raster(character, WEIGHT, HEIGHT).or_else(|| get_raster('?', WEIGHT, HEIGHT));
            for (row, line) in glyph.iter().flat_map(|glyph| glyph.rows().enumerate()) {
                for (column, coverage) in line.iter().enumerate() {
                    self.blend(left + column as i32, top + row as i32, *coverage, color);
                }
            }
            left += advance;
        }
    }
}
