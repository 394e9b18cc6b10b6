//! Collections and libraries as programs use them.

use std::collections::BTreeMap;
use std::hint::black_box;

use hakmem_testkit::Random;

use super::{Bench, Group, Measured};

const fn bench(name: &'static str, ops: u64, operation: &'static str, run: fn(&super::Request) -> Measured) -> Bench {
    Bench::new(name, Group::Collection, ops, operation, run)
}

pub(super) const BENCHES: &[Bench] = &[
    bench("list", 10_000_000, "node of a list of 1 M nodes, built and dropped", |request| list(request.ops)),
    bench("btree", 1_500_000, "insert into a BTreeMap of 500 k, then drop", |request| btree(request.ops)),
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
