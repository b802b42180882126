//! Latency histograms: what the slowest one in a hundred saw, not only the mean.

use hdrhistogram::Histogram;

use crate::sync::Mutex;

/// Highest value told apart: a minute.
const NANOS_MAX: u64 = 60_000_000_000;

/// HdrHistogram (Tene) with two significant digits, in nanoseconds.
pub struct Latency(Mutex<Histogram<u64>>);

#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Quantiles {
    pub count: u64,
    /// Microseconds.
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Default for Latency {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1_000, NANOS_MAX, 2);
        Self(Mutex::new(histogram.expect("the bounds are sound")))
    }
}

impl Latency {
    pub fn record(&self, nanos: u64) {
        self.0.lock().saturating_record(nanos);
    }

    pub fn quantiles(&self) -> Quantiles {
        let histogram = self.0.lock();
        let micros = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        Quantiles {
            count: histogram.len(),
            p50: micros(0.5),
            p90: micros(0.9),
            p99: micros(0.99),
            max: histogram.max() as f64 / 1_000.0,
        }
    }
}
