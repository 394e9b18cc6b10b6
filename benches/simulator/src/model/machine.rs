//! The model as a whole: blocks, time, policy, and what is counted.

use hakmem_base::{MAX_SLAB_BLOCK_BYTES, OS_PAGE_BYTES, RUN_MAX_BYTES, SLAB_BYTES, SizeClass};
use hakmem_policy::{FrozenPolicy, Scavenger};
use hakmem_tiny_front::FrontPolicy;

use super::costs::{Costs, Counters};
use super::front::{ClassCounts, Front};
use super::large::{GroupCounts, Large, superslabs_of};
use super::os::Os;
use crate::trace::{Event, Trace, What};

/// A gap longer than this is a program that waits for something: none of it counts as work.
const IDLE_NS: u64 = 1_000_000;
/// What a small process has resident besides its heap: program, libraries, stacks. (A C program that does nothing has 1.5 MiB, an
/// interpreter 6 to 10.)
const PROCESS_BYTES: u64 = 4 << 20;
/// Sizes are looked up by sixteen bytes.
const GRAIN: u64 = 16;
const MAX_CLASS_BYTES: u64 = MAX_SLAB_BLOCK_BYTES as u64;
const MAX_RUN_BYTES: u64 = RUN_MAX_BYTES as u64;
/// The scavenger stops when less than this share of its threshold waits.
const SCAVENGED_SHARE: u64 = 8;

/// Where a block is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Home {
    Nowhere,
    Slab(u32),
    Run(u32, u32),
    Big(u32),
}

#[derive(Clone, Copy, Debug)]
struct Block {
    home: Home,
    bytes: u64,
}

/// What happened since the beginning.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Totals {
    /// Events of the trace.
    pub events: u64,
    /// Time of the trace.
    pub elapsed_ns: u64,
    /// The program's own work in it.
    pub work_ns: f64,
    /// The allocator's and the kernel's share, and the program's work as huge pages make it.
    pub cpu_ns: f64,
    /// The kernel's share.
    pub system_ns: f64,
    /// Resident memory of the process, integrated over time (bytes times nanoseconds).
    pub resident_byte_ns: f64,
    /// Counts of everything.
    pub counters: Counters,
}

impl Totals {
    /// What happened between `earlier` and now.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            events: self.events - earlier.events,
            elapsed_ns: self.elapsed_ns - earlier.elapsed_ns,
            work_ns: self.work_ns - earlier.work_ns,
            cpu_ns: self.cpu_ns - earlier.cpu_ns,
            system_ns: self.system_ns - earlier.system_ns,
            resident_byte_ns: self.resident_byte_ns - earlier.resident_byte_ns,
            counters: self.counters.since(&earlier.counters),
        }
    }

    /// Page faults of either kind.
    #[must_use]
    pub const fn faults(&self) -> u64 {
        self.counters.faults + self.counters.huge_faults
    }

    /// Resident bytes, averaged over time.
    #[must_use]
    pub fn mean_resident_bytes(&self) -> f64 {
        self.resident_byte_ns / (self.elapsed_ns.max(1) as f64)
    }
}

/// What there is at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Levels {
    /// Units handed out, in bytes.
    pub in_use_bytes: u64,
    /// Bytes that the program asked for and has.
    pub live_bytes: u64,
    /// Bytes in threads' lists, run caches and on the shelf.
    pub cached_bytes: u64,
    /// Free bytes whose pages a purge could return.
    pub purgeable_bytes: u64,
    /// Resident bytes of the process.
    pub resident_bytes: u64,
    /// Superslabs in use or dirty.
    pub superslabs: u32,
    /// Those of them with huge pages.
    pub huge_superslabs: u32,
    /// Threads that have allocated.
    pub threads: u32,
}

/// The model.
#[derive(Debug)]
pub struct Machine {
    os: Os,
    front: Front,
    large: Large,
    blocks: Vec<Block>,
    class_of: Vec<u8>,
    costs: Costs,
    policy: FrozenPolicy,
    counters: Counters,
    now_ns: u64,
    events: u64,
    work_ns: u64,
    /// Pages times nanoseconds.
    page_ns: u64,
    live_bytes: u64,
    /// Work that huge pages have saved, up to `work_seen`.
    saved_ns: f64,
    work_seen: u64,
    is_threaded: bool,
    is_scavenging: bool,
    is_attended: bool,
}

impl Machine {
    /// A process that is about to run this trace.
    #[must_use]
    pub fn new(trace: &Trace, policy: &FrozenPolicy, costs: &Costs) -> Self {
        let threads = trace.thread_count();
        let class_of = (0..=MAX_CLASS_BYTES / GRAIN).map(|grains| {
            let bytes = (grains * GRAIN).max(GRAIN) as usize;
            SizeClass::for_bytes(bytes).map_or(0, |class| class.index() as u8)
        });
        Self {
            os: Os::new(policy),
            front: Front::new(&FrontPolicy::from_frozen(policy), threads),
            large: Large::new(policy, threads),
            blocks: vec![Block { home: Home::Nowhere, bytes: 0 }; trace.block_count() as usize],
            class_of: class_of.collect(),
            costs: *costs,
            policy: policy.clone(),
            counters: Counters::default(),
            now_ns: 0,
            events: 0,
            work_ns: 0,
            page_ns: 0,
            live_bytes: 0,
            saved_ns: 0.0,
            work_seen: 0,
            is_threaded: threads > 1,
            is_scavenging: false,
            is_attended: false,
        }
    }

    /// From now on somebody learns, and gives back what is due while the program rests.
    pub const fn attend(&mut self) {
        self.is_attended = true;
    }

    /// Works with another policy from now on. (The allocator's threads pick it up one by one, at their next slow path.) Who publishes it
    /// purges what is due by it.
    pub fn set_policy(&mut self, policy: &FrozenPolicy) {
        self.os.set_policy(policy);
        self.os.purge_all_due(&mut self.counters);
        self.front.set_policy(&FrontPolicy::from_frozen(policy));
        self.large.set_policy(policy);
        self.policy = policy.clone();
    }

    /// The policy in force.
    #[must_use]
    pub const fn policy(&self) -> &FrozenPolicy {
        &self.policy
    }

    /// The next event, and the time before it.
    #[inline]
    pub fn step(&mut self, event: &Event) {
        self.work(event.delta_ns);
        self.pass(self.now_ns + u64::from(event.delta_ns));
        self.happen(event);
    }

    /// The time before an event counts as work of the program, unless it is so long that the program waits for something.
    #[inline]
    pub fn work(&mut self, delta_ns: u32) {
        let delta_ns = u64::from(delta_ns);
        self.work_ns += if delta_ns > IDLE_NS { 0 } else { delta_ns };
    }

    /// Time passes, to `end_ns` since the beginning.
    #[inline]
    pub fn pass(&mut self, end_ns: u64) {
        if (self.is_scavenging || self.is_attended) && end_ns > self.now_ns + IDLE_NS {
            self.scavenge_until(end_ns);
        }
        self.advance(end_ns - self.now_ns);
    }

    /// Nanoseconds since the beginning.
    #[inline]
    #[must_use]
    pub const fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Blocks handed out since the beginning.
    #[inline]
    #[must_use]
    pub const fn allocs(&self) -> u64 {
        self.counters.allocs
    }

    /// An event, now.
    #[inline]
    pub fn happen(&mut self, event: &Event) {
        self.events += 1;
        match event.what {
            What::Alloc { block, size } => {
                self.counters.allocs += 1;
                let placed = self.allocate(event.thread, size, false);
                self.blocks[block as usize] = placed;
            }
            What::Free { block } => {
                self.counters.frees += 1;
                let freed = std::mem::replace(&mut self.blocks[block as usize].home, Home::Nowhere);
                let bytes = self.blocks[block as usize].bytes;
                self.release(event.thread, freed, bytes);
            }
            What::Resize { block, size } => self.resize(event.thread, block, size),
            What::Phase | What::Pass => {}
        }
    }

    /// Everything so far.
    #[must_use]
    pub fn totals(&mut self) -> Totals {
        self.count_savings();
        let (user_ns, system_ns) = (self.counters.user_ns(&self.costs), self.counters.system_ns(&self.costs));
        let work_ns = self.work_ns as f64;
        Totals {
            events: self.events,
            elapsed_ns: self.now_ns,
            work_ns,
            cpu_ns: work_ns - self.saved_ns + user_ns + system_ns,
            system_ns,
            resident_byte_ns: self.page_ns as f64 * OS_PAGE_BYTES as f64 + PROCESS_BYTES as f64 * self.now_ns as f64,
            counters: self.counters,
        }
    }

    /// What there is now.
    #[must_use]
    pub fn levels(&self) -> Levels {
        Levels {
            in_use_bytes: self.os.units_in_use * SLAB_BYTES as u64,
            live_bytes: self.live_bytes,
            cached_bytes: self.front.cached_bytes() + self.large.cached_bytes(),
            purgeable_bytes: self.os.free_dirty * SLAB_BYTES as u64,
            resident_bytes: PROCESS_BYTES + self.os.resident_pages * OS_PAGE_BYTES as u64,
            superslabs: self.os.open,
            huge_superslabs: self.os.open_huge,
            threads: self.front.active_threads(),
        }
    }

    /// Another season of the program has begun, for the account of what other policies would have led to.
    pub const fn turn_season(&mut self) {
        self.os.turn_season();
    }

    /// What other policies would have led to, since the beginning.
    pub fn hindsight(&mut self) -> hakmem_base::Hindsight {
        self.os.hindsight()
    }

    /// Counts per class and per group of sizes.
    pub fn class_counts(&mut self) -> (&[ClassCounts], &[GroupCounts]) {
        self.front.count_allocs();
        (&self.front.classes, &self.large.groups)
    }

    /// Whether everything that was handed out is somewhere, once: sums against lists.
    ///
    /// # Panics
    /// At the first that does not balance.
    pub fn check(&self) {
        let mut owned = vec![0; self.os.unit_count()];
        let (mut units, mut live) = (0, 0);
        for block in &self.blocks {
            match block.home {
                Home::Nowhere => continue,
                Home::Slab(slab) => owned[slab as usize] += 1,
                Home::Run(_, run_units) => units += u64::from(run_units),
                Home::Big(_) => units += u64::from(superslabs_of(block.bytes)) * 32,
            }
            live += block.bytes;
        }
        assert_eq!(live, self.live_bytes);
        self.os.check();
        self.front.check(&owned);
        let slab_units = self.front.slab_units();
        assert_eq!(slab_units + units + self.large.cached_units(), self.os.units_in_use, "units in use");
    }

    fn allocate(&mut self, thread: u16, size: u64, growing: bool) -> Block {
        let bytes = size.max(1);
        self.live_bytes += bytes;
        let home = if bytes <= MAX_CLASS_BYTES {
            let class = self.class_of[bytes.div_ceil(GRAIN) as usize] as usize;
            let (slab, is_beat) = self.front.alloc(thread, class, &mut self.os, &mut self.counters);
            if is_beat {
                self.beat(thread, class);
            }
            Home::Slab(slab)
        } else {
            self.stand_by();
            if bytes <= MAX_RUN_BYTES {
                let (first, units) = self.large.alloc_run(thread, bytes, &mut self.os, &mut self.counters);
                Home::Run(first, units)
            } else {
                Home::Big(self.large.alloc_big(bytes, growing, &mut self.os, &mut self.counters))
            }
        };
        Block { home, bytes }
    }

    #[inline]
    fn release(&mut self, thread: u16, home: Home, bytes: u64) {
        self.live_bytes -= bytes;
        match home {
            Home::Nowhere => {}
            Home::Slab(slab) => self.front.free(thread, slab, &mut self.os, &mut self.counters),
            Home::Run(first, units) => {
                self.large.free_run(thread, first, units, &mut self.os, &mut self.counters);
            }
            Home::Big(first) => self.large.free_big(first, bytes, &mut self.os, &mut self.counters),
        }
    }

    fn resize(&mut self, thread: u16, block: u32, size: u64) {
        let bytes = size.max(1);
        let old = self.blocks[block as usize];
        let is_much_smaller = bytes <= old.bytes - old.bytes / 4;
        let resized = match old.home {
            Home::Slab(slab) => {
                let stays = bytes <= MAX_CLASS_BYTES
                    && self.class_of[bytes.div_ceil(GRAIN) as usize] as usize == self.front.class_of(slab);
                stays.then_some(old.home)
            }
            Home::Run(first, units) if bytes <= MAX_RUN_BYTES && (bytes > MAX_CLASS_BYTES || !is_much_smaller) => {
                let units = self.large.resize_run(first, units, bytes, &mut self.os, &mut self.counters);
                units.map(|units| Home::Run(first, units))
            }
            Home::Big(first) if bytes > MAX_RUN_BYTES || !is_much_smaller => {
                let place = self.large.resize_big(first, old.bytes, bytes, &mut self.os, &mut self.counters);
                place.map(Home::Big)
            }
            Home::Nowhere | Home::Run(..) | Home::Big(_) => None,
        };
        if let Some(home) = resized {
            self.live_bytes = self.live_bytes + bytes - old.bytes;
            self.blocks[block as usize] = Block { home, bytes };
            return;
        }
        self.counters.copied_bytes += bytes.min(old.bytes);
        let placed = self.allocate(thread, size, true);
        self.blocks[block as usize] = placed;
        self.release(thread, old.home, old.bytes);
    }

    fn beat(&mut self, thread: u16, class: usize) {
        self.front.beat(thread, class, &mut self.os, &mut self.counters);
        self.os.purge_due(&mut self.counters);
        self.large.evict_due(&mut self.os, &mut self.counters);
        self.stand_by();
    }

    /// The scavenger exists once there is something for it to do, and the policy wants one.
    fn stand_by(&mut self) {
        let is_wanted = match self.policy.scavenger {
            Scavenger::Auto => self.is_threaded,
            Scavenger::Off => false,
            Scavenger::On => true,
        };
        let holds_much = self.os.units_in_use * SLAB_BYTES as u64 >= self.policy.scavenge_min_bytes as u64;
        self.is_scavenging = is_wanted && (holds_much || self.is_scavenging);
    }

    fn waiting_bytes(&self) -> u64 {
        self.os.free_dirty * SLAB_BYTES as u64 + self.large.shelf_bytes()
    }

    /// While the program does nothing, the scavenger purges what becomes due, if much waits; who learns, however little it is.
    fn scavenge_until(&mut self, end_ns: u64) {
        let min_bytes = if self.is_attended { 0 } else { self.policy.scavenge_min_bytes as u64 };
        if self.waiting_bytes() < min_bytes {
            return;
        }
        while self.os.due_ms != u64::MAX && self.waiting_bytes() >= min_bytes / SCAVENGED_SHARE {
            let due_ns = (self.os.due_ms * 1_000_000).max(self.now_ns);
            if due_ns >= end_ns {
                return;
            }
            self.advance(due_ns - self.now_ns);
            self.large.evict_due(&mut self.os, &mut self.counters);
            self.os.purge_due(&mut self.counters);
        }
    }

    fn advance(&mut self, delta_ns: u64) {
        self.page_ns += self.os.resident_pages * delta_ns;
        self.now_ns += delta_ns;
        self.os.now_ms = self.now_ns / 1_000_000;
    }

    /// Huge pages make the program's work cheaper, by as much as of its memory has them.
    fn count_savings(&mut self) {
        let work = self.work_ns - std::mem::replace(&mut self.work_seen, self.work_ns);
        let resident = (self.os.resident_pages * OS_PAGE_BYTES as u64) as f64;
        let share = f64::from(self.os.open_huge) / f64::from(self.os.open.max(1));
        let full = (resident / self.costs.huge_saving_bytes).min(1.0);
        self.saved_ns += work as f64 * self.costs.huge_saving * share * full;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;
    use crate::trace::Builder;
    use proptest::prelude::*;

    fn replayed(trace: &Trace, policy: &FrozenPolicy) -> Machine {
        let mut machine = Machine::new(trace, policy, &Costs::MEASURED);
        trace.events().iter().for_each(|event| machine.step(event));
        machine
    }

    /// Policies that turn each mechanism of the model.
    fn policies() -> Vec<FrozenPolicy> {
        let policy = FrozenPolicy::DEFAULT;
        vec![
            policy.clone(),
            FrozenPolicy { purge_delay_ms: 0, warm_superslabs: 0, ..policy.clone() },
            FrozenPolicy { purge_delay_ms: u32::MAX, thp_heap_bytes: usize::MAX, ..policy.clone() },
            FrozenPolicy { cache_blocks: 2, cache_max_blocks: 2, refill_bytes: 64, ..policy.clone() },
            FrozenPolicy { big_retain_ms: 1000, big_slack_permille: 1000, bundle_runs: 4, ..policy.clone() },
            FrozenPolicy { run_cache_runs: 0, eager_free: true, thp_heap_bytes: 0, ..policy.clone() },
            FrozenPolicy { tiering: false, keep_empty_slabs: false, pool_flatten: false, thp_fill_units: 4, ..policy },
        ]
    }

    fn trace() -> impl Strategy<Value = Trace> {
        let size = prop_oneof![1_u64..2000, 1_u64..40_000, 30_000_u64..(2 << 20), (2_u64 << 20)..(9 << 20)];
        let step = (0_u8..10, 0_u16..3, size, any::<prop::sample::Index>(), 0_u64..40_000_000);
        prop::collection::vec(step, 1..400).prop_map(|steps| {
            let (mut builder, mut live) = (Builder::default(), Vec::new());
            for (kind, thread, size, which, wait_ns) in steps {
                builder.pass(wait_ns);
                match kind {
                    0..=4 => live.push(builder.alloc(thread, size)),
                    _ if live.is_empty() => {}
                    5..=7 => builder.free(thread, live.swap_remove(which.index(live.len()))),
                    _ => builder.resize(thread, live[which.index(live.len())], size),
                }
            }
            builder.finish("random").unwrap()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn everything_balances_under_any_policy_and_when_it_changes(trace in trace()) {
            let policies = policies();
            let mut machine = Machine::new(&trace, &policies[0], &Costs::MEASURED);
            for (step, event) in trace.events().iter().enumerate() {
                if step % 37 == 36 {
                    machine.set_policy(&policies[step / 37 % policies.len()]);
                }
                machine.step(event);
                if step % 16 == 0 {
                    machine.check();
                }
            }
            machine.check();
        }
    }

    #[test]
    fn workloads_balance_and_a_replay_is_a_function_of_trace_and_policy() {
        for workload in synthetic::ALL {
            let trace = workload.make(3).unwrap();
            let mut machine = replayed(&trace, &FrozenPolicy::DEFAULT);
            machine.check();
            let totals = machine.totals();
            assert_eq!(totals, replayed(&trace, &FrozenPolicy::DEFAULT).totals(), "{}", workload.name);
            assert_eq!(totals.elapsed_ns, trace.elapsed_ns(), "{}", workload.name);
        }
    }

    #[test]
    fn purging_at_once_trades_faults_for_memory() {
        let trace = synthetic::find("day-night").unwrap().make(1).unwrap();
        let default = FrozenPolicy { thp_heap_bytes: usize::MAX, ..FrozenPolicy::DEFAULT };
        let eager = replayed(&trace, &FrozenPolicy { purge_delay_ms: 0, ..default.clone() }).totals();
        let never = replayed(&trace, &FrozenPolicy { purge_delay_ms: u32::MAX, ..default }).totals();
        assert!(eager.faults() > never.faults() * 2, "{} against {}", eager.faults(), never.faults());
        assert!(eager.mean_resident_bytes() < never.mean_resident_bytes() * 0.9);
    }

    #[test]
    fn smaller_caches_visit_the_slow_paths_more_often() {
        let trace = synthetic::find("compiler").unwrap().make(1).unwrap();
        let visits = |cache_blocks: u32| {
            let policy = FrozenPolicy { cache_blocks, cache_max_blocks: cache_blocks, ..FrozenPolicy::DEFAULT };
            let counters = replayed(&trace, &policy).totals().counters;
            counters.refills + counters.spills
        };
        assert!(visits(4) > visits(64));
    }

    #[test]
    fn an_idle_process_with_one_thread_purges_nothing_and_one_with_a_scavenger_does() {
        let mut builder = Builder::default();
        let blocks: Vec<u32> = (0..20).map(|_| builder.alloc(0, 4 << 20)).collect();
        blocks.into_iter().for_each(|block| builder.free(0, block));
        builder.pass(5_000_000_000);
        builder.alloc(0, 1);
        let trace = builder.finish("idle").unwrap();
        let policy = FrozenPolicy::DEFAULT;
        let mean = |policy: &FrozenPolicy| replayed(&trace, policy).totals().mean_resident_bytes();
        assert!(mean(&policy) > (79 << 20) as f64);
        assert!(mean(&FrozenPolicy { scavenger: Scavenger::On, ..policy }) < (20 << 20) as f64);
    }

    #[test]
    fn blocks_freed_by_others_come_back_in_chains() {
        let trace = synthetic::find("steady-pipe").unwrap().make(1).unwrap();
        let pushes = |outbox_blocks| {
            let policy = FrozenPolicy { outbox_blocks, ..FrozenPolicy::DEFAULT };
            let counters = replayed(&trace, &policy).totals().counters;
            assert!(counters.remote_frees > 300_000, "{}", counters.remote_frees);
            assert!(counters.drained_blocks <= counters.remote_frees);
            counters.remote_pushes
        };
        assert!(pushes(1) > 4 * pushes(16));
    }
}
