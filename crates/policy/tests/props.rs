//! Random environments and values against what must hold for all of them.

use hakmem_policy::{FrozenPolicy, Settings, parse_environment, variables};
use proptest::collection::vec;
use proptest::prelude::*;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn parse(pairs: &Pairs) -> (Settings<'_>, Vec<String>) {
    let mut complaints = Vec::new();
    let borrowed = pairs.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    let settings = parse_environment(borrowed, &mut |complaint| complaints.push(complaint.to_string()));
    (settings, complaints)
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<_> = variables().map(|variable| variable.name.as_bytes().to_vec()).collect();
    prop_oneof![
        6 => proptest::sample::select(known),
        1 => vec(any::<u8>(), 0..60).prop_map(|tail| [b"HAKMEM_".as_slice(), &tail].concat()),
        1 => vec(any::<u8>(), 0..20),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => any::<u64>().prop_map(|number| number.to_string().into_bytes()),
        3 => (0_u32..2000).prop_map(|number| number.to_string().into_bytes()),
        2 => "[0-9]{1,4}(K|M|G|T|KiB|ms|s|\\.[0-9]{1,3})?".prop_map(String::into_bytes),
        2 => "[0-9]{1,3}([,-][0-9]{1,3}){0,5}".prop_map(String::into_bytes),
        1 => "(0x[0-9a-f]{0,33}|never|none|on|off|yes)".prop_map(String::into_bytes),
        2 => vec(any::<u8>(), 0..40),
    ]
}

fn pairs() -> impl Strategy<Value = Pairs> {
    vec((name(), value()), 0..40)
}

proptest! {
    #[test]
    fn any_environment_gives_a_valid_policy(pairs in pairs()) {
        let (settings, complaints) = parse(&pairs);
        prop_assert_eq!(settings.policy.validate(), Ok(()));
        prop_assert_eq!(settings.policy.generation, 0);
        for complaint in complaints {
            prop_assert!(complaint.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{}", complaint);
        }
    }

    #[test]
    fn the_order_of_different_names_does_not_matter(mut pairs in pairs()) {
        pairs.sort();
        pairs.dedup_by(|left, right| left.0 == right.0);
        let mut reversed = pairs.clone();
        reversed.reverse();
        prop_assert_eq!(parse(&pairs).0, parse(&reversed).0);
    }

    #[test]
    fn settings_written_out_are_read_back_the_same(pairs in pairs()) {
        let (settings, _) = parse(&pairs);
        // Texts are escaped when written; they are compared by the unit tests.
        let settings = Settings { stats_file: None, dump_dir: None, ..settings };
        let written: Pairs = variables()
            .map(|variable| {
                let mut text = String::new();
                variable.write_value(&settings, &mut text).unwrap();
                (variable.name.as_bytes().to_vec(), text.into_bytes())
            })
            .collect();
        let (again, complaints) = parse(&written);
        prop_assert_eq!(complaints, Vec::<String>::new());
        prop_assert_eq!(again, settings);
    }

    #[test]
    fn a_name_outside_the_prefix_never_matters(name in vec(any::<u8>(), 0..30), value in vec(any::<u8>(), 0..30)) {
        prop_assume!(!name.starts_with(b"HAKMEM_"));
        let pairs = vec![(name, value)];
        prop_assert_eq!(parse(&pairs), (Settings::DEFAULT, vec![]));
    }

    #[test]
    fn sizes_are_read_as_the_arithmetic_says(number in 0_u64..5000, (suffix, factor) in proptest::sample::select(vec![
        ("", 1_u64), ("B", 1), ("K", 1 << 10), ("kb", 1 << 10), ("KiB", 1 << 10), ("M", 1 << 20), ("MiB", 1 << 20),
        ("G", 1 << 30), ("gib", 1 << 30), ("T", 1 << 40),
    ])) {
        let text = format!("{number}{suffix}");
        let pairs = vec![(b"HAKMEM_BIG_RETAIN_BYTES".to_vec(), text.clone().into_bytes())];
        let (settings, complaints) = parse(&pairs);
        let bytes = number * factor;
        if bytes == 0 || (2 << 20..=1 << 40).contains(&bytes) {
            prop_assert_eq!(settings.policy.big_retain_bytes as u64, bytes, "{}", text);
            prop_assert!(complaints.is_empty());
        } else {
            prop_assert_eq!(settings.policy, FrozenPolicy::DEFAULT);
            prop_assert_eq!(complaints.len(), 1);
        }
    }
}
