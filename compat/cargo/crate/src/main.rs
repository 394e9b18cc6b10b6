//! A small program with threads, collections and generics.

mod tree;

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc;

include!(concat!(env!("OUT_DIR"), "/names.rs"));

fn main() {
    let mut counts: HashMap<char, usize> = HashMap::new();
    for name in NAMES {
        for letter in name.chars() {
            *counts.entry(letter).or_default() += 1;
        }
    }
    let sorted: BTreeMap<_, _> = counts.into_iter().collect();
    println!("{sorted:?}");

    let (sender, receiver) = mpsc::channel();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for number in 0..10_000_usize {
                    sender.send(format!("{thread}/{number}")).unwrap();
                }
            })
        })
        .collect();
    drop(sender);
    println!("{}", receiver.iter().map(|text| text.len()).sum::<usize>());
    for thread in threads {
        thread.join().unwrap();
    }

    let mut tree = tree::Tree::default();
    let mut state = 1_u64;
    for _ in 0..20_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        tree.insert(state >> 40, format!("value {state}"));
    }
    println!("{} {:?}", tree.len(), tree.first());
}
