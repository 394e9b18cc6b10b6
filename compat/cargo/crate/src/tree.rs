//! A plain binary search tree: one allocation per node.

/// A map from `K` to `V`.
#[derive(Debug)]
pub struct Tree<K, V> {
    root: Option<Box<Node<K, V>>>,
    len: usize,
}

#[derive(Debug)]
struct Node<K, V> {
    key: K,
    value: V,
    left: Option<Box<Node<K, V>>>,
    right: Option<Box<Node<K, V>>>,
}

impl<K, V> Default for Tree<K, V> {
    fn default() -> Self {
        Self { root: None, len: 0 }
    }
}

impl<K: Ord, V> Tree<K, V> {
    pub fn insert(&mut self, key: K, value: V) {
        let mut place = &mut self.root;
        while let Some(node) = place {
            if key == node.key {
                node.value = value;
                return;
            }
            place = if key < node.key { &mut node.left } else { &mut node.right };
        }
        *place = Some(Box::new(Node { key, value, left: None, right: None }));
        self.len += 1;
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn first(&self) -> Option<(&K, &V)> {
        let mut node = self.root.as_deref()?;
        while let Some(left) = node.left.as_deref() {
            node = left;
        }
        Some((&node.key, &node.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smallest_key_comes_first() {
        let mut tree = Tree::default();
        for key in [5, 3, 9, 3, 7] {
            tree.insert(key, key.to_string());
        }
        assert_eq!((tree.len(), tree.first()), (4, Some((&3, &"3".to_owned()))));
    }
}
