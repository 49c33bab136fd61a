//! Hash tables whose keys others choose. Owns how keys are hashed: with a secret of this process, so that nobody can choose names that
//! collide. A lookup takes a fifth of the standard library's time; each report needs about sixty.
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::LazyLock;

/// See the module's documentation.
pub type Table<K, V> = HashMap<K, V, Secret>;

/// The hasher of a table, with its secret.
#[derive(Clone, Debug)]
pub struct Secret(ahash::RandomState);

/// Random numbers from the standard library, which gets them from the kernel. ahash's own source would open a device, which an image does
/// not have.
static SEEDS: LazyLock<[u64; 4]> = LazyLock::new(|| {
    let random = std::hash::RandomState::new();
    [1, 2, 3, 4].map(|number: u64| random.hash_one(number))
});

impl Default for Secret {
    fn default() -> Self {
        let [a, b, c, d] = *SEEDS;
        Self(ahash::RandomState::with_seeds(a, b, c, d))
    }
}

impl BuildHasher for Secret {
    type Hasher = ahash::AHasher;

    fn build_hasher(&self) -> ahash::AHasher {
        self.0.build_hasher()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tables_hash_alike_and_names_apart() {
        let (one, other) = (Secret::default(), Secret::default());
        assert_eq!(one.hash_one("node-1"), other.hash_one("node-1"));
        assert_ne!(one.hash_one("node-1"), one.hash_one("node-2"));
    }

    #[test]
    fn the_secret_is_no_constant() {
        assert_eq!(SEEDS.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
        assert!(!SEEDS.contains(&0));
    }
}
