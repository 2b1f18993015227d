//! The coalesced wake of a loop, by itself.

use std::sync::Arc;
use std::time::Duration;

use super::super::errands::Errands;
use super::super::net::{self, Signal};
use super::in_orders;

const PUSHES: usize = 3;

#[test]
fn a_pushed_errand_is_always_done() {
    in_orders(20_000, || {
        let errands: Arc<Errands<usize>> = Arc::default();
        let signal: Arc<Signal> = Arc::default();
        let pushers: Vec<_> = (0..2)
            .map(|_| {
                let errands = Arc::clone(&errands);
                shuttle::thread::spawn(move || (0..PUSHES).for_each(|errand| assert!(errands.push(errand))))
            })
            .collect();
        errands.watch(Arc::clone(&signal));
        let mut done = 0;
        while done < 2 * PUSHES {
            net::wait(Some(&signal), None, None);
            signal.clear();
            done += round(&errands, 2);
        }
        for pusher in pushers {
            pusher.join().expect("pushing does not panic");
        }
        assert_eq!(errands.next(true), None);
    });
}

/// One round of at most so many errands.
fn round(errands: &Errands<usize>, limit: usize) -> usize {
    errands.heard();
    (0..).find(|done| errands.next(*done < limit).is_none()).unwrap_or_default()
}

#[test]
fn errands_that_come_while_the_loop_is_at_them_cost_no_write() {
    in_orders(2_000, || {
        let errands: Arc<Errands<usize>> = Arc::default();
        let signal: Arc<Signal> = Arc::default();
        errands.watch(Arc::clone(&signal));
        errands.begin();
        let pushers = [0, 1].map(|_| {
            let errands = Arc::clone(&errands);
            shuttle::thread::spawn(move || (0..PUSHES).for_each(|errand| assert!(errands.push(errand))))
        });
        for pusher in pushers {
            pusher.join().expect("pushing does not panic");
        }
        assert!(!net::wait(Some(&signal), None, Some(Duration::ZERO)).signal);
        assert_eq!((0..).find(|_| errands.next(true).is_none()), Some(2 * PUSHES));
    });
}

#[test]
fn a_descriptor_that_is_given_back_and_taken_again_loses_no_errand() {
    in_orders(10_000, || {
        let errands: Arc<Errands<usize>> = Arc::default();
        let pusher = {
            let errands = Arc::clone(&errands);
            shuttle::thread::spawn(move || (0..PUSHES).for_each(|errand| assert!(errands.push(errand))))
        };
        let mut done = 0;
        while done < PUSHES {
            let signal: Arc<Signal> = Arc::default();
            errands.watch(Arc::clone(&signal));
            while errands.is_watched() && done < PUSHES {
                net::wait(Some(&signal), None, None);
                signal.clear();
                done += round(&errands, 2);
                errands.unwatch();
            }
        }
        pusher.join().expect("pushing does not panic");
    });
}

#[test]
fn an_errand_is_refused_once_the_loop_is_closed_and_never_forgotten_before() {
    in_orders(5_000, || {
        let errands: Arc<Errands<usize>> = Arc::default();
        let pusher = {
            let errands = Arc::clone(&errands);
            shuttle::thread::spawn(move || (0..PUSHES).filter(|errand| errands.push(*errand)).count())
        };
        let (left, _) = errands.end();
        let accepted = pusher.join().expect("pushing does not panic");
        assert_eq!(left.len(), accepted);
        assert!(!errands.is_alive() && errands.next(true).is_none());
    });
}

/// As a task that runs its loop itself, and waits there for what others of this loop do.
#[test]
fn a_loop_that_runs_within_an_errand_is_told_of_all_the_others() {
    in_orders(2_000, || {
        let errands: Arc<Errands<usize>> = Arc::default();
        let signal: Arc<Signal> = Arc::default();
        errands.watch(Arc::clone(&signal));
        errands.begin();
        errands.push(0);
        errands.push(1);
        let pusher = {
            let errands = Arc::clone(&errands);
            shuttle::thread::spawn(move || assert!(errands.push(2)))
        };
        assert_eq!(errands.next(true), Some(0));
        let mut done = 1;
        while done < 3 {
            net::wait(Some(&signal), None, None);
            signal.clear();
            done += round(&errands, 2);
        }
        pusher.join().expect("pushing does not panic");
        assert_eq!(errands.next(true), None);
    });
}
