//! One queue per agent over a shared connection: in order within an agent, independent between agents.

use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

/// Queues by key. A key costs memory and a task only while something of it waits or runs, so their number is bounded by
/// the number of items, which the owner bounds.
pub(super) struct Lanes<K, T>(Arc<Mutex<HashMap<K, VecDeque<T>>>>);

impl<K, T> Default for Lanes<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Clone + Eq + Hash + Send + 'static, T: Send + 'static> Lanes<K, T> {
    /// Puts an item at the end of its key's queue. `work` is started if nobody works on the queue yet; it then takes
    /// items from it until it is empty.
    pub(super) fn push<F>(&self, key: K, item: T, work: impl Fn(T) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        let mut lanes = self.0.lock();
        if let Some(lane) = lanes.get_mut(&key) {
            lane.push_back(item);
            return;
        }
        lanes.insert(key.clone(), VecDeque::from([item]));
        drop(lanes);
        let lanes = Running { lanes: self.0.clone(), key };
        tokio::spawn(async move {
            while let Some(item) = lanes.next() {
                work(item).await;
            }
        });
    }

    /// Forgets what waits. What runs, runs to its end.
    pub(super) fn clear(&self) {
        self.0.lock().values_mut().for_each(VecDeque::clear);
    }

    /// How many keys are being worked on.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().len()
    }
}

/// The lane that a task works on; given up when the task ends, even by a panic.
struct Running<K: Eq + Hash, T> {
    lanes: Arc<Mutex<HashMap<K, VecDeque<T>>>>,
    key: K,
}

impl<K: Eq + Hash, T> Running<K, T> {
    /// The next item; without one the lane is gone, under the same lock, so no item can be put on it unseen.
    fn next(&self) -> Option<T> {
        let mut lanes = self.lanes.lock();
        let item = lanes.get_mut(&self.key)?.pop_front();
        if item.is_none() {
            lanes.remove(&self.key);
        }
        item
    }
}

impl<K: Eq + Hash, T> Drop for Running<K, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.lanes.lock().remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::{Semaphore, mpsc};

    #[tokio::test]
    async fn order_holds_within_a_key_and_a_slow_key_holds_up_no_other() {
        let lanes = Lanes::default();
        let (seen, mut order) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        let work = |gate: Arc<Semaphore>, seen: mpsc::UnboundedSender<(char, u32)>| {
            move |(key, n)| {
                let (gate, seen) = (gate.clone(), seen.clone());
                async move {
                    if key == 'a' {
                        gate.acquire().await.unwrap().forget();
                    }
                    seen.send((key, n)).unwrap();
                }
            }
        };
        for n in 0..3 {
            for key in ['a', 'b'] {
                lanes.push(key, (key, n), work(gate.clone(), seen.clone()));
            }
        }
        for n in 0..3 {
            assert_eq!(order.recv().await, Some(('b', n)));
        }
        gate.add_permits(3);
        for n in 0..3 {
            assert_eq!(order.recv().await, Some(('a', n)));
        }
        tokio::task::yield_now().await;
        assert_eq!(lanes.len(), 0);
    }
}
