//! Names become addresses in threads of their own, because the system's resolver cannot be told to stop: one that
//! hangs keeps its thread until it gives up by itself. So there are at most `MOST` of them in a runtime, and one
//! for each host, whose answer is for everybody who waits for it. Whoever finds none free waits for its turn as long
//! as its attempt lasts. A numeric address asks nobody.
//!
//! Those whose last lookup hung get their turn behind all others: else some hosts that cannot be looked up would keep
//! each thread that comes free from a host that can. A thread ends when no further host waits. Nobody waits for one
//! that hangs: it holds nothing but this.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::clock;
use super::lock::Mutex;
use super::net::{self, words_of};
use crate::proto::Moment;
use crate::proto::events::Reason;
use crate::proto::hello::Failure;

/// So many lookups may be under way.
const MOST: usize = 32;
/// From here on a lookup hangs.
const LONG: Duration = Duration::from_secs(1);

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolved {
    /// Whoever was asked says that there is none.
    NoSuchName(String),
    /// Nobody could be asked, or nobody knew.
    Failed(String),
}

#[derive(Default)]
pub(super) struct Lookups {
    desk: Mutex<Desk>,
    /// Told when the last thread ends.
    is_quiet: Notify,
}

#[derive(Default)]
struct Desk {
    threads: usize,
    /// Those that are looked up, and those that wait for a thread. Who waits for the answer subscribes.
    hosts: HashMap<String, watch::Sender<Stage>>,
    waiting: VecDeque<String>,
    /// These had their turn, and hung.
    behind: VecDeque<String>,
}

/// How one who asks again and again has fared so far.
#[derive(Default)]
pub(super) struct History {
    has_hung: AtomicBool,
}

/// How far a lookup is.
#[derive(Debug, Clone, Default)]
enum Stage {
    #[default]
    Waiting,
    Asking,
    Answered(Answer),
}

#[derive(Debug, Clone)]
struct Answer {
    outcome: Result<Arc<[SocketAddr]>, Unresolved>,
    has_hung: bool,
}

impl Lookups {
    /// The addresses of `host`, looked up anew, if they are there by then.
    pub(super) async fn find(
        self: &Arc<Self>,
        host: &str,
        port: u16,
        history: &History,
        by: Moment,
    ) -> Result<Vec<SocketAddr>, Failure> {
        if let Some(address) = net::numeric(host) {
            return Ok(vec![with_port(address, port)]);
        }
        let failed = |detail| Failure::passing(Reason::NameLookupFailed, detail);
        let has_hung = history.has_hung.load(Ordering::Relaxed);
        let mut stage = self.ask(host, has_hung).map_err(|error| failed(words_of(&error)))?;
        let in_time = clock::before(by, stage.wait_for(|stage| matches!(stage, Stage::Answered(_)))).await;
        drop(in_time);
        let stage = stage.borrow().clone();
        let has_hung = match &stage {
            Stage::Waiting => has_hung,
            Stage::Asking => true,
            Stage::Answered(answer) => answer.has_hung,
        };
        history.has_hung.store(has_hung, Ordering::Relaxed);
        match stage {
            Stage::Waiting => Err(failed(format!("{MOST} other lookups have not been answered"))),
            Stage::Asking => Err(Failure::passing(Reason::OpenTimeout, String::from("the lookup was not answered"))),
            Stage::Answered(answer) => match answer.outcome {
                Ok(found) => Ok(found.iter().map(|address| with_port(*address, port)).collect()),
                Err(Unresolved::NoSuchName(words)) => Err(Failure::passing(Reason::NameNotFound, words)),
                Err(Unresolved::Failed(words)) => Err(failed(words)),
            },
        }
    }

    /// Joins the lookup of this host that is under way, or begins one.
    ///
    /// # Errors
    /// When the system gives no thread, and none is there that would come to it.
    fn ask(self: &Arc<Self>, host: &str, has_hung: bool) -> io::Result<watch::Receiver<Stage>> {
        let mut desk = self.desk.lock();
        if let Some(known) = desk.hosts.get(host) {
            return Ok(known.subscribe());
        }
        let (sender, stage) = watch::channel(Stage::default());
        desk.hosts.insert(host.to_owned(), sender);
        let queue = if has_hung { &mut desk.behind } else { &mut desk.waiting };
        queue.push_back(host.to_owned());
        if desk.threads < MOST {
            match self.start_thread() {
                Ok(()) => desk.threads += 1,
                Err(_) if desk.threads > 0 => {}
                Err(error) => {
                    // Without a thread nobody else waits.
                    *desk = Desk::default();
                    return Err(error);
                }
            }
        }
        Ok(stage)
    }

    fn start_thread(self: &Arc<Self>) -> io::Result<()> {
        let lookups = Arc::clone(self);
        let work = move || {
            net::block_signals();
            while let Some(host) = lookups.next() {
                let begun = clock::now();
                let outcome = net::resolve(&host).map(Arc::from);
                let has_hung = clock::now().saturating_sub(begun) > LONG;
                lookups.answer(&host, Answer { outcome, has_hung });
            }
        };
        std::thread::Builder::new().name("netasync-lookup".into()).spawn(work).map(drop)
    }

    /// The host whose turn it is; hosts for which nobody waits any more are left out. None ends the thread.
    fn next(&self) -> Option<String> {
        let mut desk = self.desk.lock();
        while let Some(host) = desk.next() {
            match desk.hosts.get(&host) {
                Some(sender) if sender.receiver_count() > 0 => {
                    sender.send_replace(Stage::Asking);
                    return Some(host);
                }
                _ => drop(desk.hosts.remove(&host)),
            }
        }
        desk.threads -= 1;
        if desk.threads == 0 {
            self.is_quiet.notify_one();
        }
        None
    }

    fn answer(&self, host: &str, answer: Answer) {
        // Whoever asks from now on asks anew.
        let sender = self.desk.lock().hosts.remove(host);
        if let Some(sender) = sender {
            sender.send_replace(Stage::Answered(answer));
        }
    }

    /// Waits until no lookup is under way.
    pub(super) async fn quiet(&self) {
        while self.desk.lock().threads > 0 {
            self.is_quiet.notified().await;
        }
    }
}

impl Desk {
    fn next(&mut self) -> Option<String> {
        self.waiting.pop_front().or_else(|| self.behind.pop_front())
    }
}

fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

#[cfg(all(test, not(feature = "races")))]
mod tests {
    use super::*;

    fn on_a_runtime<T>(story: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(story)
    }

    fn soon() -> Moment {
        clock::now() + Duration::from_millis(50)
    }

    async fn find(lookups: &Arc<Lookups>, host: &str) -> Result<Vec<SocketAddr>, Failure> {
        lookups.find(host, 7, &History::default(), soon()).await
    }

    fn answer(outcome: Result<&str, &str>) -> Answer {
        let outcome = outcome.map(|address| Arc::from([address.parse().unwrap()]));
        Answer { outcome: outcome.map_err(|words| Unresolved::Failed(words.to_owned())), has_hung: false }
    }

    /// As many threads are busy as there may be, each with a host of its own.
    fn busy() -> Arc<Lookups> {
        let lookups: Arc<Lookups> = Arc::default();
        let mut desk = lookups.desk.lock();
        desk.threads = MOST;
        for number in 0..MOST {
            desk.hosts.insert(format!("{number}.example"), watch::channel(Stage::Asking).0);
        }
        drop(desk);
        lookups
    }

    #[test]
    fn a_numeric_address_waits_for_no_lookup() {
        let lookups = busy();
        for (host, shown) in [("127.0.0.9", "127.0.0.9:7"), ("::1", "[::1]:7"), ("fe80::1%1", "[fe80::1%1]:7")] {
            let found = on_a_runtime(find(&lookups, host)).unwrap();
            assert_eq!(found.iter().map(SocketAddr::to_string).collect::<Vec<_>>(), [shown]);
        }
    }

    #[test]
    fn who_finds_no_thread_free_has_a_failed_lookup_and_keeps_its_place() {
        let lookups = busy();
        let failure = on_a_runtime(find(&lookups, "33.example")).unwrap_err();
        assert_eq!(failure.fault.reason, Reason::NameLookupFailed);
        assert_eq!(lookups.desk.lock().waiting, ["33.example"]);
        let (first, second) = (lookups.ask("33.example", false).unwrap(), lookups.ask("34.example", false).unwrap());
        assert_eq!(lookups.next().as_deref(), Some("33.example"), "in the order in which they came");
        drop(second);
        assert_eq!(lookups.next(), None, "nobody waits for the other one any more");
        lookups.answer("33.example", answer(Err("words")));
        assert!(matches!(*first.borrow(), Stage::Answered(Answer { outcome: Err(_), .. })));
        assert_eq!(lookups.desk.lock().hosts.len(), MOST, "and nothing is left of either");
    }

    #[test]
    fn a_lookup_that_is_not_answered_in_time_is_no_failed_one() {
        let lookups = busy();
        let failure = on_a_runtime(find(&lookups, "7.example")).unwrap_err();
        assert_eq!(failure.fault.reason, Reason::OpenTimeout);
    }

    #[test]
    fn a_host_that_hung_has_its_turn_behind_those_that_did_not() {
        let (lookups, hung) = (busy(), History::default());
        on_a_runtime(lookups.find("7.example", 7, &hung, soon())).unwrap_err();
        lookups.answer("7.example", answer(Err("words")));
        on_a_runtime(lookups.find("7.example", 7, &hung, soon())).unwrap_err();
        on_a_runtime(find(&lookups, "33.example")).unwrap_err();
        let _waiting = [lookups.ask("7.example", true).unwrap(), lookups.ask("33.example", false).unwrap()];
        assert_eq!(lookups.next().as_deref(), Some("33.example"));
        assert_eq!(lookups.next().as_deref(), Some("7.example"));
    }

    #[test]
    fn all_who_wait_for_a_host_share_one_lookup() {
        let lookups = busy();
        let waiting: Vec<_> = (0..300).map(|_| lookups.ask("33.example", false).unwrap()).collect();
        assert_eq!(lookups.desk.lock().waiting.len(), 1);
        assert_eq!(lookups.next().as_deref(), Some("33.example"));
        lookups.answer("33.example", answer(Ok("127.0.0.1:0")));
        assert!(waiting.iter().all(|stage| matches!(*stage.borrow(), Stage::Answered(Answer { outcome: Ok(_), .. }))));
    }

    #[test]
    fn a_name_is_looked_up_and_no_thread_stays() {
        let lookups: Arc<Lookups> = Arc::default();
        on_a_runtime(async {
            let by = clock::now() + Duration::from_secs(30);
            let found = lookups.find("localhost", 7, &History::default(), by).await.unwrap();
            assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 7), "{found:?}");
            lookups.quiet().await;
        });
        assert_eq!(lookups.desk.lock().threads, 0);
    }
}
