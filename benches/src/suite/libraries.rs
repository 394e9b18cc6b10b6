//! Libraries as programs use them: `serde_json`, `syn`, `tokio`, `rayon`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hakmem_testkit::Random;
use rayon::prelude::*;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, duplex};

use super::{Bench, Group, Measured, Request};

const G: Group = Group::Collection;

pub(super) const BENCHES: &[Bench] = &[
    G.bench("json-parse", 20, "document of 1 MiB parsed by serde_json into a Value, then dropped", |request| {
        json_parse(request.ops)
    }),
    G.bench("rust-parse", 400, "source file of this workspace parsed by syn, then dropped", |request| {
        rust_parse(request.ops)
    }),
    G.bench(
        "tokio-service",
        200_000,
        "request to a key-value service on tokio, a task each; 64 clients",
        tokio_service,
    )
    .on(2),
    G.bench("rayon", 300_000, "line split into words, counted and sorted by rayon", rayon_words).on(2),
];

/// A document like an export of orders: nested objects, short strings, numbers, lists.
fn document(bytes: usize) -> String {
    let mut random = Random::new(41);
    let mut text = String::from("[");
    for number in 0.. {
        let (id, price) = (random.next(), random.below(100_000));
        let _written = write!(
            text,
            r#"{{"id":"{id:016x}","number":{number},"paid":{},"price":{}.{:02},"customer":{{"name":"customer {}","city":null,"tags":["#,
            number % 3 == 0,
            price / 100,
            price % 100,
            id % 5000,
        );
        for tag in 0..random.below(5) {
            let _written = write!(text, r#"{}"tag-{}""#, if tag == 0 { "" } else { "," }, random.below(100));
        }
        text += r#"]},"items":["#;
        for item in 0..1 + random.below(4) {
            let comma = if item == 0 { "" } else { "," };
            let _written = write!(text, r#"{comma}{{"sku":"S{}","count":{}}}"#, random.below(9999), item + 1);
        }
        text += "]}";
        if text.len() >= bytes {
            break;
        }
        text += ",";
    }
    text += "]";
    text
}

fn json_parse(ops: u64) -> Measured {
    let document = document(1 << 20);
    Measured::timed(ops, || {
        for _ in 0..ops {
            let value: Result<serde_json::Value, _> = serde_json::from_str(black_box(&document));
            assert!(value.is_ok(), "the document is no JSON: {value:?}");
            drop(black_box(value));
        }
    })
}

/// The sources of the crates, in the order of their paths.
fn sources() -> Vec<String> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort_unstable();
    let files: Vec<String> = files.iter().filter_map(|path: &PathBuf| std::fs::read_to_string(path).ok()).collect();
    assert!(files.len() > 10, "this program was built in a workspace that is not there any more");
    files
}

fn rust_parse(ops: u64) -> Measured {
    let sources = sources();
    Measured::timed(ops, || {
        for source in sources.iter().cycle().take(ops as usize) {
            let file = syn::parse_file(black_box(source));
            assert!(file.is_ok(), "a source file is no Rust");
            drop(black_box(file));
        }
    })
}

type Store = Arc<Mutex<HashMap<String, String>>>;

/// Answers `set KEY VALUE` and `get KEY`.
async fn answer(line: String, store: Store) -> String {
    let mut words = line.split(' ').map(str::to_owned);
    let (Some(command), Some(key)) = (words.next(), words.next()) else { return "what?\n".into() };
    let Ok(mut store) = store.lock() else { return "broken\n".into() };
    match (command.as_str(), words.next()) {
        ("set", Some(value)) => {
            store.insert(key, value);
            "stored\n".into()
        }
        _ => store.get(&key).map_or_else(|| "none\n".into(), |value| format!("{value}\n")),
    }
}

/// Serves one connection: each line in a task of its own.
async fn serve(connection: DuplexStream, store: Store) {
    let (from_client, mut to_client) = tokio::io::split(connection);
    let mut lines = BufReader::new(from_client).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(answer) = tokio::spawn(answer(line, Arc::clone(&store))).await else { return };
        if to_client.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Sends `requests` requests, each after the answer to the last; returns how many were answered.
async fn ask(connection: DuplexStream, requests: u64, seed: u64) -> u64 {
    let mut random = Random::new(seed);
    let (from_server, mut to_server) = tokio::io::split(connection);
    let mut lines = BufReader::new(from_server).lines();
    for number in 0..requests {
        let key = random.below(20_000);
        let line = match number % 4 {
            0 => format!("set key:{key} {}\n", "v".repeat(16 + random.below(240))),
            _ => format!("get key:{key}\n"),
        };
        let sent = to_server.write_all(line.as_bytes()).await;
        if sent.is_err() || !matches!(lines.next_line().await, Ok(Some(_))) {
            return number;
        }
    }
    requests
}

fn tokio_service(request: &Request) -> Measured {
    const CLIENTS: u64 = 64;
    let requests = request.ops.div_ceil(CLIENTS);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(request.threads.max(1)).build();
    let store = Store::default();
    let mut answered = 0;
    let measured = Measured::timed(requests * CLIENTS, || {
        let Ok(runtime) = &runtime else { return };
        runtime.block_on(async {
            let mut clients = Vec::new();
            for seed in 0..CLIENTS {
                let (ours, theirs) = duplex(4096);
                tokio::spawn(serve(theirs, Arc::clone(&store)));
                clients.push(tokio::spawn(ask(ours, requests, seed)));
            }
            for client in clients {
                answered += client.await.unwrap_or(0);
            }
        });
    });
    assert_eq!(answered, requests * CLIENTS, "requests went unanswered");
    measured
}

fn rayon_words(request: &Request) -> Measured {
    const LINES: u64 = 20_000;
    let mut random = Random::new(42);
    // Few words are frequent, many are rare.
    let mut word = || {
        let bound = 2 << random.below(16);
        format!("w{} ", random.below(bound))
    };
    let lines: Vec<String> = (0..LINES).map(|_| (0..12).map(|_| word()).collect()).collect();
    let rounds = request.ops.div_ceil(LINES);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(request.threads.max(1)).build();
    let mut words = 0;
    let measured = Measured::timed(rounds * LINES, || {
        let Ok(pool) = &pool else { return };
        for _ in 0..rounds {
            words += black_box(pool.install(|| most_frequent(&lines))).len();
        }
    });
    assert!(words > 0, "rayon did nothing");
    measured
}

fn most_frequent(lines: &[String]) -> Vec<(String, u32)> {
    let counts = lines.par_iter().fold(HashMap::<String, u32>::new, |mut counts, line| {
        for word in line.split_whitespace() {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
        counts
    });
    let counts = counts.reduce(HashMap::new, |mut sum, counts| {
        for (word, count) in counts {
            *sum.entry(word).or_default() += count;
        }
        sum
    });
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.par_sort_unstable_by(|(word, count), (other, others)| others.cmp(count).then_with(|| word.cmp(other)));
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_over_all_lines_and_the_most_frequent_come_first() {
        let lines = ["b a b".to_owned(), "a b c".to_owned()];
        let counted = most_frequent(&lines);
        let counted: Vec<_> = counted.iter().map(|(word, count)| (word.as_str(), *count)).collect();
        assert_eq!(counted, [("b", 3), ("a", 2), ("c", 1)]);
    }

    #[test]
    fn the_document_has_its_size_and_is_a_list_of_objects() {
        let text = document(10_000);
        assert!((10_000..12_000).contains(&text.len()));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(value.as_array().unwrap().iter().all(serde_json::Value::is_object));
    }
}
