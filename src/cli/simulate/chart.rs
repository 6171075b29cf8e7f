//! The plot: what came in, what the brokers could do, how many there were, how long messages waited.

use super::canvas::{Anchor, Canvas, Color};
use super::png::Png;
use super::svg::Svg;
use super::work::PolicyResult;
use crate::scaling::simulation::{Moment, PolicyKind, Scenario};

const WIDTH: u32 = 1_200;
const HEIGHT: u32 = 960;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 66.0;
const BOTTOM: f64 = 40.0;
const GAP: f64 = 44.0;

const WHITE: Color = [255, 255, 255];
const INK: Color = [40, 44, 52];
const GRID: Color = [225, 228, 232];
const LOAD: Color = [150, 160, 172];
const IDEAL: Color = [190, 197, 206];
const LIMIT: Color = [206, 60, 60];

fn color(kind: PolicyKind) -> Color {
    match kind {
        PolicyKind::Sluice => [16, 110, 190],
        PolicyKind::Hpa => [222, 125, 22],
        PolicyKind::Keda => [60, 150, 80],
        PolicyKind::Kaap => [150, 90, 180],
        PolicyKind::Ds2 => [120, 85, 60],
    }
}

/// A line of a panel.
struct Curve {
    values: Vec<f64>,
    color: Color,
    width: f64,
}

/// A part of the plot with its own scale.
struct Panel {
    title: String,
    curves: Vec<Curve>,
    /// The most that the scale shows; what is above is cut off.
    cut: f64,
    limit: Option<f64>,
    /// Its height in parts of all panels'.
    weight: f64,
}

/// Draws the plot as SVG and as PNG.
pub(super) fn draw(scenario: &Scenario, results: &[PolicyResult]) -> Result<(String, Vec<u8>), String> {
    let panels = panels(scenario, results);
    let mut svg = Svg::new(WIDTH, HEIGHT);
    paint(&mut svg, scenario, results, &panels);
    let mut png = Png::new(WIDTH, HEIGHT).ok_or("a plot of no size")?;
    paint(&mut png, scenario, results, &panels);
    Ok((svg.finish(), png.finish()?))
}

fn panels(scenario: &Scenario, results: &[PolicyResult]) -> Vec<Panel> {
    let curve = |result: &PolicyResult, field: fn(&Moment) -> f64| Curve {
        values: result.timeline.iter().map(field).collect(),
        color: color(result.kind),
        width: if result.kind == PolicyKind::Sluice {
            2.2
        } else {
            1.4
        },
    };
    // The first one is drawn last, on top.
    let each = |field: fn(&Moment) -> f64| results.iter().rev().map(move |result| curve(result, field));
    let Some(first) = results.first() else {
        return Vec::new();
    };
    let of_load = |field: fn(&Moment) -> f64, color, width| Curve {
        color,
        width,
        ..curve(first, field)
    };
    let mut demand = vec![of_load(|moment| moment.offered, LOAD, 1.2)];
    demand.extend(each(|moment| moment.supply));
    let mut brokers = vec![of_load(|moment| f64::from(moment.ideal), IDEAL, 6.0)];
    brokers.extend(each(|moment| f64::from(moment.existing)));
    let mut panels = vec![
        Panel {
            title: "messages a second: offered (grey), and what the brokers that serve can do".to_owned(),
            curves: demand,
            cut: f64::INFINITY,
            limit: None,
            weight: 3.0,
        },
        Panel {
            title: "brokers, and the fewest that keep the target utilization (wide grey)".to_owned(),
            curves: brokers,
            cut: f64::INFINITY,
            limit: None,
            weight: 3.0,
        },
        Panel {
            title: format!(
                "seconds that a new message waits, up to {:.0} (red: the objective)",
                scenario.objective * 30.0
            ),
            curves: each(|moment| moment.delay).collect(),
            cut: scenario.objective * 30.0,
            limit: Some(scenario.objective),
            weight: 2.0,
        },
    ];
    if let Some(sluice) = results.iter().find(|result| result.kind == PolicyKind::Sluice) {
        panels.push(Panel {
            title: "messages that fit into each channel (sluice)".to_owned(),
            curves: vec![curve(sluice, |moment| f64::from(moment.channel_capacity))],
            cut: f64::INFINITY,
            limit: None,
            weight: 1.2,
        });
    }
    panels
}

fn paint(canvas: &mut dyn Canvas, scenario: &Scenario, results: &[PolicyResult], panels: &[Panel]) {
    canvas.rectangle([0.0, 0.0, f64::from(WIDTH), f64::from(HEIGHT)], WHITE);
    let title = format!(
        "{}: {:.0}/s a broker, {:.0} s to start one",
        scenario.load.name(),
        scenario.broker.rate,
        scenario.start_seconds
    );
    canvas.text((LEFT, 22.0), &title, Anchor::Start, INK);
    for (index, result) in results.iter().enumerate() {
        let left = LEFT + index as f64 * 210.0;
        canvas.rectangle([left, 32.0, 18.0, 5.0], color(result.kind));
        let figures = &result.figures;
        let label = format!(
            "{} {:.0} s over",
            result.kind.name(),
            figures.seconds_over_objective
        );
        canvas.text((left + 24.0, 40.0), &label, Anchor::Start, INK);
    }
    let seconds = scenario.load.seconds().max(1) as f64;
    let weights: f64 = panels.iter().map(|panel| panel.weight).sum();
    let gaps = GAP * panels.len().saturating_sub(1) as f64;
    let room = f64::from(HEIGHT) - TOP - BOTTOM - gaps;
    let mut top = TOP;
    for panel in panels {
        let height = room * panel.weight / weights;
        paint_panel(canvas, panel, (top, height), seconds);
        top += height + GAP;
    }
}

fn paint_panel(canvas: &mut dyn Canvas, panel: &Panel, (top, height): (f64, f64), seconds: f64) {
    let width = f64::from(WIDTH) - LEFT - RIGHT;
    let highest = panel
        .curves
        .iter()
        .flat_map(|curve| &curve.values)
        .copied()
        .filter(|value| value.is_finite())
        .fold(panel.limit.unwrap_or(0.0) * 1.2, f64::max)
        .min(panel.cut);
    let step = nice(highest.max(1e-3) / 4.0);
    let most = (highest.max(1e-3) / step).ceil() * step;
    let y = |value: f64| top + height - value.clamp(0.0, most) / most * height;
    canvas.text((LEFT, top - 6.0), &panel.title, Anchor::Start, INK);
    let mut mark = 0.0;
    while mark <= most * 1.0001 {
        canvas.lines(&[(LEFT, y(mark)), (LEFT + width, y(mark))], GRID, 1.0);
        canvas.text((LEFT - 8.0, y(mark) + 4.0), &short(mark), Anchor::End, INK);
        mark += step;
    }
    let tick = time_step(seconds / 8.0);
    let mut at = 0.0;
    while at <= seconds * 1.0001 {
        let x = LEFT + at / seconds * width;
        canvas.lines(&[(x, top), (x, top + height)], GRID, 1.0);
        canvas.text((x + 2.0, top + height + 14.0), &time(at), Anchor::Start, INK);
        at += tick;
    }
    if let Some(limit) = panel.limit {
        canvas.lines(&[(LEFT, y(limit)), (LEFT + width, y(limit))], LIMIT, 1.0);
    }
    for curve in &panel.curves {
        let points: Vec<(f64, f64)> = thinned(&curve.values, width as usize)
            .into_iter()
            .map(|(second, value)| (LEFT + second / seconds * width, y(value)))
            .collect();
        canvas.lines(&points, curve.color, curve.width);
    }
}

/// At most the lowest and the highest value of every column, so that no peak is lost.
fn thinned(values: &[f64], columns: usize) -> Vec<(f64, f64)> {
    let chunk = values.len().div_ceil(columns.max(1)).max(1);
    if chunk == 1 {
        return values
            .iter()
            .enumerate()
            .map(|(second, value)| (second as f64, *value))
            .collect();
    }
    values
        .chunks(chunk)
        .enumerate()
        .flat_map(|(index, chunk)| {
            let lowest = chunk.iter().copied().fold(f64::INFINITY, f64::min);
            let highest = chunk.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let start = (index * values.len().div_ceil(columns.max(1))) as f64;
            [(start, lowest), (start, highest)]
        })
        .collect()
}

/// The next of 1, 2, 5, 10, … at or above a value.
fn nice(value: f64) -> f64 {
    let unit = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|step| step * unit)
        .find(|step| *step >= value * 0.9999)
        .unwrap_or(10.0 * unit)
}

fn time_step(seconds: f64) -> f64 {
    [
        10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 10_800.0, 43_200.0,
    ]
    .into_iter()
    .find(|step| *step >= seconds)
    .unwrap_or(86_400.0)
}

fn time(seconds: f64) -> String {
    let seconds = seconds as u64;
    if seconds >= 7_200 {
        format!("{}h", seconds / 3_600)
    } else if seconds.is_multiple_of(60) {
        format!("{}m", seconds / 60)
    } else {
        format!("{seconds}s")
    }
}

fn short(value: f64) -> String {
    if value >= 1e6 {
        format!("{}M", value / 1e6)
    } else if value >= 1e4 {
        format!("{}k", value / 1e3)
    } else if value >= 10.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_have_round_marks() {
        assert_eq!(
            [0.3, 1.0, 1.1, 2_400.0, 7.0].map(nice),
            [0.5, 1.0, 2.0, 5_000.0, 10.0]
        );
        assert_eq!([0.5, 30.0, 25_000.0].map(short), ["0.5", "30", "25k"]);
        assert_eq!([90.0, 600.0, 10_800.0].map(time), ["90s", "10m", "3h"]);
    }

    #[test]
    fn peaks_survive_where_there_are_more_seconds_than_columns() {
        let mut values = vec![1.0; 10_000];
        values[7_777] = 9.0;
        let points = thinned(&values, 100);
        assert!(points.len() <= 200);
        assert!(points.iter().any(|(_, value)| *value == 9.0));
    }
}
