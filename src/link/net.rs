//! The only file that names sockets, and the only one outside `py` with unsafe code. What is Linux's
//! own stands here: eventfd, `MSG_NOSIGNAL`, `TCP_INFO`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is where the sockets live")]
#![allow(
    unsafe_code,
    reason = "TCP_INFO, the signal mask, fork, names and reading into spare memory have no safe binding here; each block says why it holds"
)]

use std::ffi::{CStr, CString};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::{DupFlags, Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags};
pub use tokio::io::unix::AsyncFd;

use super::fork::{Descriptor, KnownTo};
use super::lookup::Unresolved;
use crate::proto::options::Options;

/// The kernel's send buffer where the round trip is below `SHORT_PATH`: letting it grow costs a
/// 1 MiB message half its rate and a round trip beside a stream its p99 (`speed.md`).
const SHORT_PATH_SEND_BUFFER: usize = 256 * 1024;
const SHORT_PATH: Duration = Duration::from_millis(1);

/// So much is copied together and sent as one piece: a list of pieces costs the kernel 0.1 µs more.
const SMALL: usize = 256;

/// A connected, non-blocking TCP socket. tokio does not watch it unless somebody asks for that.
#[derive(Debug)]
pub struct Socket {
    fd: Descriptor,
}

impl Socket {
    /// One that is not connected yet.
    fn new(address: SocketAddr) -> io::Result<Self> {
        let open = || Ok(stream_socket(address)?.into());
        Ok(Self { fd: Descriptor::open(open)? })
    }

    /// Reads what is there into `buffer`; 0 is the end of the stream.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let recv = || rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::DONTWAIT).map(|(_, length)| length);
        Ok(retry_on_intr(recv)?)
    }

    /// Appends what is there to `body`, whose memory has room for `most` bytes; 0 is the end of the stream.
    pub fn recv_onto(&self, body: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        let spare = body.spare_capacity_mut();
        let most = spare.len().min(most);
        let recv = || rustix::net::recv(&self.fd, &mut spare[..most], RecvFlags::DONTWAIT).map(|(_, length)| length);
        let length = retry_on_intr(recv)?;
        // SAFETY: the kernel has written so many bytes behind the end, within the capacity.
        unsafe { body.set_len(body.len() + length) };
        Ok(length)
    }

    /// Hands as much of `parts` to the kernel as it takes.
    pub fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut small = [0; SMALL];
        let length = gather(parts, &mut small);
        let send = || match length {
            Some(length) => rustix::net::send(&self.fd, &small[..length], flags),
            None => rustix::net::sendmsg(&self.fd, parts, &mut SendAncillaryBuffer::default(), flags),
        };
        Ok(retry_on_intr(send)?)
    }

    /// The number, for an event loop to watch until this is dropped.
    pub fn lend(&self) -> RawFd {
        self.fd.lend()
    }

    fn accept(&self) -> io::Result<(Self, SocketAddr)> {
        let mut peer = None;
        let fd = Descriptor::open(|| {
            let (fd, address) = rustix::net::acceptfrom_with(&self.fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
            peer = address;
            Ok(fd)
        })?;
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        Ok((Self { fd }, peer.ok_or(io::ErrorKind::AddrNotAvailable)?))
    }

    fn is_its_own_peer(&self) -> bool {
        let ends = socket2::SockRef::from(self);
        match (ends.local_addr(), ends.peer_addr()) {
            (Ok(local), Ok(peer)) => local.as_socket() == peer.as_socket(),
            // It has none.
            _ => false,
        }
    }

    /// Ends our stream; the peer's goes on.
    pub fn end_stream(&self) {
        // ENOTCONN: the peer was faster. There is nothing to be told then.
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Write);
    }

    /// Ends both streams at once, whoever else still holds the descriptor.
    pub fn hang_up(&self) {
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Both);
    }

    /// Whether a read would bring bytes, the end of the stream or an error.
    pub fn is_readable(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN | PollFlags::RDHUP)];
        matches!(rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1))
    }

    fn configure(&self, options: &Options) -> io::Result<()> {
        let socket = socket2::SockRef::from(&self.fd);
        socket.set_tcp_nodelay(options.nodelay)?;
        if self.round_trip().is_some_and(|round_trip| round_trip < SHORT_PATH) {
            socket.set_send_buffer_size(SHORT_PATH_SEND_BUFFER)?;
        }
        Ok(())
    }

    /// The kernel gives the link up when the peer has not acknowledged for so long what was handed over.
    pub(super) fn limit_unacknowledged(&self, limit: Duration) {
        // Where the system has no such limit the heartbeats find out, only later.
        let _ = socket2::SockRef::from(&self.fd).set_tcp_user_timeout(Some(limit));
    }

    /// The kernel's estimate of the round trip.
    fn round_trip(&self) -> Option<Duration> {
        // SAFETY: tcp_info is a plain struct of integers, for which all zeros is a value.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
        // SAFETY: the descriptor is ours and open; the kernel writes at most `length` bytes into `info`.
        let status = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            )
        };
        (status == 0).then(|| Duration::from_micros(u64::from(info.tcpi_rtt)))
    }
}

/// Copies `parts` together if they fit; returns how many bytes they are.
fn gather(parts: &[IoSlice<'_>], space: &mut [u8]) -> Option<usize> {
    let mut end = 0;
    for part in parts {
        space.get_mut(end..end + part.len())?.copy_from_slice(part);
        end += part.len();
    }
    Some(end)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Has the runtime watch a socket, until what is returned is dropped.
pub fn watch(socket: Arc<Socket>, interest: tokio::io::Interest) -> io::Result<AsyncFd<Arc<Socket>>> {
    // SAFETY: the socket owns its descriptor, never changes it, and lives in the Arc that the AsyncFd holds.
    let watch = unsafe { AsyncFd::register_with_interest(socket, interest) };
    watch.map_err(|error| error.into_parts().1)
}

/// A non-blocking TCP socket for addresses of this kind.
fn stream_socket(address: SocketAddr) -> io::Result<socket2::Socket> {
    let kind = socket2::Type::STREAM.nonblocking().cloexec();
    socket2::Socket::new_raw(socket2::Domain::for_address(address), kind, Some(socket2::Protocol::TCP))
}

/// Dials one address. Dropping the future gives the socket back.
pub async fn dial(address: SocketAddr, local: Option<SocketAddr>, options: &Options) -> io::Result<Socket> {
    let socket = Arc::new(Socket::new(address)?);
    let ends = socket2::SockRef::from(&*socket);
    // A server may take the port that this end happens to get.
    ends.set_reuse_address(true)?;
    if let Some(local) = local {
        ends.bind(&local.into())?;
    }
    {
        let _meeting = Meeting(&socket);
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        watch(Arc::clone(&socket), tokio::io::Interest::WRITABLE)?.writable().await?.retain_ready();
    }
    if let Some(error) = ends.take_error()? {
        return Err(error);
    }
    if socket.is_its_own_peer() {
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "dialled itself"));
    }
    let socket = Arc::into_inner(socket).expect("nobody watches it any more");
    socket.configure(options)?;
    Ok(socket)
}

/// While a dial goes on, given up or not: both ends of one on loopback can turn out to be one socket (simultaneous
/// open), which would keep its port from everybody else for a minute when it is closed.
struct Meeting<'a>(&'a Socket);

impl Drop for Meeting<'_> {
    fn drop(&mut self) {
        if self.0.is_its_own_peer() {
            // Closing it is then a reset, and leaves nothing behind.
            let _ = socket2::SockRef::from(self.0).set_linger(Some(Duration::ZERO));
        }
    }
}

/// A numeric address with port 0, in every way that the system reads; it asks nobody.
pub fn numeric(host: &str) -> Option<SocketAddr> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, 0));
    }
    address_info(host, libc::AI_NUMERICHOST).ok()?.into_iter().next()
}

/// The number of a network interface, which may be its name already.
pub fn interface(name: &str) -> io::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let name = CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    // SAFETY: a string with its end.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        number => Ok(number),
    }
}

/// All addresses of a name, with port 0, as the system's resolver has them now. Waits for it as long as it takes.
pub fn resolve(host: &str) -> Result<Vec<SocketAddr>, Unresolved> {
    address_info(host, 0)
}

fn address_info(host: &str, flags: i32) -> Result<Vec<SocketAddr>, Unresolved> {
    let host = CString::new(host).map_err(|_| Unresolved::NoSuchName(String::from("no name has a zero byte")))?;
    // SAFETY: addrinfo is a plain struct of integers and pointers, for which all zeros is a value.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    (hints.ai_flags, hints.ai_socktype) = (flags, libc::SOCK_STREAM);
    let mut list = std::ptr::null_mut();
    // SAFETY: a string with its end, hints that are filled, and a place for the list, which is ours if this is 0.
    let outcome = unsafe { libc::getaddrinfo(host.as_ptr(), std::ptr::null(), &raw const hints, &raw mut list) };
    if outcome != 0 {
        return Err(unresolved(outcome, io::Error::last_os_error()));
    }
    let mut found = Vec::new();
    let mut next = list;
    // SAFETY: the system's list, each entry alive until the list is freed; an address is as long as it says.
    while let Some(entry) = unsafe { next.as_ref() } {
        // SAFETY: as above; the storage has room for every kind of address.
        let address = unsafe {
            socket2::SockAddr::try_init(|storage, length| {
                let most = (*length).min(entry.ai_addrlen);
                std::ptr::copy_nonoverlapping(entry.ai_addr.cast::<u8>(), storage.cast::<u8>(), most as usize);
                *length = most;
                Ok(())
            })
        };
        found.extend(address.ok().and_then(|((), address)| address.as_socket()));
        next = entry.ai_next;
    }
    // SAFETY: it came from `getaddrinfo`, and nothing of it is used any more.
    unsafe { libc::freeaddrinfo(list) };
    Ok(found)
}

fn unresolved(outcome: i32, error: io::Error) -> Unresolved {
    if outcome == libc::EAI_SYSTEM {
        return Unresolved::Failed(words_of(&error));
    }
    // SAFETY: the words are the system's own, and stay.
    let words = unsafe { CStr::from_ptr(libc::gai_strerror(outcome)) }.to_string_lossy().to_lowercase();
    match outcome {
        libc::EAI_NONAME | libc::EAI_NODATA => Unresolved::NoSuchName(words),
        _ => Unresolved::Failed(words),
    }
}

/// A socket that is bound and listens, which no runtime knows yet.
pub struct Bound(Socket);

/// Binds and listens, before any runtime is there.
pub fn bind(address: SocketAddr) -> io::Result<Bound> {
    let bound = Socket::new(address)?;
    let socket = socket2::SockRef::from(&bound);
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(Bound(bound))
}

impl Bound {
    /// The address with the port that the system has picked.
    pub fn address(&self) -> io::Result<SocketAddr> {
        let address = socket2::SockRef::from(&self.0).local_addr()?;
        address.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }
}

/// A socket that accepts, on the runtime.
pub struct Acceptor {
    listener: AsyncFd<Arc<Socket>>,
}

impl Acceptor {
    /// Must be called on the runtime.
    pub fn new(bound: Bound) -> io::Result<Self> {
        Ok(Self { listener: watch(Arc::new(bound.0), tokio::io::Interest::READABLE)? })
    }

    /// The next connection and its peer's address.
    pub async fn accept(&self, options: &Options) -> io::Result<(Socket, SocketAddr)> {
        loop {
            let mut ready = self.listener.readable().await?;
            match self.listener.get_ref().accept() {
                Ok((socket, peer)) => {
                    socket.configure(options)?;
                    return Ok((socket, peer));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => return Err(error),
            }
        }
    }
}

/// A descriptor that becomes readable when somebody signals it.
#[derive(Debug)]
pub struct Signal {
    fd: Descriptor,
}

impl Signal {
    pub fn new() -> io::Result<Self> {
        let open = || Ok(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(Self { fd: Descriptor::open(open)? })
    }

    /// The number, for an event loop to watch until this is dropped.
    pub fn lend(&self) -> RawFd {
        self.fd.lend()
    }

    pub fn set(&self) {
        // EAGAIN: the counter is full, so the descriptor is readable already.
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    pub fn clear(&self) {
        let _ = rustix::io::read(&self.fd, &mut [0u8; 8]);
    }
}

impl AsRawFd for Signal {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The system's monotonic clock. By libc: std's `Instant` takes three times as many instructions to become a duration.
pub fn monotonic() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills what is ours; this clock is always there, and never negative.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Lets others have this core.
pub fn yield_core() {
    rustix::thread::sched_yield();
}

/// How often this thread has slept in the kernel so far.
pub fn sleeps() -> u64 {
    // SAFETY: rusage is a plain struct of integers, for which all zeros is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills what is ours; it knows this question, and the thread that asks is there.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    usage.ru_nvcsw.unsigned_abs()
}

/// What a thread waits for on its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    Read,
    Write,
    Both,
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ready {
    pub signal: bool,
    pub socket: bool,
}

/// Blocks this thread until `signal` is set, `socket` is ready, `limit` is over or a signal handler ran. Without a
/// `signal` nobody can end it sooner.
pub fn wait(signal: Option<&Signal>, socket: Option<(&Socket, Interest)>, limit: Option<Duration>) -> Ready {
    let flags = match socket {
        Some((_, Interest::Write)) => PollFlags::OUT,
        Some((_, Interest::Both)) => PollFlags::IN | PollFlags::RDHUP | PollFlags::OUT,
        _ => PollFlags::IN | PollFlags::RDHUP,
    };
    let Some(signal) = signal else {
        let mut fds = socket.map(|(socket, _)| PollFd::new(&socket.fd, flags));
        let outcome = rustix::event::poll(fds.as_mut_slice(), limit.map(timespec).as_ref());
        return Ready { signal: false, socket: outcome.is_ok_and(|count| count > 0) };
    };
    // The socket first: it is what mostly comes, and the kernel stops to look closely there.
    let mut fds = [PollFd::new(&signal.fd, PollFlags::IN), PollFd::new(&signal.fd, PollFlags::IN)];
    if let Some((socket, _)) = socket {
        fds[0] = PollFd::new(&socket.fd, flags);
    }
    let fds = if socket.is_some() { &mut fds[..] } else { &mut fds[1..] };
    match rustix::event::poll(fds, limit.map(timespec).as_ref()) {
        Ok(_) => {
            let is_ready = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| !fd.revents().is_empty());
            Ready { signal: is_ready(fds.last()), socket: socket.is_some() && is_ready(fds.first()) }
        }
        // EINTR: the caller looks at its signals, and at everything else.
        Err(_) => Ready::default(),
    }
}

/// The same over several sockets to be read: whether `signal` is set, and which of them are ready.
pub fn wait_for_any(signal: Option<&Signal>, sockets: &[&Socket], limit: Option<Duration>) -> (bool, Vec<bool>) {
    let mut fds: Vec<_> = signal.iter().map(|signal| PollFd::new(&signal.fd, PollFlags::IN)).collect();
    fds.extend(sockets.iter().map(|socket| PollFd::new(&socket.fd, PollFlags::IN | PollFlags::RDHUP)));
    let outcome = rustix::event::poll(&mut fds, limit.map(timespec).as_ref());
    let mut ready = fds.iter().map(|fd| outcome.is_ok() && !fd.revents().is_empty());
    let is_signalled = signal.is_some() && ready.next().unwrap_or(false);
    (is_signalled, ready.collect())
}

fn timespec(limit: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX), tv_nsec: limit.subsec_nanos().into() }
}

/// Keeps the process's signals for the threads that can handle them.
pub fn block_signals() {
    // SAFETY: `set` is filled before it is read, and the mask of this thread alone changes.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Has these called around every `fork` of this process, for as long as it lives.
pub(super) fn at_fork(
    before: extern "C" fn(),
    in_parent: extern "C" fn(),
    in_child: extern "C" fn(),
) -> io::Result<()> {
    // SAFETY: the functions live as long as the library, which nothing unloads; what they may do in the
    // child is theirs to know.
    let outcome = unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(outcome)) }
}

/// Closes what this process inherited; where a loop knows the number, something mute takes its place.
pub(super) fn leave_all(descriptors: impl IntoIterator<Item = (RawFd, KnownTo)>) {
    // SAFETY: it was open in the parent when that forked, and its owner here never closes it.
    let owned = |(descriptor, _)| unsafe { OwnedFd::from_raw_fd(descriptor) };
    let (of_loops, ours): (Vec<_>, Vec<_>) =
        descriptors.into_iter().partition(|(_, known_to)| *known_to == KnownTo::ALoop);
    // First what makes room for the mute one, should there be none left.
    ours.into_iter().map(owned).for_each(drop);
    let mute = rustix::event::eventfd(0, EventfdFlags::CLOEXEC);
    for mut descriptor in of_loops.into_iter().map(owned) {
        let Ok(mute) = &mute else { continue };
        // It fails only for numbers that are not open; then there is nothing to leave.
        let _ = rustix::io::dup3(mute, &mut descriptor, DupFlags::CLOEXEC);
        let _ = descriptor.into_raw_fd();
    }
}

/// Whether this is the process's main thread, the one in which Python handles signals.
pub fn is_main_thread() -> bool {
    // SAFETY: neither call has a precondition.
    unsafe { libc::gettid() == libc::getpid() }
}

/// The system's words without the number behind them.
pub fn words_of(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
