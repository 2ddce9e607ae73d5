//! The loop, second by second: arrivals, workers that start and rebalance, ClickHouse's ceiling, what Prometheus sees of it, KEDA's formula, the HPA's
//! behaviour.

/// What comes, and what limits its storing.
#[derive(Debug, Clone)]
pub(super) struct Load {
    /// Events a second outside of the burst.
    pub(super) quiet: f64,
    /// Events a second in the burst.
    pub(super) burst: f64,
    /// First second of the burst.
    pub(super) from: usize,
    /// First second behind it.
    pub(super) to: usize,
    /// Seconds in all.
    pub(super) length: usize,
    /// Events a second that ClickHouse stores at most.
    pub(super) clickhouse: f64,
    /// Workers beyond these have nothing to do.
    pub(super) partitions: usize,
}

/// What one worker can do.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    /// Events a second.
    pub(super) rate: f64,
    /// Seconds from being wanted to reading.
    pub(super) start: usize,
    /// Seconds for which a partition that moves is not read.
    pub(super) rebalance: usize,
}

/// How the chart scales; the names are those of its values.
#[derive(Debug, Clone)]
pub(super) struct Scaling {
    pub(super) events_per_second: f64,
    pub(super) drain_seconds: f64,
    pub(super) polling_interval: usize,
    pub(super) scale_up_stabilization: usize,
    pub(super) scale_up_pods: usize,
    pub(super) scale_down_stabilization: usize,
    pub(super) min: usize,
    /// Whether Prometheus is asked if ClickHouse is the limit.
    pub(super) holds: bool,
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            events_per_second: 100_000.0,
            drain_seconds: 120.0,
            polling_interval: 15,
            scale_up_stabilization: 30,
            scale_up_pods: 4,
            scale_down_stabilization: 600,
            min: 2,
            holds: true,
        }
    }
}

/// The window of `rate` and `avg_over_time` in the chart's queries.
const WINDOW: usize = 120;
/// The HPA leaves a difference of a tenth alone (`--horizontal-pod-autoscaler-tolerance`).
const TOLERANCE: f64 = 0.1;
/// The period of the chart's policy that adds pods, and of the one that removes them.
const UP_PERIOD: usize = 60;
const DOWN_PERIOD: usize = 120;
/// A backlog below one second of arrivals is none.
const GONE_SECONDS: f64 = 1.0;

/// One second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) arrived: f64,
    pub(super) stored: f64,
    pub(super) lag: f64,
    /// Pods that are there, starting ones too.
    pub(super) workers: usize,
    /// What the formula wants.
    pub(super) wanted: f64,
    /// Workers wait for ClickHouse with full memory.
    pub(super) limited: bool,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) steps: Vec<Step>,
    quiet: f64,
}

impl Run {
    pub(super) fn most_lag(&self) -> f64 {
        self.steps.iter().map(|step| step.lag).fold(0.0, f64::max)
    }

    pub(super) fn most_workers(&self) -> usize {
        self.steps.iter().map(|step| step.workers).max().unwrap_or(0)
    }

    /// How often the number of pods changed.
    pub(super) fn changes(&self) -> usize {
        self.steps.windows(2).filter(|pair| pair[0].workers != pair[1].workers).count()
    }

    pub(super) fn worker_hours(&self) -> f64 {
        self.steps.iter().map(|step| step.workers as f64).sum::<f64>() / 3_600.0
    }

    /// Seconds after `second` until no backlog is left.
    pub(super) fn drained_after(&self, second: usize) -> Option<usize> {
        self.steps.iter().skip(second).position(|step| step.lag <= self.quiet * GONE_SECONDS)
    }
}

/// Plays it through.
pub(super) fn simulate(load: &Load, worker: &Worker, scaling: &Scaling) -> Run {
    let mut steps: Vec<Step> = Vec::with_capacity(load.length);
    // For each pod the second from which it reads.
    let mut pods: Vec<usize> = vec![0; scaling.min];
    // Part of the partitions that moves, and until when.
    let (mut moving, mut moves_until) = (0.0, 0);
    let (mut lag, mut wanted) = (0.0_f64, scaling.min as f64);
    // Recommendations and changes of the HPA, with their seconds.
    let mut recommended: Vec<(usize, usize)> = Vec::new();
    let mut changes: Vec<(usize, i64)> = Vec::new();
    for now in 0..load.length {
        let arrived = if (load.from..load.to).contains(&now) { load.burst } else { load.quiet };
        let ready = pods.iter().filter(|since| **since <= now).count();
        if pods.contains(&now) && now > 0 {
            (moving, moves_until) = (1.0 / ready.max(1) as f64, now + worker.rebalance);
        }
        let reading = if now < moves_until { 1.0 - moving } else { 1.0 };
        let able = ready.min(load.partitions) as f64 * worker.rate * reading;
        let there = lag + arrived;
        let stored = there.min(able).min(load.clickhouse);
        lag = there - stored;
        let limited = there > load.clickhouse && able > load.clickhouse;
        steps.push(Step { arrived, stored, lag, workers: pods.len(), wanted, limited });
        if now % scaling.polling_interval != 0 || now == 0 {
            continue;
        }
        let window = &steps[steps.len().saturating_sub(WINDOW)..];
        let mean = |of: &dyn Fn(&Step) -> f64| window.iter().map(of).sum::<f64>() / window.len() as f64;
        let rate = mean(&|step| step.stored);
        let hold = scaling.holds && mean(&|step| f64::from(u8::from(step.limited))) > 0.5;
        let threshold = scaling.events_per_second * scaling.drain_seconds;
        let drain = (rate + lag / scaling.drain_seconds) / scaling.events_per_second;
        wanted = if hold { ready as f64 } else { drain.max(lag / threshold) };
        let current = pods.len();
        let off = wanted / current as f64;
        let raw = if (off - 1.0).abs() <= TOLERANCE { current } else { wanted.ceil() as usize };
        recommended.push((now, raw.clamp(scaling.min, load.partitions)));
        let next = behave(scaling, current, now, &recommended, &changes);
        if next > current {
            pods.extend(std::iter::repeat_n(now + worker.start, next - current));
        } else if next < current {
            // A pod that leaves hands its partitions over.
            pods.truncate(next);
            (moving, moves_until) = (1.0 / current as f64, now + worker.rebalance);
        }
        if next != current {
            changes.push((now, next as i64 - current as i64));
        }
    }
    Run { steps, quiet: load.quiet }
}

/// What the HPA makes of its recommendations: stabilised over a window, and no faster than the policies.
fn behave(
    scaling: &Scaling,
    current: usize,
    now: usize,
    recommended: &[(usize, usize)],
    changes: &[(usize, i64)],
) -> usize {
    let within = |seconds: usize| {
        recommended.iter().rev().take_while(move |(then, _)| now - then <= seconds).map(|(_, pods)| *pods)
    };
    let up = within(scaling.scale_up_stabilization).min().unwrap_or(current);
    let down = within(scaling.scale_down_stabilization).max().unwrap_or(current);
    let changed = |seconds: usize, sign: i64| -> usize {
        let recent = changes.iter().rev().take_while(|(then, _)| now - then < seconds);
        recent.map(|(_, change)| (change * sign).max(0) as usize).sum()
    };
    if up > current {
        up.min(current + scaling.scale_up_pods.saturating_sub(changed(UP_PERIOD, 1)))
    } else if down < current {
        down.max(current - 1_usize.saturating_sub(changed(DOWN_PERIOD, -1)).min(current))
    } else {
        current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_is_wanted_for_long_before_there_are_fewer() {
        let scaling = Scaling::default();
        assert_eq!(behave(&scaling, 5, 700, &[(0, 6), (300, 5), (700, 2)], &[]), 5);
        assert_eq!(behave(&scaling, 5, 1_000, &[(300, 5), (700, 2), (1_000, 2)], &[]), 4);
        assert_eq!(behave(&scaling, 4, 1_015, &[(700, 2), (1_000, 2), (1_015, 2)], &[(1_000, -1)]), 4);
    }

    #[test]
    fn more_come_at_most_four_a_minute_and_not_for_one_look() {
        let scaling = Scaling::default();
        assert_eq!(behave(&scaling, 2, 15, &[(0, 2), (15, 12)], &[]), 2);
        assert_eq!(behave(&scaling, 2, 45, &[(15, 12), (30, 12), (45, 11)], &[]), 6);
        assert_eq!(behave(&scaling, 6, 60, &[(30, 12), (45, 11), (60, 12)], &[(45, 4)]), 6);
    }
}
