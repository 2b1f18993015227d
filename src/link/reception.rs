//! Where a listener's dials are met: each is greeted beside the others, and becomes a connection when
//! both sides have agreed. On the original's wire it is one as soon as TCP is up.

use std::sync::Arc;

use super::clock;
use super::dial::Dialed;
use super::greeting::Hearing;
use super::listener::Listener;
use super::net::Socket;
use super::runtime::Runtime;
use crate::proto::Moment;
use crate::proto::options::Protocol;

pub(super) struct Reception {
    pub listener: Arc<Listener>,
    pub runtime: Arc<Runtime>,
}

impl Reception {
    /// Meets one dial, up to `open_timeout`.
    pub(super) async fn receive(self, socket: Arc<Socket>, peer: String) {
        let limit = self.listener.options().open_timeout;
        let first_by = clock::now().saturating_add(limit);
        match self.listener.options().protocol {
            Protocol::Classic => {
                let dialed = Dialed { socket, peer, greeted: None, rest: Vec::new() };
                self.listener.enqueue(&self.runtime, Protocol::Classic, dialed);
            }
            Protocol::Native => {
                let greeted = clock::within(limit, self.greet(&socket, Vec::new(), first_by)).await.flatten();
                if let Some((greeted, rest)) = greeted {
                    let dialed = Dialed { socket, peer, greeted: Some(greeted), rest };
                    self.listener.enqueue(&self.runtime, Protocol::Native, dialed);
                }
            }
        }
    }

    async fn greet(
        &self,
        socket: &Arc<Socket>,
        first: Vec<u8>,
        first_by: Moment,
    ) -> Option<(super::greeting::Greeted, Vec<u8>)> {
        let mut hearing = Hearing::new(socket, self.listener.options()).ok()?;
        let offer = hearing.offer(first).await?;
        hearing.agree(&offer, first_by).await
    }
}
