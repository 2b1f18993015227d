//! `connect` and `listen` with their options, and the policies that are values.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString, PyTuple};

use super::convert::{Given, choice, integer, is_integer, is_number, kind, seconds};
use super::events::{not_started, os_error, shut_down_error};
use super::face::{Face, face};
use super::listening::{self, Core as ListenerCore};
use super::runtime::runtime_of;
use crate::link::dial::Route;
use crate::link::handle::Handle;
use crate::link::listener::{Listener, Wire};
use crate::link::net;
use crate::link::target::{self, NoAddress, Target};
use crate::proto::accepting::Accepting;
use crate::proto::events::Reason;
use crate::proto::options::{self as knobs, Holding, Jitter, OnNewSession, Policy, Protocol, Retry, Settings};

/// How many messages may wait, and what happens to one that finds no room.
///
/// `max_bytes` counts 64 bytes for each message beside its length; without it, it is 4 MiB. A buffer
/// accepts while what it holds is below both limits, so one oversized message passes alone.
#[pyclass(frozen, eq, hash, module = "netasync", name = "Buffer", from_py_object)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Buffer {
    pub buffer: knobs::Buffer,
}

impl Buffer {
    fn of(policy: Policy, count: i64) -> PyResult<Self> {
        Ok(Self { buffer: knobs::Buffer::new(policy, count, knobs::BUFFER_BYTES as i64)? })
    }

    fn made(policy: Policy, count: &Bound<'_, PyAny>, max_bytes: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let count = integer(count, "count")?;
        let Some(max_bytes) = max_bytes else { return Self::of(policy, count) };
        Ok(Self { buffer: knobs::Buffer::new(policy, count, integer(max_bytes, "max_bytes")?)? })
    }

    fn policy(&self) -> &'static str {
        match self.buffer.policy {
            Policy::Fixed => "fixed",
            Policy::Dropping => "dropping",
            Policy::Sliding => "sliding",
        }
    }
}

#[pymethods]
impl Buffer {
    /// Senders wait while it is full.
    ///
    /// Raises:
    ///     ValueError: a limit is below 1.
    #[staticmethod]
    #[pyo3(signature = (count, max_bytes = None))]
    fn fixed(count: &Bound<'_, PyAny>, max_bytes: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        Self::made(Policy::Fixed, count, max_bytes)
    }

    /// The newest message is refused while it is full, and counted.
    ///
    /// Raises:
    ///     ValueError: a limit is below 1.
    #[staticmethod]
    #[pyo3(signature = (count, max_bytes = None))]
    fn dropping(count: &Bound<'_, PyAny>, max_bytes: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        Self::made(Policy::Dropping, count, max_bytes)
    }

    /// The oldest messages are discarded to make room, and counted.
    ///
    /// Raises:
    ///     ValueError: a limit is below 1.
    #[staticmethod]
    #[pyo3(signature = (count, max_bytes = None))]
    fn sliding(count: &Bound<'_, PyAny>, max_bytes: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        Self::made(Policy::Sliding, count, max_bytes)
    }

    /// Messages.
    #[getter]
    fn count(&self) -> usize {
        self.buffer.count
    }

    /// Bytes, 64 for each message included.
    #[getter]
    fn max_bytes(&self) -> u64 {
        self.buffer.max_bytes
    }

    fn __repr__(&self) -> String {
        format!("Buffer.{}({}, max_bytes={})", self.policy(), self.buffer.count, self.buffer.max_bytes)
    }

    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<(Py<PyAny>, (usize, u64))> {
        let this = slf.get();
        let maker = slf.get_type().getattr(this.policy())?.unbind();
        Ok((maker, (this.buffer.count, this.buffer.max_bytes)))
    }
}

/// How long a dialler waits before it tries again: `initial` seconds, then `factor` times more each
/// time, up to `maximum`. With `jitter="full"` each wait is drawn from 0 to that, with `"none"` it is
/// that.
///
/// It starts afresh once a link was up for as long as the wait before it, and for ten times `initial` or
/// `maximum`, whichever is less (1 s with the defaults). Neither a message nor how the link ended changes
/// anything in that. A connection that closes does not rest: it dials at once, and again after at most
/// 250 ms each time, while anything is left to be delivered or said and `close_timeout` is not over.
#[pyclass(frozen, module = "netasync", name = "Backoff")]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    initial: f64,
    factor: f64,
    maximum: f64,
    retry: Retry,
}

#[pymethods]
impl Backoff {
    #[new]
    #[pyo3(
        signature = (initial = Given::MISSING, factor = Given::MISSING, maximum = Given::MISSING, jitter = Given::MISSING),
        text_signature = "(initial=0.1, factor=2.0, maximum=10.0, jitter='full')"
    )]
    fn new(initial: Given<'_>, factor: Given<'_>, maximum: Given<'_>, jitter: Given<'_>) -> PyResult<Self> {
        let initial = initial.number("initial", knobs::BACKOFF_INITIAL)?;
        let factor = factor.number("factor", knobs::BACKOFF_FACTOR)?;
        let maximum = maximum.number("maximum", knobs::BACKOFF_MAXIMUM)?;
        let choices = "'full' or 'none'";
        let jitter = match jitter.choice("jitter", choices, "full")?.as_str() {
            "full" => Jitter::Full,
            "none" => Jitter::None,
            other => return Err(PyValueError::new_err(format!("jitter must be {choices}, not {other:?}"))),
        };
        Ok(Self { initial, factor, maximum, retry: Retry::new(initial, factor, maximum, jitter)? })
    }

    /// The first wait, in seconds.
    #[getter]
    fn initial(&self) -> f64 {
        self.initial
    }

    /// How many times longer each wait is than the one before it, at least 1.
    #[getter]
    fn factor(&self) -> f64 {
        self.factor
    }

    /// The longest wait, in seconds.
    #[getter]
    fn maximum(&self) -> f64 {
        self.maximum
    }

    /// `"full"`: each wait is drawn evenly from 0 to what the others say, so that many diallers do not come back at
    /// once; `"none"`: it is that.
    #[getter]
    fn jitter(&self) -> &'static str {
        match self.retry.jitter {
            Jitter::Full => "full",
            Jitter::None => "none",
        }
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get() == self)
    }

    fn __hash__(&self) -> u64 {
        self.initial.to_bits() ^ self.factor.to_bits().rotate_left(21) ^ self.maximum.to_bits().rotate_left(42)
    }

    fn __repr__(&self) -> String {
        let Self { initial, factor, maximum, .. } = self;
        format!("Backoff(initial={initial}, factor={factor}, maximum={maximum}, jitter='{}')", self.jitter())
    }

    fn __reduce__(slf: &Bound<'_, Self>) -> (Py<PyAny>, (f64, f64, f64, &'static str)) {
        let this = slf.get();
        let maker = slf.get_type().into_any().unbind();
        (maker, (this.initial, this.factor, this.maximum, this.jitter()))
    }
}

/// Dials; the face for tasks. `options` are the keyword arguments of `netasync.connect`, all of them.
#[pyfunction]
pub fn connect(py: Python<'_>, target: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<Py<PyAny>> {
    let (target, said) = dial_target(target)?;
    let local = optional(options, "local_address")?
        .map(|local| {
            let local = text(&local, "local_address")?;
            target::local_address(&local).map_err(|why| no_address(why, &local))
        })
        .transpose()?;
    let choices = "'netasync' or 'net.async'";
    let protocol = choice(&required(options, "protocol")?, "protocol", choices)?;
    let protocol = Protocol::named(&protocol)
        .ok_or_else(|| PyValueError::new_err(format!("protocol must be {choices}, not {protocol:?}")))?;
    let mut settings = settings(options, protocol)?;
    settings.reconnect = reconnect(&required(options, "reconnect")?)?;
    let checked = settings.check()?;
    let runtime = runtime_of(optional(options, "runtime")?.as_ref())?;
    let route = Route { target, local };
    let link = py.detach(|| runtime.dial(route, checked)).map_err(|why| not_started(py, &why))?;
    face(py, &Handle::new(link, Some(said)), Face::Task)
}

/// Binds and listens; the face for tasks. `options` are the keyword arguments of `netasync.listen`.
#[pyfunction]
pub fn listen(py: Python<'_>, target: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<Py<PyAny>> {
    let address = listen_target(target)?;
    let accepting = accepting(options)?;
    let (protocol, wire) = listen_protocol(options)?;
    let checked = settings(options, protocol)?.check()?;
    let runtime = runtime_of(optional(options, "runtime")?.as_ref())?;
    if runtime.is_shut_down() {
        return Err(shut_down_error(py));
    }
    let holding = holding(options)?;
    let bind_error = |error: std::io::Error| os_error(&error, &address.to_string());
    let socket = net::bind(address).map_err(bind_error)?;
    let listener = Listener::new(socket.address().map_err(bind_error)?, checked, accepting, holding, wire);
    py.detach(|| runtime.listen(socket, &listener)).map_err(|why| not_started(py, &why))?;
    listening::face(py, ListenerCore::new(listener), Face::Task)
}

/// The defaults, for the test that compares them with Python's signatures.
#[pyfunction]
pub fn defaults<'py>(py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
    let table = PyDict::new(py);
    table.set_item("heartbeat_interval", knobs::HEARTBEAT_INTERVAL)?;
    table.set_item("heartbeat_timeout", py.None())?;
    table.set_item("open_timeout", knobs::OPEN_TIMEOUT)?;
    table.set_item("close_timeout", knobs::CLOSE_TIMEOUT)?;
    table.set_item("max_size", knobs::MAX_SIZE)?;
    let buffer = Buffer::of(Policy::Fixed, knobs::BUFFER_COUNT as i64)?;
    table.set_item("read_buffer", buffer)?;
    table.set_item("write_buffer", buffer)?;
    table.set_item("protocol", knobs::PROTOCOL.name())?;
    table.set_item("name", py.None())?;
    table.set_item("runtime", py.None())?;
    table.set_item("nodelay", knobs::NODELAY)?;
    table.set_item("cork", knobs::CORK)?;
    let backoff = Backoff::new(Given::MISSING, Given::MISSING, Given::MISSING, Given::MISSING)?;
    table.set_item("reconnect", backoff)?;
    table.set_item("local_address", py.None())?;
    table.set_item("accept_buffer", knobs::ACCEPT_BUFFER)?;
    table.set_item("max_connections", py.None())?;
    table.set_item("on_new_session", knobs::ON_NEW_SESSION.name())?;
    table.set_item("session_timeout", knobs::SESSION_TIMEOUT)?;
    table.set_item("max_sessions", knobs::MAX_SESSIONS)?;
    table.set_item("max_held_bytes", knobs::MAX_HELD_BYTES)?;
    table.set_item("shutdown_timeout", knobs::SHUTDOWN_TIMEOUT)?;
    Ok(table)
}

/// The names of the reasons that the core can give.
#[pyfunction]
pub fn reasons() -> Vec<&'static str> {
    Reason::ALL.iter().map(|reason| reason.name()).collect()
}

/// With `"auto"` each connection speaks what its dialler speaks.
fn listen_protocol(options: &Bound<'_, PyDict>) -> PyResult<(Protocol, Wire)> {
    let choices = "'netasync', 'net.async' or 'auto'";
    let name = choice(&required(options, "protocol")?, "protocol", choices)?;
    match (name.as_str(), Protocol::named(&name)) {
        ("auto", _) => Ok((Protocol::Native, Wire::Either)),
        (_, Some(protocol)) => Ok((protocol, Wire::One(protocol))),
        _ => Err(PyValueError::new_err(format!("protocol must be {choices}, not {name:?}"))),
    }
}

fn settings(options: &Bound<'_, PyDict>, protocol: Protocol) -> PyResult<Settings> {
    Ok(Settings {
        heartbeat_interval: seconds(&required(options, "heartbeat_interval")?, "heartbeat_interval")?,
        heartbeat_timeout: optional(options, "heartbeat_timeout")?
            .map(|value| seconds(&value, "heartbeat_timeout"))
            .transpose()?,
        open_timeout: seconds(&required(options, "open_timeout")?, "open_timeout")?,
        close_timeout: seconds(&required(options, "close_timeout")?, "close_timeout")?,
        max_size: integer(&required(options, "max_size")?, "max_size")?,
        read_buffer: buffer(&required(options, "read_buffer")?, "read_buffer")?,
        write_buffer: buffer(&required(options, "write_buffer")?, "write_buffer")?,
        nodelay: truth(&required(options, "nodelay")?, "nodelay")?,
        cork: truth(&required(options, "cork")?, "cork")?,
        protocol,
        reconnect: None,
        on_new_session: options
            .get_item("on_new_session")?
            .map_or(Ok(knobs::ON_NEW_SESSION), |value| on_new_session(&value))?,
        session_timeout: optional(options, "session_timeout")?
            .map_or(Ok(knobs::SESSION_TIMEOUT), |value| seconds(&value, "session_timeout"))?,
        name: optional(options, "name")?.map(|value| text(&value, "name")).transpose()?,
    })
}

/// And as it is shown.
fn dial_target(target: &Bound<'_, PyAny>) -> PyResult<(Target, Box<str>)> {
    if let Ok(text) = target.cast::<PyString>() {
        let text = text.to_cow()?;
        return Ok((Target::parse(&text)?, text.into()));
    }
    let (host, port) = host_and_port(target, "a target must be 'host:port' or (host, port)")?;
    let said = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    Ok((Target::new(&host, port)?, said.into()))
}

fn listen_target(target: &Bound<'_, PyAny>) -> PyResult<std::net::SocketAddr> {
    if let Ok(text) = target.cast::<PyString>() {
        let text = text.to_cow()?;
        return target::listen_address(&text).map_err(|why| no_address(why, &text));
    }
    if is_integer(target) {
        return target::listen_address_of("", integer(target, "port")?).map_err(|why| no_address(why, ""));
    }
    let (host, port) = host_and_port(target, "a target must be a port, 'host:port' or (host, port)")?;
    target::listen_address_of(&host, port).map_err(|why| no_address(why, &host))
}

fn no_address(why: NoAddress, text: &str) -> PyErr {
    match why {
        NoAddress::Invalid(invalid) => invalid.into(),
        NoAddress::System(error) => os_error(&error, text),
    }
}

fn host_and_port(target: &Bound<'_, PyAny>, rule: &str) -> PyResult<(String, i64)> {
    let wrong = || PyTypeError::new_err(format!("{rule}, not {}", kind(target)));
    let pair = target.cast::<PyTuple>().map_err(|_| wrong())?;
    if pair.len() != 2 {
        return Err(PyValueError::new_err(format!("{rule}, not a tuple of {}", pair.len())));
    }
    let host = pair.get_item(0)?.cast_into::<PyString>().map_err(|_| wrong())?;
    let port = pair.get_item(1)?;
    if !is_integer(&port) {
        return Err(PyTypeError::new_err(format!("the port must be an int, not {}", kind(&port))));
    }
    Ok((host.to_cow()?.into_owned(), integer(&port, "port")?))
}

fn accepting(options: &Bound<'_, PyDict>) -> PyResult<Accepting> {
    let most = optional(options, "max_connections")?;
    let most = most.map(|value| integer(&value, "max_connections")).transpose()?;
    Ok(Accepting::new(buffer(&required(options, "accept_buffer")?, "accept_buffer")?, most)?)
}

fn holding(options: &Bound<'_, PyDict>) -> PyResult<Holding> {
    let timeout = seconds(&required(options, "session_timeout")?, "session_timeout")?;
    let max_sessions = integer(&required(options, "max_sessions")?, "max_sessions")?;
    let max_held_bytes = integer(&required(options, "max_held_bytes")?, "max_held_bytes")?;
    Ok(Holding::new(timeout, max_sessions, max_held_bytes)?)
}

fn on_new_session(value: &Bound<'_, PyAny>) -> PyResult<OnNewSession> {
    let choices = "'redeliver' or 'discard'";
    let name = choice(value, "on_new_session", choices)?;
    OnNewSession::named(&name)
        .ok_or_else(|| PyValueError::new_err(format!("on_new_session must be {choices}, not {name:?}")))
}

fn buffer(value: &Bound<'_, PyAny>, name: &str) -> PyResult<knobs::Buffer> {
    if let Ok(buffer) = value.cast::<Buffer>() {
        return Ok(buffer.get().buffer);
    }
    if !is_integer(value) {
        return Err(PyTypeError::new_err(format!("{name} must be a number or a Buffer, not {}", kind(value))));
    }
    let count = integer(value, name)?;
    if count < 1 {
        return Err(PyValueError::new_err(format!("{name} must be at least 1, not {count}")));
    }
    Ok(Buffer::of(Policy::Fixed, count)?.buffer)
}

fn reconnect(value: &Bound<'_, PyAny>) -> PyResult<Option<Retry>> {
    if value.is_none() {
        return Ok(None);
    }
    if let Ok(backoff) = value.cast::<Backoff>() {
        return Ok(Some(backoff.get().retry));
    }
    if !is_number(value) {
        let text = format!("reconnect must be a Backoff, a number of seconds or None, not {}", kind(value));
        return Err(PyTypeError::new_err(text));
    }
    Ok(Some(Retry::fixed(seconds(value, "reconnect")?)?))
}

fn required<'py>(options: &Bound<'py, PyDict>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    options.get_item(name)?.ok_or_else(|| PyTypeError::new_err(format!("{name} is missing")))
}

fn optional<'py>(options: &Bound<'py, PyDict>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    Ok(options.get_item(name)?.filter(|value| !value.is_none()))
}

fn text(value: &Bound<'_, PyAny>, name: &str) -> PyResult<String> {
    let text = value.cast::<PyString>();
    let text = text.map_err(|_| PyTypeError::new_err(format!("{name} must be a str, not {}", kind(value))))?;
    Ok(text.to_cow()?.into_owned())
}

fn truth(value: &Bound<'_, PyAny>, name: &str) -> PyResult<bool> {
    let truth = value.cast::<PyBool>();
    Ok(truth.map_err(|_| PyTypeError::new_err(format!("{name} must be True or False, not {}", kind(value))))?.is_true())
}
