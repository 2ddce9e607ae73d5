//! Pure figures: spreads, ratios, fits.

use auditstream_bench::results::median;

/// One figure over several rounds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sample(pub(super) Vec<f64>);

impl Sample {
    pub(super) fn of<T>(all: &[T], value: impl Fn(&T) -> f64) -> Self {
        Self(all.iter().map(value).collect())
    }

    pub(super) fn median(&self) -> f64 {
        median(&self.0)
    }

    fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(super) fn most(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// The median, and behind it the least and the most when there are several: `612 (590-640)`.
    pub(super) fn text(&self, digits: usize) -> String {
        match self.0.len() {
            0 => "-".to_owned(),
            1 => format!("{:.digits$}", self.median()),
            _ => format!("{:.digits$} ({:.digits$}-{:.digits$})", self.median(), self.least(), self.most()),
        }
    }
}

/// How much one grows when the other doubles: the slope of the straight line through the logarithms, as a power of two. 2 is linear. Not a number for
/// fewer than two points.
pub(super) fn growth_by_doubling(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    line(&logs).map_or(f64::NAN, |(_, slope)| slope.exp2())
}

/// Intercept and slope of the straight line with the least squares; `None` for fewer than two different x.
pub(super) fn line(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (x, y) = (x / count, y / count);
    let (above, below) = points.iter().fold((0.0, 0.0), |(above, below), point| {
        (above + (point.0 - x) * (point.1 - y), below + (point.0 - x).powi(2))
    });
    (below > 0.0).then(|| (y - above / below * x, above / below))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_sample_shows_its_spread() {
        assert_eq!(Sample(vec![3.0, 1.0, 2.04]).text(1), "2.0 (1.0-3.0)");
        assert_eq!(Sample(vec![1.25]).text(2), "1.25");
        assert_eq!(Sample::default().text(0), "-");
        assert_eq!(Sample::of(&[1, 5], |value| f64::from(*value)).most(), 5.0);
    }

    #[test]
    fn what_is_linear_doubles() {
        let double = |power: i32| {
            let points: Vec<(f64, f64)> =
                [1.0, 2.0, 4.0, 8.0].iter().map(|x: &f64| (*x, 3.0 * x.powi(power))).collect();
            growth_by_doubling(&points)
        };
        assert!((double(1) - 2.0).abs() < 1e-9);
        assert!((double(2) - 4.0).abs() < 1e-9);
        assert!((double(0) - 1.0).abs() < 1e-9);
        assert!(growth_by_doubling(&[(1.0, 1.0)]).is_nan());
    }

    #[test]
    fn the_line_goes_through_its_points() {
        let (intercept, slope) = line(&[(0.0, 1.0), (10.0, 2.0), (100.0, 11.0)]).unwrap();
        assert!((intercept - 1.0).abs() < 1e-9 && (slope - 0.1).abs() < 1e-9);
        assert_eq!(line(&[(1.0, 1.0), (1.0, 2.0)]), None);
    }
}
