//! The allocator that the cargo features choose: the first of this list whose feature is on.

macro_rules! choose {
    ($name:literal, $type:ty, $value:expr) => {
        /// The type of the allocator under test.
        pub type Allocator = $type;
        /// The allocator under test; each program makes it its `#[global_allocator]`.
        pub const ALLOCATOR: Allocator = $value;
        /// Its name in tables.
        pub const ALLOCATOR_NAME: &str = $name;
    };
}

std::cfg_select! {
    feature = "system" => { choose!("system", std::alloc::System, std::alloc::System); }
    feature = "rusty" => { choose!("rusty", rusty_alloc_api::RustyAlloc, rusty_alloc_api::RustyAlloc); }
    feature = "sefer" => { choose!("sefer", sefer_alloc::SeferAlloc, sefer_alloc::SeferAlloc::new()); }
    feature = "tcmalloc" => { choose!("tcmalloc", tcmalloc_better::TCMalloc, tcmalloc_better::TCMalloc); }
    feature = "rpmalloc" => { choose!("rpmalloc", rpmalloc::RpMalloc, rpmalloc::RpMalloc); }
    feature = "snmalloc" => { choose!("snmalloc", snmalloc_rs::SnMalloc, snmalloc_rs::SnMalloc); }
    feature = "jemalloc" => { choose!("jemalloc", tikv_jemallocator::Jemalloc, tikv_jemallocator::Jemalloc); }
    feature = "mimalloc2" => { choose!("mimalloc2", mimalloc::MiMalloc, mimalloc::MiMalloc); }
    feature = "mimalloc" => { choose!("mimalloc", mimalloc::MiMalloc, mimalloc::MiMalloc); }
    feature = "hakmem" => { choose!("hakmem", hakmem::Hakmem, hakmem::Hakmem); }
    _ => { choose!("system", std::alloc::System, std::alloc::System); }
}
