//! The one task for each connection: dials, keeps time, speaks heartbeats, judges after one more look,
//! and reads and drains wherever nobody else is there to do it. It acts; `Endpoint` decides.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{Interest, Ready};

use super::clock;
use super::dial::{Dialed, Dialling, Way, dial};
use super::driver::Driver;
use super::greeting;
use super::link::{Link, Rx, Status, StreamEnd};
use super::net::{self, AsyncFd, Socket, words_of};
use super::sync;
use super::sync::atomic::Ordering;
use crate::proto::Moment;
use crate::proto::account::Stats;
use crate::proto::endpoint::{Endpoint, Facts, Input, Order, Phase, Role, State};
use crate::proto::events::{Connected, Event, Fault, Reason};
use crate::proto::hello::{Failure, Fate};
use crate::proto::memory::Quiet;
use crate::proto::round::Purpose;

/// Memory is given back no sooner than this, however small the timeouts are.
const LEAST_QUIET: Duration = Duration::from_millis(100);

/// The socket while the runtime watches it. Dropping it takes it off the runtime's hands.
struct Watch {
    fd: AsyncFd<Arc<Socket>>,
    duty: Duty,
}

/// What the runtime watches a socket for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Duty {
    /// Reads and writes, because nobody else does.
    Serve(Interest),
    /// Somebody else reads and writes: only to hear of a reset.
    Listen,
}

impl Duty {
    fn interest(self) -> Interest {
        match self {
            Self::Serve(interest) => interest,
            Self::Listen => Interest::WRITABLE,
        }
    }
}

pub struct Supervisor {
    link: Arc<Link>,
    endpoint: Endpoint,
    /// A dialler has one. Not in here: whatever the task holds it has room for all its life, in every connection.
    way: Option<Arc<Way>>,
    dialling: Option<Dialling>,
    /// Greetings before this dial.
    greetings: u32,
    /// A link that is up and not installed yet.
    dialed: Option<Box<Dialed>>,
    watch: Option<Watch>,
    /// The moment of the last tick, the reads so far and whether bytes lay there then.
    last_tick: (Moment, u64, bool),
    /// Since when no message has come or gone.
    quiet: Quiet,
    /// Ends the handle when this is dropped, however that comes, a runtime that never ran it included.
    _end: EndWithSupervisor,
}

impl Supervisor {
    pub(super) fn dialler(link: Arc<Link>, endpoint: Endpoint, way: Arc<Way>) -> Self {
        Self::new(link, endpoint, Some(way), None)
    }

    pub fn accepted(link: Arc<Link>, endpoint: Endpoint, dialed: Dialed) -> Self {
        Self::new(link, endpoint, None, Some(dialed))
    }

    fn new(link: Arc<Link>, endpoint: Endpoint, way: Option<Arc<Way>>, dialed: Option<Dialed>) -> Self {
        let now = clock::now();
        let (last_tick, quiet) = ((now, 0, false), Quiet::new(now));
        let _end = EndWithSupervisor(Arc::clone(&link));
        let dialed = dialed.map(Box::new);
        Self { link, endpoint, way, dialling: None, greetings: 0, dialed, watch: None, last_tick, quiet, _end }
    }

    /// Runs the connection to its end. A panic on the way ends this handle and no other. `stay` is dropped when the
    /// handle has ended: nobody waits for a farewell that may be left.
    pub async fn run<T>(&mut self, stay: &mut Option<T>) {
        self.start();
        while self.endpoint.phase() != Phase::Ended {
            self.watch_as_needed();
            let input = self.wait().await;
            if let Some(input) = input {
                self.step(input);
            }
            self.attend();
            if self.endpoint.state() == State::Closed {
                stay.take();
            }
        }
        self.link.let_go();
    }

    /// Takes the first step. An accepted connection is up when this returns.
    pub fn start(&mut self) {
        if self.endpoint.phase() == Phase::New {
            let peer = self.dialed.as_ref().map(|dialed| dialed.peer.clone()).unwrap_or_default();
            self.step(Input::Started { peer });
        }
    }

    /// Waits for news, a dial, the socket or the next deadline.
    async fn wait(&mut self) -> Option<Input> {
        let deadline = self.deadline();
        tokio::select! {
            biased;
            () = self.link.news.notified() => None,
            dialed = finish(&mut self.dialling) => {
                self.dialling = None;
                Some(match dialed {
                    Ok(dialed) => {
                        let peer = dialed.peer.clone();
                        let is_resumed = dialed.greeted.as_ref().is_some_and(|greeted| greeted.agreement.is_resumed);
                        self.dialed = Some(Box::new(dialed));
                        Input::Dialed { peer, is_resumed }
                    }
                    Err(Failure { fault, is_lasting, session }) => {
                        self.link.heed(session);
                        match session {
                            Fate::Over { .. } => Input::SessionOver(fault),
                            _ if is_lasting => Input::Rejected(fault),
                            _ => Input::DialFailed(fault),
                        }
                    }
                })
            }
            () = serve(self.watch.as_ref(), &self.link) => None,
            () = clock::until(deadline) => None,
        }
    }

    /// Everything that may be due, cheap when nothing is.
    fn attend(&mut self) {
        while let Some(order) = self.link.next_order() {
            self.step(order);
        }
        if let Some(dialed) = self.link.take_returning() {
            let peer = dialed.peer.clone();
            self.dialed = Some(dialed);
            self.step(Input::Returned { peer });
        }
        let goodbye = self.link.rx().receiver.take_goodbye();
        if let Some(goodbye) = goodbye {
            self.step(Input::PeerClosed(goodbye));
        }
        if let Some(input) = self.link_end() {
            self.step(input);
        }
        self.link.heartbeat();
        self.link.tell_if_due();
        self.link.wake_finishers_due();
        self.judge();
        self.judge_stall();
        self.tick();
        self.step(Input::Looked);
    }

    fn step(&mut self, input: Input) {
        let has_greeted = self.link.greetings.load(Ordering::Relaxed) != self.greetings;
        let facts = Facts { has_greeted, ..self.link.facts() };
        let orders = self.endpoint.step(input, facts, clock::now());
        for order in orders {
            self.obey(order);
        }
        let phase = self.endpoint.phase();
        if matches!(phase, Phase::Replying { .. }) && self.link.role() == Role::Accepted {
            // Nobody would ever take what is sent from here on.
            self.link.refuse_more();
        }
        use Phase::{Answering, Draining, Parting, Replying};
        self.link.set_ending(matches!(phase, Answering { .. } | Draining { .. } | Parting { .. } | Replying { .. }));
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Dial => {
                self.greetings = self.link.greetings.load(Ordering::Relaxed);
                let is_goodbye = self.endpoint.has_only_goodbyes(self.link.facts());
                let purpose = if is_goodbye { Purpose::Goodbye } else { Purpose::Link };
                self.dialling = self.way.clone().map(|way| dial(way, Arc::clone(&self.link), purpose));
            }
            Order::HangUp => {
                self.dialling = None;
                self.dialed = None;
                self.watch = None;
                if let Some(socket) = self.link.hang_up() {
                    let limit = self.link.options().close_timeout;
                    sync::spawn(async move { clock::within(limit, greeting::read_to_end(&socket)).await });
                }
            }
            Order::EndStream => self.link.end_stream(),
            Order::SayClose { goodbye, after } => self.link.say_close(goodbye, after),
            Order::Blame(goodbye) => self.link.blame(&goodbye),
            Order::Forget => self.link.forget_session(),
            // The receiver of one that closes shows nothing but Closed, and its status stays.
            Order::Attach => self.attach(Connected::default(), Status::default()),
            Order::Deliver(event) => self.deliver(event),
        }
    }

    fn deliver(&mut self, event: Event) {
        let attempts = self.endpoint.attempts();
        let mut status = Status { state: self.endpoint.state(), attempts, ..Status::default() };
        match &event {
            // `install` completes it.
            Event::Connected(_) => {}
            // Without `reconnect` the end comes with it, and is shown by the value behind it.
            Event::Disconnected(_) => status.state = State::Disconnected,
            Event::Closed(closed) => {
                status.closed = Some(closed.clone());
                // What a goodbye costs is in nobody's account.
                let is_final = self.endpoint.phase() == Phase::Ended;
                status.account = (!is_final).then(|| Box::new(Stats { attempts, ..self.link.stats() }));
            }
        }
        match event {
            Event::Connected(connected) => self.attach(connected, status),
            event => self.link.deliver(event, status),
        }
        if self.endpoint.state() == State::Closed {
            self.link.sync_driver(&mut self.link.rx());
        }
    }

    fn attach(&mut self, connected: Connected, status: Status) {
        if let Some(dialed) = self.dialed.take() {
            self.link.install(connected, *dialed, status);
            self.link.drain();
        }
    }

    /// Why the link must end, if it must.
    fn link_end(&mut self) -> Option<Input> {
        let has_failed = self.link.tx().has_failed;
        if has_failed {
            // What the peer sent before it went can still be read, and says more than a failed write.
            self.link.look();
        }
        let mut rx = self.link.rx();
        if rx.receiver.has_goodbye() {
            // It came before the end, and says what the end means: the next round begins with it.
            return None;
        }
        let told = self.link.tx().told;
        if let Some(fault) = rx.receiver.fault().cloned() {
            return rx.socket.is_some().then_some(Input::Broke(fault));
        }
        let reason = told.unwrap_or(Reason::Reset);
        let failed = || Input::Broke(Fault { reason, detail: String::from("write failed") });
        match rx.end {
            None | Some(StreamEnd::Told) => has_failed.then(failed),
            Some(StreamEnd::Error(ref error)) => Some(Input::Broke(reset(error))),
            Some(StreamEnd::Eof) => {
                rx.end = Some(StreamEnd::Told);
                let is_cut = rx.receiver.link_down();
                self.link.publish(&mut rx);
                let broke = |reason| Input::Broke(Fault { reason, detail: String::new() });
                Some(match (told, is_cut) {
                    (Some(reason), _) => broke(reason),
                    (_, true) => broke(Reason::Truncated),
                    _ => Input::Eof,
                })
            }
        }
    }

    /// Silence and slow frames, each after one more look.
    fn judge(&mut self) {
        let is_due = |rx: &Rx| {
            rx.socket.is_some() && rx.end.is_none() && rx.receiver.deadline().is_some_and(|due| clock::now() >= due)
        };
        if !is_due(&self.link.rx()) {
            return;
        }
        self.link.look();
        let verdict = {
            let rx = self.link.rx();
            if is_due(&rx) { rx.receiver.judge(clock::now()) } else { None }
        };
        if let Some(reason) = verdict {
            self.step(Input::Broke(Fault { reason, detail: String::new() }));
        }
    }

    /// A kernel that takes nothing, after one more try.
    fn judge_stall(&mut self) {
        let is_due = |link: &Link| link.tx().sender.judge(clock::now());
        if is_due(&self.link).is_none() {
            return;
        }
        self.link.drain();
        if let Some(reason) = is_due(&self.link) {
            self.step(Input::Broke(Fault { reason, detail: String::new() }));
        }
    }

    /// Threads give their place back, a loop that left bytes unread for a whole tick is relieved, and
    /// memory that an idle connection does not need is returned.
    fn tick(&mut self) {
        let now = clock::now();
        self.trim(now);
        let mut rx = self.link.rx();
        if rx.reading.tick(now) {
            self.link.sync_driver(&mut rx);
        }
        if self.tick_due(&rx).is_none_or(|due| now < due) {
            return;
        }
        let lies_there = rx.socket.as_ref().is_some_and(|socket| socket.is_readable());
        let is_left = lies_there && self.last_tick.2 && self.last_tick.1 == rx.reads;
        self.last_tick = (now, rx.reads, lies_there);
        let is_headless = matches!(rx.reading.driver(), Driver::Thread) && rx.leader.is_none();
        drop(rx);
        if is_left || is_headless {
            self.link.look();
        }
        self.link.relieve_writer();
    }

    /// Memory that holds no message is given back when none came or went for a whole tick: never between those of
    /// a stream, the next of which would ask for it again. PING and PONG disturb nothing.
    fn trim(&mut self, now: Moment) {
        let period = self.while_of_quiet();
        if now >= self.quiet.due(period) && self.quiet.look(self.link.activity(), period, now) {
            self.link.trim();
        }
    }

    fn while_of_quiet(&self) -> Duration {
        self.relief().max(LEAST_QUIET)
    }

    /// When to tick: while a loop or threads read, or a loop is to write.
    fn tick_due(&self, rx: &Rx) -> Option<Moment> {
        let (last, relief) = (self.last_tick.0, self.relief());
        let is_left_to_loop = self.link.tx().drainer.is_some();
        rx.reading.tick_due(last, relief).or_else(|| is_left_to_loop.then(|| last.saturating_add(relief)))
    }

    /// A third of the smallest of the timeouts: how long a loop may leave bytes unread.
    fn relief(&self) -> Duration {
        let options = self.link.options();
        options.heartbeat_timeout.min(options.close_timeout) / 3
    }

    fn deadline(&self) -> Option<Moment> {
        let now = clock::now();
        let mut dues = [self.endpoint.deadline(), None, None, None, None, None, None, None];
        let mut rx = self.link.rx();
        let has_spare = rx.is_trim_due;
        if rx.socket.is_some() {
            if rx.end.is_none() {
                dues[1] = rx.receiver.deadline();
            }
            dues[2] = self.tick_due(&rx).map(|due| due.max(now + Duration::from_millis(1)));
            dues[4] = self.link.tell_deadline(&mut rx);
        }
        drop(rx);
        let tx = self.link.tx();
        if tx.socket.is_some() && !tx.has_failed && !tx.is_stalled {
            dues[3] = Some(tx.sender.heartbeat_deadline());
        }
        if tx.socket.is_some() && !tx.has_failed {
            dues[5] = tx.sender.stall_deadline();
        }
        dues[6] = tx.finishers.first();
        dues[7] = (has_spare || tx.is_trim_due).then(|| self.quiet.due(self.while_of_quiet()));
        dues.into_iter().flatten().min()
    }

    /// Registers the socket with the runtime exactly as far as nobody else serves it: a registered
    /// socket that something else reads costs 0.8 switches and 4–7 µs per round trip (`speed.md`).
    fn watch_as_needed(&mut self) {
        let Some((socket, duty)) = self.link.left_to_runtime() else {
            self.watch = None;
            return;
        };
        let is_watched = |watch: &Watch| watch.duty == duty && Arc::ptr_eq(watch.fd.get_ref(), &socket);
        if self.watch.as_ref().is_some_and(is_watched) {
            return;
        }
        self.watch = None;
        match net::watch(socket, duty.interest()) {
            Ok(fd) => self.watch = Some(Watch { fd, duty }),
            Err(error) => self.step(Input::Broke(reset(&error))),
        }
    }
}

impl Link {
    /// Moves with each message that comes or goes.
    fn activity(&self) -> u64 {
        let (rx, tx) = (self.rx(), self.tx());
        rx.receiver.activity().wrapping_add(tx.sender.activity())
    }

    fn trim(&self) {
        let (mut rx, mut tx) = (self.rx(), self.tx());
        rx.receiver.trim();
        tx.sender.trim();
        (rx.is_trim_due, tx.is_trim_due) = (false, false);
    }

    /// The handle has ended: what it could not deliver is counted, and nobody will ask for its bytes.
    fn let_go(&self) {
        self.tx().sender.give_up();
        self.trim();
    }

    /// What the runtime has to watch, because nobody else does.
    fn left_to_runtime(&self) -> Option<(Arc<Socket>, Duty)> {
        let rx = self.rx();
        let reads = rx.reading.is_tokio() && !rx.is_paused && rx.end.is_none();
        let tx = self.tx();
        let is_left = tx.drainer.is_none() && tx.draining_threads == 0;
        let writes = tx.is_stalled && tx.socket.is_some() && !tx.has_failed && is_left;
        let interest = match (reads, writes) {
            (false, false) if rx.is_reset => return None,
            // Only to hear of a reset at once, also where it follows bytes that a loop has read: libuv
            // watches no socket further that had an error, and does not say so. A socket with room is
            // silent about it, so no message wakes the runtime (EPOLLIN and EPOLLPRI would: 4–7 µs).
            (false, false) => return rx.socket.clone().map(|socket| (socket, Duty::Listen)),
            (true, false) => Interest::READABLE,
            (false, true) => Interest::WRITABLE,
            (true, true) => Interest::READABLE | Interest::WRITABLE,
        };
        rx.socket.clone().map(|socket| (socket, Duty::Serve(interest)))
    }

    /// A loop that watches for room and does not run is relieved; corked bytes whose loop is gone go out.
    fn relieve_writer(&self) {
        let mut tx = self.tx();
        if tx.drainer.as_ref().is_some_and(|driver| !driver.is_alive()) {
            tx.drainer = None;
        }
        if !tx.sender.is_empty() {
            self.write(&mut tx);
        }
    }
}

/// Whatever ends the supervisor, its handle ends too: a panic must not leave readers waiting.
struct EndWithSupervisor(Arc<Link>);

impl Drop for EndWithSupervisor {
    fn drop(&mut self) {
        let is_linked = self.0.rx().socket.is_some();
        if self.0.status().state != State::Closed || is_linked {
            drop(self.0.hang_up());
            self.0.end(if std::thread::panicking() { Reason::Internal } else { Reason::Shutdown });
        }
    }
}

/// Waits for readiness and does the work at once. Never returns without a watch.
async fn serve(watch: Option<&Watch>, link: &Link) {
    let Some(watch) = watch else {
        return std::future::pending().await;
    };
    let Ok(mut guard) = watch.fd.ready(watch.duty.interest()).await else { return };
    if watch.duty == Duty::Listen {
        if guard.ready().is_write_closed() {
            link.hear_reset();
        }
        guard.clear_ready_matching(Ready::WRITABLE);
        return;
    }
    if guard.ready().is_readable() && link.read_for_runtime() {
        guard.clear_ready_matching(Ready::READABLE);
    }
    if guard.ready().is_writable() && link.drain() {
        guard.clear_ready_matching(Ready::WRITABLE);
    }
}

async fn finish(dialling: &mut Option<Dialling>) -> Result<Dialed, Failure> {
    match dialling {
        Some(dialling) => dialling.await,
        None => std::future::pending().await,
    }
}

fn reset(error: &std::io::Error) -> Fault {
    Fault { reason: told_by(error).unwrap_or(Reason::Reset), detail: words_of(error) }
}

/// What an error of the socket says about the end of its link.
pub(super) fn told_by(error: &std::io::Error) -> Option<Reason> {
    match error.kind() {
        std::io::ErrorKind::ConnectionReset => Some(Reason::Reset),
        // Nothing but `limit_unacknowledged` brings it on a link that was up.
        std::io::ErrorKind::TimedOut => Some(Reason::WriteStalled),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn what_the_kernel_gave_up_is_a_stall_and_not_a_reset() {
        assert_eq!(told_by(&ErrorKind::TimedOut.into()), Some(Reason::WriteStalled));
        assert_eq!(told_by(&ErrorKind::ConnectionReset.into()), Some(Reason::Reset));
        assert_eq!(told_by(&ErrorKind::BrokenPipe.into()), None);
    }
}
