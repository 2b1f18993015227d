//! Every knob, its default and its validation. A default stands here and nowhere else: Python's
//! signatures and the documents are compared with it by tests.

use std::time::Duration;

use super::classic::HARD_MAX_SIZE;

pub const HEARTBEAT_INTERVAL: f64 = 5.0;
/// Without a `heartbeat_timeout` it is this many intervals, and at least `LEAST_DEFAULT_TIMEOUT`.
pub const DEFAULT_TIMEOUT_INTERVALS: f64 = 4.0;
pub const LEAST_DEFAULT_TIMEOUT: f64 = 20.0;
pub const LEAST_HEARTBEAT_TIMEOUT: f64 = 0.1;
pub const OPEN_TIMEOUT: f64 = 10.0;
pub const CLOSE_TIMEOUT: f64 = 5.0;
pub const MAX_SIZE: u64 = 16 << 20;
pub const BUFFER_COUNT: u64 = 65_536;
pub const BUFFER_BYTES: u64 = 4 << 20;
pub const ACCEPT_BUFFER: u64 = 128;
pub const SESSION_TIMEOUT: f64 = 120.0;
pub const MAX_SESSIONS: u64 = 10_000;
pub const MAX_HELD_BYTES: u64 = 256 << 20;
pub const ON_NEW_SESSION: OnNewSession = OnNewSession::Redeliver;
pub const NODELAY: bool = true;
pub const CORK: bool = true;
pub const PROTOCOL: Protocol = Protocol::Native;
pub const BACKOFF_INITIAL: f64 = 0.1;
pub const BACKOFF_FACTOR: f64 = 2.0;
pub const BACKOFF_MAXIMUM: f64 = 10.0;
pub const SHUTDOWN_TIMEOUT: f64 = 5.0;

/// Why an argument makes no sense: names the limit and the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(pub String);

/// What a link speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Ours: greeting, credit, confirmation, goodbye.
    Native,
    /// The original's.
    Classic,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "netasync",
            Self::Classic => "net.async",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        [Self::Native, Self::Classic].into_iter().find(|protocol| protocol.name() == name)
    }

    /// The shortest message that it can carry.
    pub fn least_size(self) -> usize {
        usize::from(self == Self::Classic)
    }
}

/// What a dialler does with what it had begun in a session that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnNewSession {
    /// It goes again, in front of everything newer.
    Redeliver,
    /// It is dropped and counted.
    Discard,
}

impl OnNewSession {
    pub fn name(self) -> &'static str {
        match self {
            Self::Redeliver => "redeliver",
            Self::Discard => "discard",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        [Self::Redeliver, Self::Discard].into_iter().find(|choice| choice.name() == name)
    }
}

/// What happens to a message that finds its buffer full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Its sender waits.
    Fixed,
    /// It is refused.
    Dropping,
    /// The oldest ones make room.
    Sliding,
}

/// How much may wait, and what happens then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Buffer {
    pub policy: Policy,
    pub count: usize,
    /// Cost: length + 64 for each message.
    pub max_bytes: u64,
}

impl Buffer {
    /// # Errors
    /// When a limit is zero or negative.
    pub fn new(policy: Policy, count: i64, max_bytes: i64) -> Result<Self, Invalid> {
        let buffer =
            Self { policy, count: size("a buffer's count", count)?, max_bytes: positive("max_bytes", max_bytes)? };
        Ok(buffer)
    }

    /// Whether a buffer that holds this much takes one more.
    pub fn has_room(&self, count: usize, cost: u64) -> bool {
        count < self.count && cost < self.max_bytes
    }

    pub fn is_lossy(&self) -> bool {
        self.policy != Policy::Fixed
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Jitter {
    /// Uniform between 0 and the wait that is due.
    Full,
    None,
}

/// How long a dialler waits before it tries again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    pub initial: Duration,
    pub factor: f64,
    pub maximum: Duration,
    pub jitter: Jitter,
}

impl Retry {
    /// # Errors
    /// When a wait is not positive, the factor is below 1, or the longest wait is below the first.
    pub fn new(initial: f64, factor: f64, maximum: f64, jitter: Jitter) -> Result<Self, Invalid> {
        if !(factor >= 1.0 && factor.is_finite()) {
            return Err(Invalid(format!("factor must be at least 1, not {factor}")));
        }
        if maximum < initial {
            return Err(Invalid(format!("maximum must be at least initial ({initial} s), not {maximum} s")));
        }
        Ok(Self { initial: seconds("initial", initial)?, factor, maximum: seconds("maximum", maximum)?, jitter })
    }

    /// Every wait the same.
    ///
    /// # Errors
    /// When the period is not positive.
    pub fn fixed(period: f64) -> Result<Self, Invalid> {
        let period = seconds("reconnect", period)?;
        Ok(Self { initial: period, factor: 1.0, maximum: period, jitter: Jitter::None })
    }
}

/// Everything that a connection was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    pub heartbeat_interval: Duration,
    pub heartbeat_timeout: Duration,
    pub open_timeout: Duration,
    pub close_timeout: Duration,
    pub max_size: usize,
    pub read_buffer: Buffer,
    pub write_buffer: Buffer,
    pub nodelay: bool,
    pub cork: bool,
    pub protocol: Protocol,
    /// None: the first break or failed dial ends the handle. Means nothing on an accepted connection.
    pub reconnect: Option<Retry>,
    /// Means nothing on an accepted connection.
    pub on_new_session: OnNewSession,
    /// How long an accepted connection waits for its dialler's return; zero: it ends with its link.
    pub session_timeout: Duration,
    pub name: Option<String>,
}

/// The options as a caller wrote them, in seconds and bytes.
#[derive(Debug, Clone)]
pub struct Settings {
    pub heartbeat_interval: f64,
    pub heartbeat_timeout: Option<f64>,
    pub open_timeout: f64,
    pub close_timeout: f64,
    pub max_size: i64,
    pub read_buffer: Buffer,
    pub write_buffer: Buffer,
    pub nodelay: bool,
    pub cork: bool,
    pub protocol: Protocol,
    pub reconnect: Option<Retry>,
    pub on_new_session: OnNewSession,
    pub session_timeout: f64,
    pub name: Option<String>,
}

impl Settings {
    /// # Errors
    /// When a value makes no sense, alone or beside another.
    pub fn check(self) -> Result<Options, Invalid> {
        let heartbeat_interval = seconds("heartbeat_interval", self.heartbeat_interval)?;
        Ok(Options {
            heartbeat_timeout: heartbeat_timeout(self.heartbeat_interval, self.heartbeat_timeout)?,
            heartbeat_interval,
            open_timeout: seconds("open_timeout", self.open_timeout)?,
            close_timeout: seconds("close_timeout", self.close_timeout)?,
            max_size: max_size(self.max_size)?,
            read_buffer: self.read_buffer,
            write_buffer: self.write_buffer,
            nodelay: self.nodelay,
            cork: self.cork,
            protocol: self.protocol,
            reconnect: self.reconnect,
            on_new_session: self.on_new_session,
            session_timeout: session_timeout(self.session_timeout)?,
            name: self.name,
        })
    }
}

impl Default for Settings {
    fn default() -> Self {
        let buffer = Buffer {
            policy: Policy::Fixed,
            count: usize::try_from(BUFFER_COUNT).unwrap_or(usize::MAX),
            max_bytes: BUFFER_BYTES,
        };
        let retry = Retry::new(BACKOFF_INITIAL, BACKOFF_FACTOR, BACKOFF_MAXIMUM, Jitter::Full);
        Self {
            heartbeat_interval: HEARTBEAT_INTERVAL,
            heartbeat_timeout: None,
            open_timeout: OPEN_TIMEOUT,
            close_timeout: CLOSE_TIMEOUT,
            max_size: i64::try_from(MAX_SIZE).unwrap_or(i64::MAX),
            read_buffer: buffer,
            write_buffer: buffer,
            nodelay: NODELAY,
            cork: CORK,
            protocol: PROTOCOL,
            reconnect: retry.ok(),
            on_new_session: ON_NEW_SESSION,
            session_timeout: SESSION_TIMEOUT,
            name: None,
        }
    }
}

/// What a listener holds of sessions whose links are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    pub session_timeout: Duration,
    pub max_sessions: usize,
    /// All their buffers together.
    pub max_held_bytes: u64,
}

impl Holding {
    /// # Errors
    /// When the timeout is negative or a limit is not positive.
    pub fn new(session_timeout: f64, max_sessions: i64, max_held_bytes: i64) -> Result<Self, Invalid> {
        Ok(Self {
            session_timeout: self::session_timeout(session_timeout)?,
            max_sessions: size("max_sessions", max_sessions)?,
            max_held_bytes: positive("max_held_bytes", max_held_bytes)?,
        })
    }
}

/// A positive, finite number of seconds.
///
/// # Errors
/// Otherwise.
pub fn seconds(name: &str, value: f64) -> Result<Duration, Invalid> {
    match Duration::try_from_secs_f64(value) {
        Ok(duration) if duration > Duration::ZERO && value <= LONGEST => Ok(duration),
        // As Python writes it: NaN is nan there.
        _ => Err(Invalid(format!("{name} must be above 0 and at most {LONGEST} s, not {value} s").to_lowercase())),
    }
}

/// Zero: a session lasts as long as its link.
fn session_timeout(value: f64) -> Result<Duration, Invalid> {
    if value == 0.0 {
        return Ok(Duration::ZERO);
    }
    match seconds("session_timeout", value) {
        Err(_) if value <= 0.0 => Err(Invalid(format!("session_timeout must be at least 0 s, not {value} s"))),
        checked => checked,
    }
}

/// A positive count.
///
/// # Errors
/// Otherwise.
pub fn size(name: &str, value: i64) -> Result<usize, Invalid> {
    positive(name, value).map(|value| usize::try_from(value).unwrap_or(usize::MAX))
}

fn positive(name: &str, value: i64) -> Result<u64, Invalid> {
    match u64::try_from(value) {
        Ok(value) if value > 0 => Ok(value),
        _ => Err(Invalid(format!("{name} must be at least 1, not {value}"))),
    }
}

fn max_size(value: i64) -> Result<usize, Invalid> {
    let checked = size("max_size", value)?;
    if checked > HARD_MAX_SIZE {
        return Err(Invalid(format!("max_size must be at most {HARD_MAX_SIZE} bytes, not {value}")));
    }
    Ok(checked)
}

fn heartbeat_timeout(interval: f64, timeout: Option<f64>) -> Result<Duration, Invalid> {
    let Some(timeout) = timeout else {
        return seconds("heartbeat_timeout", (interval * DEFAULT_TIMEOUT_INTERVALS).max(LEAST_DEFAULT_TIMEOUT));
    };
    let least = (interval * 2.0).max(LEAST_HEARTBEAT_TIMEOUT);
    if timeout < least {
        let rule = "twice the heartbeat_interval and 0.1 s";
        return Err(Invalid(format!("heartbeat_timeout must be at least {least} s ({rule}), not {timeout} s")));
    }
    seconds("heartbeat_timeout", timeout)
}

/// A hundred years: beyond it, arithmetic on deadlines could overflow.
const LONGEST: f64 = 3.2e9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_timeout_is_four_intervals_and_at_least_twenty_seconds() {
        assert_eq!(heartbeat_timeout(1.0, None).unwrap(), Duration::from_secs(20));
        assert_eq!(heartbeat_timeout(6.0, None).unwrap(), Duration::from_secs(24));
    }

    #[test]
    fn a_timeout_below_twice_the_interval_names_both_numbers() {
        let Invalid(text) = heartbeat_timeout(1.0, Some(1.5)).unwrap_err();
        assert!(text.contains("at least 2 s") && text.contains("not 1.5 s"), "{text}");
        assert!(heartbeat_timeout(0.01, Some(0.05)).is_err());
        assert!(heartbeat_timeout(0.01, Some(0.1)).is_ok());
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert!(seconds("open_timeout", value).is_err(), "{value}");
        }
        assert!(max_size(0).is_err());
        assert!(max_size(1 << 27).is_err());
        assert!(max_size((1 << 27) - 1).is_ok());
        assert!(Buffer::new(Policy::Fixed, 0, 1).is_err());
        assert!(Buffer::new(Policy::Fixed, 1, 0).is_err());
        assert!(Retry::new(1.0, 0.5, 2.0, Jitter::Full).is_err());
        assert!(Retry::new(1.0, 2.0, 0.5, Jitter::Full).is_err());
        assert!(Retry::new(f64::NAN, 2.0, 0.5, Jitter::Full).is_err());
        for (timeout, sessions, bytes) in [(-1.0, 1, 1), (f64::NAN, 1, 1), (1.0, 0, 1), (1.0, 1, 0)] {
            assert!(Holding::new(timeout, sessions, bytes).is_err(), "{timeout} {sessions} {bytes}");
        }
        assert!(Holding::new(0.0, 1, 1).is_ok());
    }

    #[test]
    fn the_defaults_are_valid() {
        assert!(Settings::default().check().is_ok());
        assert!(Settings::default().reconnect.is_some());
    }
}
