//! Collections of the standard library.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::hint::black_box;

use hakmem_testkit::Random;

use super::{Bench, Group, Measured};

const G: Group = Group::Collection;

pub(super) const BENCHES: &[Bench] = &[
    G.bench("list", 10_000_000, "node of a list of 1 M nodes, built and dropped", |request| list(request.ops)),
    G.bench("btree", 1_500_000, "insert into a BTreeMap of 500 k, then drop", |request| btree(request.ops)),
    G.bench("btree-churn", 800_000, "remove from and insert into a BTreeMap of 100 k", |request| {
        btree_churn(request.ops)
    }),
    G.bench("hashmap", 800_000, "insert of a String and a String into a HashMap of 200 k, then drop", |request| {
        hashmap(request.ops)
    }),
    G.bench(
        "strings",
        200_000,
        "line of 12 words: formatted, split into Strings, sorted, joined, kept for a while",
        |request| strings(request.ops),
    ),
];

struct Node {
    next: Option<Box<Node>>,
    _payload: [u64; 2],
}

fn list(ops: u64) -> Measured {
    const NODES: u64 = 1_000_000;
    let lists = ops.div_ceil(NODES);
    Measured::timed(lists * NODES, || {
        for _ in 0..lists {
            let mut head = None;
            for number in 0..NODES {
                head = Some(Box::new(Node { next: head, _payload: [number; 2] }));
            }
            let mut rest = black_box(head);
            // Node by node: the derived drop would recurse a million frames deep.
            while let Some(mut node) = rest {
                rest = node.next.take();
            }
        }
    })
}

fn btree(ops: u64) -> Measured {
    const KEYS: u64 = 500_000;
    let trees = ops.div_ceil(KEYS);
    let mut random = Random::new(6);
    Measured::timed(trees * KEYS, || {
        for _ in 0..trees {
            let mut tree = BTreeMap::new();
            for number in 0..KEYS {
                tree.insert(random.next(), number);
            }
            drop(black_box(tree));
        }
    })
}

fn btree_churn(ops: u64) -> Measured {
    let mut random = Random::new(31);
    let mut tree: BTreeMap<u64, [u64; 4]> = (0..100_000).map(|number| (random.next(), [number; 4])).collect();
    Measured::timed(ops, || {
        for number in 0..ops {
            let key = random.next();
            let victim = tree.range(key..).next().map(|(&victim, _)| victim);
            if victim.is_some_and(|victim| tree.remove(&victim).is_some()) || tree.pop_first().is_some() {
                tree.insert(random.next(), [number; 4]);
            }
        }
        black_box(&mut tree);
    })
}

/// Hashes alike in each process.
type Map<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

fn hashmap(ops: u64) -> Measured {
    const KEYS: u64 = 200_000;
    let maps = ops.div_ceil(KEYS);
    let mut random = Random::new(32);
    Measured::timed(maps * KEYS, || {
        for _ in 0..maps {
            let mut map = Map::default();
            for number in 0..KEYS {
                let key = format!("user:{}", random.next());
                map.insert(key, "value ".repeat(1 + (number % 24) as usize));
            }
            drop(black_box(map));
        }
    })
}

fn strings(ops: u64) -> Measured {
    const KEPT: usize = 5000;
    let mut random = Random::new(33);
    let mut kept: VecDeque<String> = VecDeque::with_capacity(KEPT + 1);
    Measured::timed(ops, || {
        for number in 0..ops {
            let mut line = format!("{number}:");
            for _ in 0..12 {
                let word = random.next();
                line += &format!(" {:x}", word >> (word % 48));
            }
            let mut words: Vec<String> = line.split(' ').map(str::to_uppercase).collect();
            words.sort_unstable();
            kept.push_back(black_box(words.join("-")));
            if kept.len() > KEPT {
                drop(kept.pop_front());
            }
        }
    })
}
