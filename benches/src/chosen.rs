//! The allocator that the cargo features choose.

macro_rules! choose {
    ($condition:meta, $name:literal, $type:ty, $value:expr) => {
        /// The type of the allocator under test.
        #[cfg($condition)]
        pub type Allocator = $type;
        /// The allocator under test; each program makes it its `#[global_allocator]`.
        #[cfg($condition)]
        pub const ALLOCATOR: Allocator = $value;
        /// Its name in tables.
        #[cfg($condition)]
        pub const ALLOCATOR_NAME: &str = $name;
    };
}

choose!(
    any(
        feature = "system",
        not(any(
            feature = "hakmem",
            feature = "mimalloc",
            feature = "mimalloc2",
            feature = "jemalloc",
            feature = "rusty"
        ))
    ),
    "system",
    std::alloc::System,
    std::alloc::System
);
choose!(
    all(feature = "rusty", not(feature = "system")),
    "rusty",
    rusty_alloc_api::RustyAlloc,
    rusty_alloc_api::RustyAlloc
);
choose!(
    all(feature = "jemalloc", not(any(feature = "system", feature = "rusty"))),
    "jemalloc",
    tikv_jemallocator::Jemalloc,
    tikv_jemallocator::Jemalloc
);
choose!(
    all(feature = "mimalloc2", not(any(feature = "system", feature = "rusty", feature = "jemalloc"))),
    "mimalloc2",
    mimalloc::MiMalloc,
    mimalloc::MiMalloc
);
choose!(
    all(
        feature = "mimalloc",
        not(any(feature = "system", feature = "rusty", feature = "jemalloc", feature = "mimalloc2"))
    ),
    "mimalloc",
    mimalloc::MiMalloc,
    mimalloc::MiMalloc
);
choose!(
    all(
        feature = "hakmem",
        not(any(
            feature = "system",
            feature = "rusty",
            feature = "jemalloc",
            feature = "mimalloc2",
            feature = "mimalloc"
        ))
    ),
    "hakmem",
    hakmem::Hakmem,
    hakmem::Hakmem
);
