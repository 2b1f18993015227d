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

use std::collections::VecDeque;

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
    goal: Goal,
}

#[derive(Debug, Default)]
pub struct Receipts {
    /// How many messages have left each zone: the place of its first.
    left_waiting: u64,
    left_begun: u64,
    /// Made with the first receipt: most connections never ask for one, and an idle one pays for each byte.
    wanted: Option<Box<Wanted>>,
}

#[derive(Debug, Default)]
struct Wanted {
    /// By place.
    waiting: VecDeque<Receipt>,
    begun: VecDeque<Receipt>,
    next: Ticket,
    outcomes: Vec<(Ticket, Outcome)>,
}

impl Receipts {
    /// Of the message at `index` of the waiting zone, the last there.
    pub fn want_waiting(&mut self, index: u64, goal: Goal) -> Ticket {
        let place = self.left_waiting + index;
        let wanted = self.wanted.get_or_insert_default();
        let receipt = wanted.issue(place, goal);
        wanted.waiting.push_back(receipt);
        receipt.ticket
    }

    /// Of the message at `index` of the begun zone, the last there.
    pub fn want_begun(&mut self, index: u64, goal: Goal) -> Ticket {
        let place = self.left_begun + index;
        let wanted = self.wanted.get_or_insert_default();
        let receipt = wanted.issue(place, goal);
        wanted.begun.push_back(receipt);
        receipt.ticket
    }

    /// Nobody waits for a message that was begun.
    pub fn is_idle(&self) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.begun.is_empty())
    }

    /// Nobody waits for it any more.
    pub fn forget(&mut self, ticket: Ticket) {
        let Some(wanted) = &mut self.wanted else { return };
        wanted.waiting.retain(|receipt| receipt.ticket != ticket);
        wanted.begun.retain(|receipt| receipt.ticket != ticket);
        wanted.outcomes.retain(|(other, _)| *other != ticket);
    }

    /// What became of it, once.
    pub fn is_known(&self, ticket: Ticket) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| wanted.outcomes.iter().any(|(other, _)| *other == ticket))
    }

    pub fn take(&mut self, ticket: Ticket) -> Option<Outcome> {
        let outcomes = &mut self.wanted.as_mut()?.outcomes;
        let at = outcomes.iter().position(|(other, _)| *other == ticket)?;
        Some(outcomes.swap_remove(at).1)
    }

    /// The first waiting message is begun, behind `count` others.
    pub fn begin(&mut self, count: u64) {
        if let Some(wanted) = &mut self.wanted
            && let Some(receipt) = pop_at(&mut wanted.waiting, self.left_waiting)
        {
            wanted.begun.push_back(Receipt { place: self.left_begun + count, ..receipt });
        }
        self.left_waiting += 1;
    }

    /// The first waiting message was discarded.
    pub fn slide(&mut self) {
        if let Some(wanted) = &mut self.wanted {
            let receipt = pop_at(&mut wanted.waiting, self.left_waiting);
            wanted.settle(receipt, Outcome::Dropped);
        }
        self.left_waiting += 1;
    }

    /// The first begun message was consumed.
    pub fn confirm(&mut self) {
        if let Some(wanted) = &mut self.wanted {
            let receipt = pop_at(&mut wanted.begun, self.left_begun);
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
        let is_received = |receipt: &Receipt| receipt.goal == Goal::Received && receipt.place < place;
        let outcomes = &mut wanted.outcomes;
        wanted.begun.retain(|receipt| {
            if is_received(receipt) {
                outcomes.push((receipt.ticket, Outcome::Confirmed));
            }
            !is_received(receipt)
        });
    }

    /// The place behind the first `count` of the begun zone, whatever leaves it meanwhile.
    pub fn place(&self, count: u64) -> u64 {
        self.left_begun + count
    }

    /// Whether somebody waits to hear that one of the begun messages between these places was received.
    pub fn wants_receipt(&self, from: u64, to: u64) -> bool {
        let Some(wanted) = &self.wanted else { return false };
        let first = wanted.begun.partition_point(|receipt| receipt.place < from);
        let behind = wanted.begun.range(first..).take_while(|receipt| receipt.place < to);
        behind.into_iter().any(|receipt| receipt.goal == Goal::Received)
    }

    /// The begun zone, of `count` messages, was given up.
    pub fn discard(&mut self, count: u64) {
        if let Some(wanted) = &mut self.wanted {
            while let Some(receipt) = wanted.begun.pop_front() {
                wanted.settle(Some(receipt), Outcome::Lost);
            }
        }
        self.left_begun += count;
    }

    /// These of the begun zone were too large, by their index.
    pub fn shrink_begun(&mut self, indexes: &[u64]) {
        if let Some(wanted) = &mut self.wanted {
            shrink(&mut wanted.begun, self.left_begun, indexes, &mut wanted.outcomes);
        }
    }

    /// As `shrink_begun`, of the waiting zone.
    pub fn shrink_waiting(&mut self, indexes: &[u64]) {
        if let Some(wanted) = &mut self.wanted {
            shrink(&mut wanted.waiting, self.left_waiting, indexes, &mut wanted.outcomes);
        }
    }
}

impl Wanted {
    fn issue(&mut self, place: u64, goal: Goal) -> Receipt {
        self.next += 1;
        Receipt { place, ticket: self.next, goal }
    }

    fn settle(&mut self, receipt: Option<Receipt>, outcome: Outcome) {
        self.outcomes.extend(receipt.map(|receipt| (receipt.ticket, outcome)));
    }
}

fn pop_at(receipts: &mut VecDeque<Receipt>, place: u64) -> Option<Receipt> {
    // One message has one receipt at most: it is asked for by the call that sends it.
    if receipts.front()?.place == place { receipts.pop_front() } else { None }
}

fn shrink(receipts: &mut VecDeque<Receipt>, left: u64, indexes: &[u64], outcomes: &mut Vec<(Ticket, Outcome)>) {
    receipts.retain_mut(|receipt| {
        let index = receipt.place - left;
        let before = indexes.partition_point(|removed| *removed < index);
        let is_gone = indexes.get(before) == Some(&index);
        if is_gone {
            outcomes.push((receipt.ticket, Outcome::TooLarge));
        }
        receipt.place -= u64::try_from(before).unwrap_or(0);
        !is_gone
    });
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
}
