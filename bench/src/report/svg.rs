//! A plot as SVG, by hand: lines through marked points over two axes, the legend in rows of its own above them, where it covers nothing.

use std::fmt::Write as _;

use super::Problem;
use crate::results::{Axis, Plot};

const WIDTH: f64 = 800.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 770.0;
/// Height of what the lines are drawn in.
const HEIGHT: f64 = 320.0;
const TITLE: f64 = 22.0;
const ROW: f64 = 20.0;
/// What a letter takes of a line, with something to spare: nobody measures fonts here.
const LETTER: f64 = 7.0;
const TITLE_LETTER: f64 = 9.0;
/// Of a legend's entry, beside its name.
const SIGN: f64 = 44.0;
/// Told apart by eyes that see fewer colours too (Okabe and Ito, 2008; its yellow left out).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333"];

/// The plot. Numbers stand as they come; a value that an axis can't show is a problem.
pub(super) fn svg(plot: &Plot) -> Result<String, Problem> {
    let values = |pick: fn(&(f64, f64)) -> f64| plot.series.iter().flat_map(move |line| line.points.iter().map(pick));
    let x = Scale::over(&plot.x, values(|point| point.0), false).map_err(|why| problem(plot, &plot.x, why))?;
    let y = Scale::over(&plot.y, values(|point| point.1), true).map_err(|why| problem(plot, &plot.y, why))?;
    let title = wrapped(&plot.title, ((RIGHT - 20.0) / TITLE_LETTER) as usize);
    let legend = legend(plot);
    let rows = legend.last().map_or(0.0, |entry| entry.1 + 1.0);
    let top = 14.0 + TITLE * title.len() as f64 + ROW * rows + 26.0;
    let height = top + HEIGHT + 48.0;

    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" width=\"{WIDTH:.0}\" height=\"{height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\n<title>{}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        escaped(&plot.title)
    );
    // Writing to a String can't fail.
    for (number, line) in title.iter().enumerate() {
        let at = 24.0 + TITLE * number as f64;
        let _ = writeln!(out, "<text x=\"20\" y=\"{at:.0}\" font-size=\"16\" fill=\"#222\">{}</text>", escaped(line));
    }
    for (number, (left, row)) in legend.iter().enumerate() {
        let middle = 14.0 + TITLE * title.len() as f64 + ROW * row + 10.0;
        let style = Style::of(number);
        let _ = writeln!(
            out,
            "<path d=\"M{left:.0} {middle:.0}h28\" {}/>{}<text x=\"{:.0}\" y=\"{:.0}\" fill=\"#222\">{}</text>",
            style.line(),
            style.mark(left + 14.0, middle),
            left + 34.0,
            middle + 4.0,
            escaped(&plot.series[number].name)
        );
    }
    axes(&mut out, plot, (&x, &y), top);
    for (number, line) in plot.series.iter().enumerate() {
        let style = Style::of(number);
        let points: Vec<(f64, f64)> = line
            .points
            .iter()
            .map(|(right, up)| (LEFT + (RIGHT - LEFT) * x.at(*right), top + HEIGHT * (1.0 - y.at(*up))))
            .collect();
        let mut path = String::new();
        for (x, y) in &points {
            let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { "M" } else { "L" });
        }
        if points.len() > 1 {
            let _ = writeln!(out, "<path d=\"{path}\" {}/>", style.line());
        }
        for (x, y) in points {
            let _ = writeln!(out, "{}", style.mark(x, y));
        }
    }
    out.push_str("</svg>\n");
    Ok(out)
}

fn problem(plot: &Plot, axis: &Axis, why: &str) -> Problem {
    Problem(format!("plot {}: axis \"{}\": {why}", plot.file, axis.label))
}

/// Grid, ticks and labels.
fn axes(out: &mut String, plot: &Plot, (x, y): (&Scale, &Scale), top: f64) {
    let bottom = top + HEIGHT;
    for tick in &y.ticks {
        let at = bottom - HEIGHT * y.at(*tick);
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {at:.1}H{RIGHT}\" stroke=\"#ddd\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            short(*tick)
        );
    }
    for tick in &x.ticks {
        let at = LEFT + (RIGHT - LEFT) * x.at(*tick);
        let _ = writeln!(
            out,
            "<path d=\"M{at:.1} {top:.1}V{bottom:.1}\" stroke=\"#eee\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
            bottom + 17.0,
            short(*tick)
        );
    }
    let _ = writeln!(out, "<path d=\"M{LEFT} {top:.1}V{bottom:.1}H{RIGHT}\" fill=\"none\" stroke=\"#888\"/>");
    let scale = |axis: &Axis| if axis.logarithmic { " (logarithmic)" } else { "" };
    let _ = writeln!(
        out,
        "<text x=\"20\" y=\"{:.1}\" fill=\"#444\">{}{}</text>",
        top - 10.0,
        escaped(&plot.y.label),
        scale(&plot.y)
    );
    let _ = writeln!(
        out,
        "<text x=\"{RIGHT}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#444\">{}{}</text>",
        bottom + 36.0,
        escaped(&plot.x.label),
        scale(&plot.x)
    );
}

/// From where each entry of the legend begins, and in which row. Nothing for a single line, which the title names.
fn legend(plot: &Plot) -> Vec<(f64, f64)> {
    if plot.series.len() < 2 {
        return Vec::new();
    }
    let (mut left, mut row, mut entries) = (20.0, 0.0, Vec::new());
    for line in &plot.series {
        let width = SIGN + LETTER * line.name.chars().count() as f64;
        if left > 20.0 && left + width > RIGHT {
            (left, row) = (20.0, row + 1.0);
        }
        entries.push((left, row));
        left += width;
    }
    entries
}

/// How a line looks: colours first, then the form of the points, then the stroke.
struct Style {
    colour: &'static str,
    form: usize,
    dashed: bool,
}

impl Style {
    fn of(number: usize) -> Self {
        Self { colour: COLOURS[number % COLOURS.len()], form: number % 4, dashed: number >= COLOURS.len() }
    }

    fn line(&self) -> String {
        let dashes = if self.dashed { " stroke-dasharray=\"6 4\"" } else { "" };
        format!("fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\"{dashes}", self.colour)
    }

    fn mark(&self, x: f64, y: f64) -> String {
        let colour = self.colour;
        match self.form {
            0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.6\" fill=\"{colour}\"/>"),
            1 => {
                format!("<rect x=\"{:.1}\" y=\"{:.1}\" width=\"7\" height=\"7\" fill=\"{colour}\"/>", x - 3.5, y - 3.5)
            }
            2 => format!("<path d=\"M{x:.1} {:.1}l4.4 8h-8.8z\" fill=\"{colour}\"/>", y - 5.0),
            _ => format!("<path d=\"M{x:.1} {:.1}l4.8 4.8l-4.8 4.8l-4.8 -4.8z\" fill=\"{colour}\"/>", y - 4.8),
        }
    }
}

/// What an axis spans, and where it has a number.
#[derive(Debug, PartialEq)]
struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
}

impl Scale {
    /// An axis over these values; a linear one `from_zero` if they are above it.
    fn over(axis: &Axis, values: impl Iterator<Item = f64>, from_zero: bool) -> Result<Self, &'static str> {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            if !value.is_finite() {
                return Err("a value is no number");
            }
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            return Err("no points");
        }
        if axis.logarithmic {
            if low <= 0.0 {
                return Err("a value of 0 or less has no place on a logarithmic axis");
            }
            return Ok(Self::logarithmic(low, high));
        }
        Ok(Self::linear(if from_zero { low.min(0.0) } else { low }, high))
    }

    /// Some five steps of 1, 2 or 5 times a power of ten.
    fn linear(low: f64, high: f64) -> Self {
        let span = if high > low { high - low } else { high.abs().max(1.0) };
        let raw = span / 5.0;
        let power = 10_f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0].into_iter().map(|m| m * power).find(|step| *step >= raw).unwrap_or(10.0 * power);
        let first = (low / step).floor();
        let last = (high / step).ceil().max(first + 1.0);
        let ticks = (0..=(last - first) as u32).map(|number| (first + f64::from(number)) * step).collect();
        Self { low: first * step, high: last * step, logarithmic: false, ticks }
    }

    /// From and to 1, 2 or 5 times a power of ten; over more than three decades only their powers have numbers.
    fn logarithmic(low: f64, high: f64) -> Self {
        // Not by `powi`: a literal's nearest number is what people expect of 0.001.
        let power = |exponent: i32| format!("1e{exponent}").parse().unwrap_or(f64::NAN);
        let exponents = low.log10().floor() as i32 - 1..=high.log10().ceil() as i32 + 1;
        let steps: Vec<f64> = exponents.flat_map(|e| [1.0, 2.0, 5.0].map(|m| m * power(e))).collect();
        let begin = steps.iter().rposition(|step| *step <= low).unwrap_or(0);
        let end = steps.iter().position(|step| *step >= high && *step > steps[begin]).unwrap_or(steps.len() - 1);
        let within = &steps[begin..=end];
        let is_wide = end - begin > 9;
        let ticks = within.iter().enumerate().filter(|(number, _)| !is_wide || (begin + number).is_multiple_of(3));
        Self { low: steps[begin], high: steps[end], logarithmic: true, ticks: ticks.map(|(_, step)| *step).collect() }
    }

    /// 0 at the low end, 1 at the high end.
    fn at(&self, value: f64) -> f64 {
        if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }
}

/// A tick's number.
fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, " G"),
        size if size >= 1e6 => (value / 1e6, " M"),
        size if size >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{}{unit}", if text == "-0" { "0" } else { text })
}

/// Lines of at most so many letters, parted at spaces; a longer word has a line for itself.
fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Text between tags. Control characters are not allowed in XML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            letter if letter.is_control() => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::results::Series;

    fn plot(series: &[(&str, &[(f64, f64)])], x: bool, y: bool) -> Plot {
        Plot {
            file: "p".to_owned(),
            title: "Rows & time".to_owned(),
            x: Axis { label: "rows".to_owned(), logarithmic: x },
            y: Axis { label: "s <wall>".to_owned(), logarithmic: y },
            series: series.iter().map(|(name, at)| Series { name: (*name).to_owned(), points: at.to_vec() }).collect(),
        }
    }

    #[test]
    fn linear_axes_have_round_steps() {
        let scale = Scale::linear(0.0, 23.0);
        assert_eq!((scale.low, scale.high, scale.ticks), (0.0, 25.0, vec![0.0, 5.0, 10.0, 15.0, 20.0, 25.0]));
        assert_eq!(Scale::linear(1.0, 2.0).ticks.len(), 6);
        assert_eq!(Scale::linear(0.0, 0.0).ticks, [0.0, 0.2]);
        assert_eq!(Scale::linear(7.0, 7.0).ticks, [6.0, 8.0]);
        assert_eq!(Scale::linear(0.0, 10.0).at(2.5), 0.25);
    }

    #[test]
    fn logarithmic_axes_end_at_one_two_or_five() {
        let scale = Scale::logarithmic(150.0, 16_000.0);
        assert_eq!((scale.low, scale.high), (100.0, 20_000.0));
        assert_eq!(scale.ticks, [100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0]);
        assert_eq!(Scale::logarithmic(0.02, 700.0).ticks, [0.1, 1.0, 10.0, 100.0, 1_000.0]);
        assert_eq!(Scale::logarithmic(0.001, 0.001).ticks, [0.001, 0.002]);
        let decade = Scale::logarithmic(1.0, 100.0);
        assert!((decade.at(10.0) - 0.5).abs() < 1e-12 && decade.at(1.0) == 0.0 && decade.at(100.0) == 1.0);
    }

    #[test]
    fn ticks_are_short() {
        let texts = [0.0, 0.3, 0.000_5, 7.5, 2_000.0, 225_000.0, 2_500_000.0, 5e10].map(short);
        assert_eq!(texts, ["0", "0.3", "0.0005", "7.5", "2000", "225 k", "2.5 M", "50 G"]);
        assert_eq!((short(0.1 + 0.2), short(-0.0)), ("0.3".to_owned(), "0".to_owned()));
    }

    #[test]
    fn points_stand_where_they_belong_and_text_is_escaped() {
        let text = svg(&plot(&[("a", &[(0.0, 0.0), (10.0, 50.0)])], false, false)).unwrap();
        // One line has no legend: 14, a title of 22, and 26 above the area.
        assert!(text.contains("d=\"M76.0 382.0L770.0 62.0\""), "{text}");
        assert!(text.contains("<title>Rows &amp; time</title>") && text.contains("s &lt;wall&gt;"), "{text}");
        assert_eq!(text.matches("<circle").count(), 2);
    }

    #[test]
    fn the_legend_makes_room_for_itself() {
        let names: Vec<String> = (0..9).map(|number| format!("a line with a rather long name, {number}")).collect();
        let lines: Vec<(&str, &[(f64, f64)])> = names.iter().map(|name| (name.as_str(), &[(1.0, 1.0)][..])).collect();
        let places = legend(&plot(&lines, false, false));
        assert_eq!(places.iter().map(|(_, row)| *row).collect::<Vec<_>>(), [0., 0., 1., 1., 2., 2., 3., 3., 4.]);
        for (place, name) in places.iter().zip(&names) {
            assert!(place.0 + SIGN + LETTER * name.len() as f64 <= RIGHT);
        }
        let text = svg(&plot(&lines, false, false)).unwrap();
        // The area begins below the last row: five rows, 20 each.
        assert!(text.contains("M76 162.0V482.0H770"), "{text}");
        // Two of nine share a colour, and not the stroke.
        assert!(text.contains("stroke-dasharray"));
    }

    #[test]
    fn what_an_axis_can_not_show_is_a_problem() {
        for (points, log, part) in [
            (&[(0.0, 1.0)][..], true, "a value of 0 or less"),
            (&[(1.0, f64::NAN)], false, "no number"),
            (&[], false, "no points"),
        ] {
            let problem = svg(&plot(&[("a", points)], log, false)).unwrap_err();
            assert!(problem.0.starts_with("plot p: axis ") && problem.0.contains(part), "{}", problem.0);
        }
    }

    #[test]
    fn long_titles_are_wrapped() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("longer-than-all x", 5), ["longer-than-all", "x"]);
    }
}
