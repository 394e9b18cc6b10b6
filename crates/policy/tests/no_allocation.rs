//! What the crate promises not to allocate, under an allocator that counts.

use hakmem_policy::file::{Knobs, parse_policy, write_policy};
use hakmem_policy::{FrozenPolicy, PolicyCell, parse_environment};
use hakmem_testkit::Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

/// A fixed place that complaints and files are written to.
struct Fixed([u8; 4096], usize);

impl std::fmt::Write for Fixed {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.1 + text.len();
        self.0.get_mut(self.1..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.1 = end;
        Ok(())
    }
}

#[test]
fn the_environment_is_read_without_allocating() {
    let pairs: [(&[u8], &[u8]); 6] = [
        (b"HAKMEM_PROFILE", b"C6_HEAVY_LEGACY_POOLV1"),
        (b"HAKMEM_CACHE_BLOKS", b"1"),
        (b"HAKMEM_ROUTE_TINY_CLASSES", b"0-3,7"),
        (b"HAKMEM_MID_CAP", b"1,2,3,4,500"),
        (b"HAKMEM_STATS_FILE", b"/tmp/%p.json"),
        (b"HAKMEM_PURGE_DELAY_MS", b"soon"),
    ];
    let mut complaints = 0;
    let (settings, allocations) = COUNTING.allocations_of(|| {
        parse_environment(pairs.into_iter(), &mut |complaint| {
            complaint.write_line(&mut Fixed([0; 4096], 0)).unwrap();
            complaints += 1;
        })
    });
    assert_eq!((allocations, complaints), (0, 3));
    assert!(settings.policy.pool_flatten);
}

#[test]
fn a_policy_file_is_read_and_written_without_allocating() {
    let ((), allocations) = COUNTING.allocations_of(|| {
        let policy = FrozenPolicy { mid_cap: [1, 2, 3, 4, 5], route_pool_classes: 0xf0, ..FrozenPolicy::DEFAULT };
        let mut file = Fixed([0; 4096], 0);
        write_policy(&policy, Knobs::All, &mut file).unwrap();
        assert_eq!(parse_policy(&file.0[..file.1], &FrozenPolicy::DEFAULT), Ok(policy));
        let error = parse_policy(b"version = 1\n[knobs]\ncache_bloks = 3", &FrozenPolicy::DEFAULT).unwrap_err();
        error.write_line(b"policy.toml", &mut Fixed([0; 4096], 0)).unwrap();
    });
    assert_eq!(allocations, 0);
}

#[test]
fn the_boot_policy_never_allocates_and_a_publication_does() {
    static CELL: PolicyCell = PolicyCell::new();
    let (_, allocations) = COUNTING.allocations_of(|| {
        CELL.set_boot(FrozenPolicy { cache_blocks: 3, ..FrozenPolicy::DEFAULT }).unwrap();
        assert_eq!(CELL.with(|policy| policy.cache_blocks), 3);
        assert!(CELL.load().is_none());
        assert_eq!(CELL.generation(), 0);
    });
    assert_eq!(allocations, 0);
    let (_, allocations) = COUNTING.allocations_of(|| CELL.publish(FrozenPolicy::DEFAULT).unwrap());
    assert!(allocations > 0, "the counter counts");
    // The first read of this thread was paid for by its publication; now reading is free.
    let (_, allocations) = COUNTING.allocations_of(|| CELL.with(|policy| policy.generation));
    assert_eq!(allocations, 0);
}
