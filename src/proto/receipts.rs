//! What becomes of single messages that somebody waits for (`confirm=`): from the waiting zone of the
//! outbox over the begun one to its end. Knows places, not messages; whoever moves a message says so.
//!
//! Theory. A message has a place in one zone at a time, and places are counted from the first that ever
//! stood there, so that a thousand messages that pass cost a counter and not a search. A resume and a
//! redelivery leave places as they are: the same message stands where it stood.
//!
//! 1. `a_message_that_is_confirmed_or_lost_has_an_outcome_at_once`
//! 2. `what_slides_out_and_what_is_too_large_move_the_places_behind_them`
//! 3. `received_is_known_before_consumed_and_consumed_says_both`
//! 4. `a_resume_tells_of_exactly_what_the_peer_holds`
//! 5. `forgetting_one_leaves_the_others`
//! 6. `what_is_settled_is_told_once_and_by_name`, so that whoever waits for another message sleeps on.
//! 7. `each_costs_the_same_however_many_wait`

use std::collections::{BTreeMap, VecDeque};

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The peer's process holds it.
    Received,
    /// The peer's application has taken it.
    Consumed,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Confirmed,
    /// It was begun in a session that is gone, and is not redelivered.
    Lost,
    /// A sliding buffer discarded it.
    Dropped,
    /// The peer takes none of its size.
    TooLarge,
}

/// Names a receipt; none is given twice.
pub type Ticket = u64;

#[derive(Debug, Clone, Copy)]
struct Receipt {
    place: u64,
    ticket: Ticket,
    /// Nobody waits for it any more: it goes with its message.
    is_forgotten: bool,
}

#[derive(Debug, Default)]
pub struct Receipts {
    /// How many messages have left each zone: the place of its first.
    left_waiting: u64,
    left_begun: u64,
    last: Ticket,
    /// Made with the first receipt: most connections never ask for one, and an idle one pays for each byte.
    wanted: Option<Box<Wanted>>,
}

#[derive(Debug, Default)]
struct Wanted {
    waiting: Zone,
    begun: Zone,
    outcomes: BTreeMap<Ticket, Outcome>,
    /// Those whose outcome became known since somebody asked.
    settled: VecDeque<Ticket>,
}

/// The receipts of one zone: each line by place, and thereby by ticket too.
#[derive(Debug, Default)]
struct Zone {
    received: VecDeque<Receipt>,
    consumed: VecDeque<Receipt>,
}

impl Receipts {
    /// Of the message at `index` of the waiting zone, the last there.
    pub fn want_waiting(&mut self, index: u64, goal: Goal) -> Ticket {
        let receipt = self.issue(self.left_waiting + index);
        self.wanted.get_or_insert_default().waiting.line(goal).push_back(receipt);
        receipt.ticket
    }

    /// Of the message at `index` of the begun zone, the last there.
    pub fn want_begun(&mut self, index: u64, goal: Goal) -> Ticket {
        let receipt = self.issue(self.left_begun + index);
        self.wanted.get_or_insert_default().begun.line(goal).push_back(receipt);
        receipt.ticket
    }

    fn issue(&mut self, place: u64) -> Receipt {
        self.last += 1;
        Receipt { place, ticket: self.last, is_forgotten: false }
    }

    /// Nobody waits to hear that a message which was begun is received.
    pub fn is_idle(&self) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.begun.received.is_empty())
    }

    /// Nobody waits for it any more.
    pub fn forget(&mut self, ticket: Ticket) {
        let Some(wanted) = &mut self.wanted else { return };
        if wanted.outcomes.remove(&ticket).is_none() {
            wanted.lines().into_iter().for_each(|line| forget(line, ticket));
        }
    }

    /// Whether it is known what became of it.
    pub fn is_known(&self, ticket: Ticket) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| wanted.outcomes.contains_key(&ticket))
    }

    /// What became of it, once.
    pub fn take(&mut self, ticket: Ticket) -> Option<Outcome> {
        self.wanted.as_mut()?.outcomes.remove(&ticket)
    }

    /// One of those whose outcome has become known, each once: whoever waits for it is to look.
    pub fn next_settled(&mut self) -> Option<Ticket> {
        self.wanted.as_mut()?.settled.pop_front()
    }

    /// The first waiting message is begun, behind `count` others.
    pub fn begin(&mut self, count: u64) {
        if let Some(wanted) = &mut self.wanted {
            for goal in [Goal::Received, Goal::Consumed] {
                if let Some(receipt) = pop_at(wanted.waiting.line(goal), self.left_waiting) {
                    wanted.begun.line(goal).push_back(Receipt { place: self.left_begun + count, ..receipt });
                }
            }
        }
        self.left_waiting += 1;
    }

    /// The first waiting message was discarded.
    pub fn slide(&mut self) {
        if let Some(wanted) = &mut self.wanted {
            let receipt = wanted.waiting.pop_at(self.left_waiting);
            wanted.settle(receipt, Outcome::Dropped);
        }
        self.left_waiting += 1;
    }

    /// The first begun message was consumed.
    pub fn confirm(&mut self) {
        if let Some(wanted) = &mut self.wanted {
            let receipt = wanted.begun.pop_at(self.left_begun);
            wanted.settle(receipt, Outcome::Confirmed);
        }
        self.left_begun += 1;
    }

    /// The peer holds the first `count` of the begun zone.
    pub fn receive(&mut self, count: u64) {
        self.receive_to(self.left_begun + count);
    }

    /// As `receive`, by a place that `place` gave.
    pub fn receive_to(&mut self, place: u64) {
        let Some(wanted) = &mut self.wanted else { return };
        while let Some(receipt) = pop_front_if(&mut wanted.begun.received, |receipt| receipt.place < place) {
            wanted.settle(Some(receipt), Outcome::Confirmed);
        }
    }

    /// The place behind the first `count` of the begun zone, whatever leaves it meanwhile.
    pub fn place(&self, count: u64) -> u64 {
        self.left_begun + count
    }

    /// Whether somebody waits to hear that one of the begun messages between these places was received.
    pub fn wants_receipt(&self, from: u64, to: u64) -> bool {
        let Some(wanted) = &self.wanted else { return false };
        let received = &wanted.begun.received;
        let first = received.partition_point(|receipt| receipt.place < from);
        received.range(first..).take_while(|receipt| receipt.place < to).any(|receipt| !receipt.is_forgotten)
    }

    /// The begun zone, of `count` messages, was given up.
    pub fn discard(&mut self, count: u64) {
        if let Some(wanted) = &mut self.wanted {
            let Zone { received, consumed } = std::mem::take(&mut wanted.begun);
            for receipt in received.into_iter().chain(consumed) {
                wanted.settle(Some(receipt), Outcome::Lost);
            }
        }
        self.left_begun += count;
    }

    /// These of the begun zone were too large, by their index.
    pub fn shrink_begun(&mut self, indexes: &[u64]) {
        let Some(wanted) = &mut self.wanted else { return };
        for receipt in wanted.begun.shrink(self.left_begun, indexes) {
            wanted.settle(Some(receipt), Outcome::TooLarge);
        }
    }

    /// As `shrink_begun`, of the waiting zone.
    pub fn shrink_waiting(&mut self, indexes: &[u64]) {
        let Some(wanted) = &mut self.wanted else { return };
        for receipt in wanted.waiting.shrink(self.left_waiting, indexes) {
            wanted.settle(Some(receipt), Outcome::TooLarge);
        }
    }

    /// Gives back memory that an idle connection does not need.
    pub fn trim(&mut self) {
        self.wanted.take_if(|wanted| wanted.is_empty());
    }
}

impl Wanted {
    fn settle(&mut self, receipt: Option<Receipt>, outcome: Outcome) {
        if let Some(receipt) = receipt.filter(|receipt| !receipt.is_forgotten) {
            self.outcomes.insert(receipt.ticket, outcome);
            self.settled.push_back(receipt.ticket);
        }
    }

    fn lines(&mut self) -> [&mut VecDeque<Receipt>; 4] {
        let Self { waiting, begun, .. } = self;
        [&mut waiting.received, &mut waiting.consumed, &mut begun.received, &mut begun.consumed]
    }

    fn is_empty(&mut self) -> bool {
        let has_receipts = self.lines().iter().any(|line| !line.is_empty());
        !has_receipts && self.outcomes.is_empty() && self.settled.is_empty()
    }
}

impl Zone {
    fn line(&mut self, goal: Goal) -> &mut VecDeque<Receipt> {
        match goal {
            Goal::Received => &mut self.received,
            Goal::Consumed => &mut self.consumed,
        }
    }

    /// One message has one receipt at most: it is asked for by the call that sends it.
    fn pop_at(&mut self, place: u64) -> Option<Receipt> {
        pop_at(&mut self.received, place).or_else(|| pop_at(&mut self.consumed, place))
    }

    /// The messages with these indexes leave; returns their receipts.
    fn shrink(&mut self, left: u64, indexes: &[u64]) -> Vec<Receipt> {
        let mut gone = Vec::new();
        for line in [&mut self.received, &mut self.consumed] {
            line.retain_mut(|receipt| {
                let index = receipt.place - left;
                let before = indexes.partition_point(|removed| *removed < index);
                let is_gone = indexes.get(before) == Some(&index);
                if is_gone {
                    gone.push(*receipt);
                }
                receipt.place -= u64::try_from(before).unwrap_or(0);
                !is_gone
            });
        }
        gone
    }
}

fn pop_at(line: &mut VecDeque<Receipt>, place: u64) -> Option<Receipt> {
    pop_front_if(line, |receipt| receipt.place == place)
}

fn pop_front_if(line: &mut VecDeque<Receipt>, leaves: impl FnOnce(&Receipt) -> bool) -> Option<Receipt> {
    if leaves(line.front()?) { line.pop_front() } else { None }
}

/// In the middle it stays until its message goes, which costs nothing; at the ends it leaves at once.
fn forget(line: &mut VecDeque<Receipt>, ticket: Ticket) {
    let found = line.binary_search_by_key(&ticket, |receipt| receipt.ticket).ok();
    let Some(receipt) = found.and_then(|at| line.get_mut(at)) else { return };
    receipt.is_forgotten = true;
    while pop_front_if(line, |receipt| receipt.is_forgotten).is_some() {}
    while line.back().is_some_and(|receipt| receipt.is_forgotten) {
        line.pop_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_confirmed_or_lost_has_an_outcome_at_once() {
        let mut receipts = Receipts::default();
        let [first, third] = [0, 2].map(|index| receipts.want_waiting(index, Goal::Consumed));
        for begun in 0..3 {
            receipts.begin(begun);
        }
        receipts.confirm();
        assert_eq!((receipts.take(first), receipts.take(first)), (Some(Outcome::Confirmed), None));
        receipts.confirm();
        assert_eq!(receipts.take(third), None);
        receipts.discard(1);
        assert_eq!(receipts.take(third), Some(Outcome::Lost));
        let next = receipts.want_begun(0, Goal::Consumed);
        receipts.confirm();
        assert_eq!(receipts.take(next), Some(Outcome::Confirmed), "places go on behind what was given up");
        let cancelled = receipts.want_begun(0, Goal::Consumed);
        receipts.forget(cancelled);
        receipts.confirm();
        assert_eq!(receipts.take(cancelled), None);
    }

    #[test]
    fn what_slides_out_and_what_is_too_large_move_the_places_behind_them() {
        let mut receipts = Receipts::default();
        let tickets: Vec<Ticket> = (0..6).map(|index| receipts.want_waiting(index, Goal::Consumed)).collect();
        receipts.slide();
        // Of 1 to 5 the second and the fifth.
        receipts.shrink_waiting(&[1, 4]);
        let outcomes: Vec<Option<Outcome>> = tickets.iter().map(|ticket| receipts.take(*ticket)).collect();
        let large = Some(Outcome::TooLarge);
        assert_eq!(outcomes, [Some(Outcome::Dropped), None, large, None, None, large]);
        for begun in 0..3 {
            receipts.begin(begun);
        }
        receipts.shrink_begun(&[0]);
        assert_eq!(receipts.take(tickets[1]), large);
        receipts.confirm();
        assert_eq!((receipts.take(tickets[3]), receipts.take(tickets[4])), (Some(Outcome::Confirmed), None));
    }

    #[test]
    fn received_is_known_before_consumed_and_consumed_says_both() {
        let mut receipts = Receipts::default();
        let received = [0, 1, 3].map(|index| receipts.want_begun(index, Goal::Received));
        let mut consumed = Receipts::default();
        let late = consumed.want_begun(0, Goal::Consumed);
        let mark = receipts.place(2);
        assert!(receipts.wants_receipt(0, 1) && !receipts.wants_receipt(2, 3) && receipts.wants_receipt(2, 4));
        receipts.receive_to(mark);
        consumed.receive(2);
        assert_eq!(consumed.take(late), None);
        assert_eq!(received.map(|ticket| receipts.take(ticket).is_some()), [true, true, false]);
        for _ in 0..4 {
            receipts.confirm();
        }
        assert_eq!(receipts.take(received[2]), Some(Outcome::Confirmed));
    }

    #[test]
    fn a_resume_tells_of_exactly_what_the_peer_holds() {
        let mut receipts = Receipts::default();
        assert!(receipts.is_idle());
        for _ in 0..3 {
            receipts.confirm();
        }
        let tickets = [0, 1, 2].map(|index| receipts.want_begun(index, Goal::Received));
        assert!(!receipts.is_idle());
        receipts.receive(2);
        assert_eq!(tickets.map(|ticket| receipts.is_known(ticket)), [true, true, false]);
        assert_eq!(
            tickets.map(|ticket| receipts.take(ticket)),
            [Some(Outcome::Confirmed), Some(Outcome::Confirmed), None]
        );
        assert!(!receipts.is_idle());
        receipts.receive_to(receipts.place(3));
        assert!(receipts.is_idle() && receipts.is_known(tickets[2]));
    }

    #[test]
    fn forgetting_one_leaves_the_others() {
        let mut receipts = Receipts::default();
        let known = [0, 1].map(|index| receipts.want_begun(index, Goal::Consumed));
        receipts.confirm();
        receipts.confirm();
        let begun = [0, 1].map(|index| receipts.want_begun(index, Goal::Consumed));
        let waiting = [0, 1].map(|index| receipts.want_waiting(index, Goal::Consumed));
        for ticket in [known[0], begun[0], waiting[0]] {
            receipts.forget(ticket);
        }
        assert_eq!(known.map(|ticket| receipts.take(ticket)), [None, Some(Outcome::Confirmed)]);
        for _ in 0..2 {
            receipts.begin(2);
        }
        for _ in 0..4 {
            receipts.confirm();
        }
        for [forgotten, other] in [begun, waiting] {
            assert_eq!((receipts.take(forgotten), receipts.take(other)), (None, Some(Outcome::Confirmed)));
        }
    }

    #[test]
    fn what_is_settled_is_told_once_and_by_name() {
        let mut receipts = Receipts::default();
        let all = |receipts: &mut Receipts| std::iter::from_fn(|| receipts.next_settled()).collect::<Vec<_>>();
        let waiting = [0, 1].map(|index| receipts.want_waiting(index, Goal::Consumed));
        assert!(all(&mut receipts).is_empty());
        receipts.slide();
        assert_eq!(all(&mut receipts), [waiting[0]]);
        receipts.begin(0);
        let begun = [1, 2, 3].map(|index| receipts.want_begun(index, Goal::Received));
        receipts.forget(begun[1]);
        receipts.receive(4);
        assert_eq!(all(&mut receipts), [begun[0], begun[2]], "nobody waits for the one between");
        receipts.confirm();
        assert_eq!((all(&mut receipts), all(&mut receipts)), (vec![waiting[1]], vec![]));
        let lost = receipts.want_begun(3, Goal::Consumed);
        receipts.discard(4);
        assert_eq!(all(&mut receipts), [lost]);
    }

    #[test]
    fn each_costs_the_same_however_many_wait() {
        // A hundred thousand of them, in the least handy order: a search for each would take minutes.
        let mut receipts = Receipts::default();
        let tickets: Vec<Ticket> = (0..100_000).map(|index| receipts.want_begun(index, Goal::Consumed)).collect();
        for ticket in tickets[1..50_000].iter().rev() {
            receipts.forget(*ticket);
        }
        for ticket in &tickets {
            receipts.confirm();
            let is_forgotten = (tickets[1]..tickets[50_000]).contains(ticket);
            assert_eq!(receipts.next_settled(), (!is_forgotten).then_some(*ticket));
        }
        for ticket in tickets[50_000..].iter().rev() {
            assert!(receipts.is_known(*ticket));
            assert_eq!(receipts.take(*ticket), Some(Outcome::Confirmed));
        }
    }

    #[test]
    fn what_nobody_asks_for_any_more_takes_no_memory() {
        let mut receipts = Receipts::default();
        let first = receipts.want_begun(0, Goal::Received);
        receipts.trim();
        receipts.confirm();
        receipts.next_settled();
        receipts.trim();
        assert_eq!(receipts.take(first), Some(Outcome::Confirmed));
        receipts.trim();
        assert!(receipts.wanted.is_none());
        assert_ne!(receipts.want_begun(0, Goal::Received), first, "a ticket is given once");
    }
}
