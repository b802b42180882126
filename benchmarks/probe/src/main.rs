//! The denominator of the benchmarks: durable appends of a given size, raw.
//!
//! One thread, one `pwrite` and one `fdatasync` an append, in one of the layouts of layout.rs or in
//! the fastest of them ("best", found by short trials in turn). Prints one JSON object. Bytes are
//! rounded up to whole sectors, as the engine's groups are.
//!
//! It measures the disk, not the engine: nothing of the engine is linked.

mod layout;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use layout::{Aligned, LAYOUTS, Layout, LogFile, SECTOR_BYTES, Space};
use serde_json::{Value, json};

const USAGE: &str = "probe DIRECTORY --bytes N [--layout best|growing|fallocate|fallocate-direct|\
zeros|zeros-direct] [--seconds S (2)] [--count N] [--as-it-goes] [--stat /sys/block/DEV/stat]
  --as-it-goes  zeros are written between the appends and timed, not beforehand
  --stat        also tells the bytes that reached this device";
/// No file is made larger than this; a run that fills it goes on in another.
const FILE_BYTES_MAX: u64 = 64 << 20;
const TRIAL: Duration = Duration::from_millis(250);
const TRIAL_ROUNDS: usize = 2;

struct Options {
    dir: PathBuf,
    bytes: usize,
    layout: Option<Layout>,
    time: Duration,
    count: usize,
    as_it_goes: bool,
    stat: Option<PathBuf>,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        dir: PathBuf::new(),
        bytes: 0,
        layout: None,
        time: Duration::MAX,
        count: usize::MAX,
        as_it_goes: false,
        stat: None,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        match word.as_str() {
            "--bytes" => options.bytes = number(&value()?)?,
            "--count" => options.count = number(&value()?)?,
            "--seconds" => {
                let seconds = value()?.parse().map_err(|e| format!("--seconds: {e}"))?;
                options.time = Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())?;
            }
            "--layout" => {
                let name = value()?;
                options.layout = LAYOUTS.into_iter().find(|layout| layout.name == name);
                if options.layout.is_none() && name != "best" {
                    return Err(format!("there is no layout {name:?}"));
                }
            }
            "--as-it-goes" => options.as_it_goes = true,
            "--stat" => options.stat = Some(value()?.into()),
            _ if word.starts_with('-') => return Err(format!("there is no option {word:?}")),
            _ => options.dir = word.into(),
        }
    }
    if options.dir.as_os_str().is_empty() || options.bytes == 0 {
        return Err("a directory and --bytes are needed".into());
    }
    if options.count == usize::MAX && options.time == Duration::MAX {
        options.time = Duration::from_secs(2);
    }
    options.bytes = options.bytes.next_multiple_of(SECTOR_BYTES);
    Ok(options)
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|error| format!("{text:?} is no number: {error}"))
}

#[derive(Default)]
struct Measured {
    nanos: Vec<u64>,
    device_prepared: u64,
    device_appended: u64,
}

impl Measured {
    fn seconds(&self) -> f64 {
        self.nanos.iter().sum::<u64>() as f64 / 1e9
    }

    fn per_second(&self) -> f64 {
        self.nanos.len() as f64 / self.seconds().max(1e-9)
    }

    fn micros_at(&self, quantile: f64) -> f64 {
        let mut sorted = self.nanos.clone();
        sorted.sort_unstable();
        let at = ((sorted.len() as f64 * quantile) as usize).min(sorted.len().saturating_sub(1));
        sorted.get(at).map_or(0.0, |nanos| *nanos as f64 / 1e3)
    }
}

/// Appends until the time or the count is used up, in as many files as that takes.
fn measure(options: &Options, layout: Layout, time: Duration) -> Result<Measured, String> {
    let failed = |errno| format!("{}, {}: {errno}", options.dir.display(), layout.name);
    let bytes = Aligned::noise(options.bytes);
    let wanted = (options.bytes as u64).saturating_mul(options.count as u64);
    let capacity = wanted.min(FILE_BYTES_MAX).max(options.bytes as u64);
    let as_it_goes = options.as_it_goes && layout.space == Space::Zeroed;
    let mut measured = Measured::default();
    let mut spent = 0;
    while measured.nanos.len() < options.count && spent < time.as_nanos() {
        let start = device_bytes(options)?;
        let mut file =
            LogFile::create(&options.dir, layout, capacity, as_it_goes).map_err(failed)?;
        file.sync_file_system().map_err(failed)?;
        let prepared = device_bytes(options)?;
        while file.has_room(options.bytes)
            && measured.nanos.len() < options.count
            && spent < time.as_nanos()
        {
            let begun = Instant::now();
            file.append(bytes.get()).map_err(failed)?;
            let taken = begun.elapsed().as_nanos();
            measured.nanos.push(taken as u64);
            spent += taken;
        }
        file.sync_file_system().map_err(failed)?;
        let appended = device_bytes(options)?;
        measured.device_prepared += prepared - start;
        measured.device_appended += appended - prepared;
    }
    Ok(measured)
}

/// Field 7 of a block device's counters: sectors of 512 bytes written.
fn device_bytes(options: &Options) -> Result<u64, String> {
    let Some(path) = &options.stat else { return Ok(0) };
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let sectors = text.split_whitespace().nth(6).and_then(|field| field.parse::<u64>().ok());
    sectors.map(|n| n * 512).ok_or(format!("{} is no device's stat", path.display()))
}

/// The layouts that work here with their rates, fastest first.
fn trials(options: &Options) -> Result<Vec<(Layout, f64)>, String> {
    let mut found = Vec::new();
    for layout in LAYOUTS {
        let mut best = 0.0_f64;
        for _ in 0..TRIAL_ROUNDS {
            match measure(options, layout, TRIAL) {
                Ok(measured) => best = best.max(measured.per_second()),
                // Many file systems take no direct writes; the others must work.
                Err(_) if layout.direct => break,
                Err(error) => return Err(error),
            }
        }
        if best > 0.0 {
            found.push((layout, best));
        }
    }
    found.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(found)
}

fn written_by_this_process() -> Option<u64> {
    let text = std::fs::read_to_string(Path::new("/proc/self/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok())
}

fn run(options: &Options) -> Result<Value, String> {
    let tried = if options.layout.is_some() { Vec::new() } else { trials(options)? };
    let layout = options.layout.or_else(|| tried.first().map(|(layout, _)| *layout));
    let layout = layout.ok_or("no layout works here")?;
    let before = written_by_this_process();
    let measured = measure(options, layout, options.time)?;
    let after = written_by_this_process();
    let n = measured.nanos.len();
    let payload = (n * options.bytes) as u64;
    let device = options.stat.as_ref().map(|_| {
        json!({
            "prepared": measured.device_prepared,
            "appended": measured.device_appended,
        })
    });
    let rates: Vec<_> = tried.iter().map(|(layout, rate)| json!([layout.name, rate])).collect();
    Ok(json!({
        "layout": layout.name,
        "zeros_timed": options.as_it_goes && layout.space == Space::Zeroed,
        "bytes": options.bytes,
        "n": n,
        "seconds": measured.seconds(),
        "per_second": measured.per_second(),
        "p50_us": measured.micros_at(0.5),
        "p99_us": measured.micros_at(0.99),
        "payload_bytes": payload,
        "device_bytes": device,
        "wchar": before.zip(after).map(|(before, after)| after - before),
        "tried": rates,
    }))
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(found) => {
            println!("{found}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("probe: {error}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}
