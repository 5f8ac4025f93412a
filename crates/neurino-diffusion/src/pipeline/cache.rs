//! What the text encoders made of the last prompts: people try many seeds of one prompt.

/// Prompts that are remembered.
const ENTRIES: usize = 8;

/// The last results by their keys; the least recently used one goes.
#[derive(Debug)]
pub(crate) struct RecentlyUsed<K, V> {
    /// The last used last.
    entries: Vec<(K, V)>,
}

impl<K: PartialEq, V: Clone> RecentlyUsed<K, V> {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// The result for `key`, computed if it is not remembered.
    pub(crate) fn get_or<E>(
        &mut self,
        key: K,
        compute: impl FnOnce(&K) -> Result<V, E>,
    ) -> Result<V, E> {
        let value = match self.entries.iter().position(|(known, _)| *known == key) {
            Some(at) => self.entries.remove(at).1,
            None => compute(&key)?,
        };
        if self.entries.len() == ENTRIES {
            self.entries.remove(0);
        }
        self.entries.push((key, value.clone()));
        Ok(value)
    }

    /// Forgets everything, because it would come out differently now.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered_and_errors_are_not() {
        let mut cache = RecentlyUsed::new();
        let mut computed = 0;
        let mut get = |cache: &mut RecentlyUsed<usize, usize>, key: usize| {
            let result: Result<usize, ()> = cache.get_or(key, |key| {
                computed += 1;
                Ok(key * 2)
            });
            (result, computed)
        };
        for key in 0..ENTRIES {
            assert_eq!(get(&mut cache, key), (Ok(key * 2), key + 1));
        }
        // The first is used again, so that the second is the one to go.
        assert_eq!(get(&mut cache, 0), (Ok(0), ENTRIES));
        assert_eq!(get(&mut cache, 100), (Ok(200), ENTRIES + 1));
        assert_eq!(get(&mut cache, 0), (Ok(0), ENTRIES + 1));
        assert_eq!(get(&mut cache, 1), (Ok(2), ENTRIES + 2));
        cache.clear();
        assert_eq!(get(&mut cache, 1), (Ok(2), ENTRIES + 3));
        assert_eq!(cache.get_or(7, |_| Err("no")), Err("no"));
        assert_eq!(cache.get_or(7, |_| Ok::<_, &str>(1)), Ok(1));
    }
}
