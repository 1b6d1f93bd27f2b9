//! One change of a key at a time: later ones wait in the order they came.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

use format::ShardKey;
use tokio::sync::oneshot;

/// Which keys are being changed, and who waits.
#[derive(Default)]
pub(crate) struct KeyLocks {
    held: RefCell<HashMap<ShardKey, VecDeque<oneshot::Sender<()>>>>,
}

impl KeyLocks {
    /// Returns once this caller holds the key.
    pub(crate) async fn lock(&self, key: ShardKey) {
        let turn = {
            let mut held = self.held.borrow_mut();
            match held.get_mut(&key) {
                None => {
                    held.insert(key, VecDeque::new());
                    return;
                }
                Some(waiting) => {
                    let (tell, turn) = oneshot::channel();
                    waiting.push_back(tell);
                    turn
                }
            }
        };
        turn.await.expect("the holder hands the key on");
    }

    /// Hands the key to the next in line.
    pub(crate) fn unlock(&self, key: ShardKey) {
        let mut held = self.held.borrow_mut();
        let waiting = held.get_mut(&key).expect("only a held key is unlocked");
        while let Some(next) = waiting.pop_front() {
            if next.send(()).is_ok() {
                return;
            }
        }
        held.remove(&key);
    }

    /// Whether no key is held.
    pub(crate) fn is_idle(&self) -> bool {
        self.held.borrow().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use base::StripeId;
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_key_is_handed_on_in_order() {
        let locks = KeyLocks::default();
        let key = ShardKey::stripe(StripeId(1), 0);
        assert!(locks.lock(key).now_or_never().is_some());
        let mut second = Box::pin(locks.lock(key));
        let mut third = Box::pin(locks.lock(key));
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        locks.unlock(key);
        assert!(third.as_mut().now_or_never().is_none());
        assert!(second.now_or_never().is_some());
        locks.unlock(key);
        assert!(third.now_or_never().is_some());
        locks.unlock(key);
        assert!(locks.is_idle());
    }
}
