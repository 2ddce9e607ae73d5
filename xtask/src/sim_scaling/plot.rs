//! The plot: three panels above each other over one axis of time, as SVG by hand.

use std::fmt::Write as _;

use super::model::{Run, Step};

const WIDTH: f64 = 900.0;
const PANEL: f64 = 150.0;
const GAP: f64 = 44.0;
const LEFT: f64 = 80.0;
const TOP: f64 = 56.0;
/// One point for so many seconds.
const EVERY: usize = 10;

struct Line {
    label: &'static str,
    colour: &'static str,
    value: fn(&Step) -> f64,
}

/// A run as SVG.
pub(super) fn svg(title: &str, run: &Run) -> String {
    let panels: [(&str, Vec<Line>); 3] = [
        (
            "events a second",
            vec![
                Line { label: "arrive", colour: "#c2410c", value: |step| step.arrived },
                Line { label: "are stored", colour: "#1d4ed8", value: |step| step.stored },
            ],
        ),
        ("events that wait", vec![Line { label: "lag", colour: "#7c3aed", value: |step| step.lag }]),
        (
            "workers",
            vec![
                Line { label: "wanted", colour: "#a8a29e", value: |step| step.wanted },
                Line { label: "there", colour: "#15803d", value: |step| step.workers as f64 },
            ],
        ),
    ];
    let height = TOP + 3.0 * (PANEL + GAP) + 10.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"{LEFT}\" y=\"24\" font-size=\"16\">{title}</text>\n",
        LEFT + WIDTH + 20.0
    );
    let seconds = run.steps.len().max(1) as f64;
    for (number, (name, lines)) in panels.iter().enumerate() {
        let top = TOP + number as f64 * (PANEL + GAP);
        let most = lines.iter().flat_map(|line| run.steps.iter().map(line.value)).fold(1.0, f64::max);
        let most = round_up(most);
        let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"{:.0}\" fill=\"#444\">{name}</text>", top - 8.0);
        for part in 0..=4 {
            let (y, value) = (top + PANEL * (1.0 - f64::from(part) / 4.0), most * f64::from(part) / 4.0);
            let right = LEFT + WIDTH;
            let _ = writeln!(
                out,
                "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#666\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                short(value)
            );
        }
        for minute in (0..=run.steps.len() / 60).step_by(10) {
            let x = LEFT + WIDTH * minute as f64 * 60.0 / seconds;
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#666\">{minute} min</text>",
                top + PANEL + 16.0
            );
        }
        for (index, line) in lines.iter().enumerate() {
            let mut path = String::new();
            for (second, step) in run.steps.iter().enumerate().step_by(EVERY) {
                let (x, y) =
                    (LEFT + WIDTH * second as f64 / seconds, top + PANEL * (1.0 - (line.value)(step).min(most) / most));
                let _ = write!(path, "{}{x:.1} {y:.1}", if second == 0 { "M" } else { "L" });
            }
            let legend = LEFT + 160.0 + 110.0 * index as f64;
            let _ = writeln!(
                out,
                "<path d=\"{path}\" fill=\"none\" stroke=\"{0}\" stroke-width=\"1.6\"/><text x=\"{legend:.0}\" y=\"{1:.0}\" fill=\"{0}\">{2}</text>",
                line.colour,
                top - 8.0,
                line.label
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

/// 1, 2, 3, 4, 5, 6, 8 or 10 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|top| *top >= value)
        .unwrap_or(value)
}

fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", (v / 1e5).round() / 10.0),
        v if v >= 1e4 => format!("{:.0} k", v / 1e3),
        v => format!("{}", (v * 10.0).round() / 10.0),
    }
}

#[cfg(test)]
mod tests {
    use super::{round_up, short};

    #[test]
    fn axes_are_round() {
        assert_eq!([12.0, 900_000.0, 1.0].map(round_up), [20.0, 1_000_000.0, 1.0]);
        assert_eq!([2_500_000.0, 225_000.0, 7.5].map(short), ["2.5 M", "225 k", "7.5"]);
    }
}
