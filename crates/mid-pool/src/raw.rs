//! The one place of this box where raw memory is touched: the route words of kept runs, without a question.

use crate::context::RunContext;
use core::cell::Cell;
use core::ptr::NonNull;
use hakmem_base::SLAB_SHIFT;
use hakmem_ownership::RouteWord;

/// Where a cache's runs and their route words lie: its own copy, next to what else the short way needs. All zero: nowhere.
pub(crate) struct View {
    base: Cell<*mut u8>,
    routes: Cell<*const RouteWord>,
}

impl View {
    /// Before there was room for a run.
    pub(crate) const fn nowhere() -> Self {
        Self { base: Cell::new(core::ptr::null_mut()), routes: Cell::new(core::ptr::null()) }
    }

    /// Remembers where the runs lie that will come.
    pub(crate) fn learn(&self, cx: &RunContext<'_>) {
        if let Some(window) = cx.os.window() {
            self.base.set(window.base);
            self.routes.set(cx.routes.as_ptr());
        }
    }

    /// The route word of the unit `index`.
    ///
    /// # Safety
    /// - A kept run begins at that unit, and the tables that it came with live as long as `'w`.
    #[inline(always)]
    pub(crate) unsafe fn word<'w>(&self, index: u32) -> &'w RouteWord {
        // SAFETY: the run was recorded in the table, so the table has this entry.
        let word = unsafe { self.routes.get().add(index as usize) };
        // SAFETY: as above; entries are initialised (all zero is valid) and shared only through atomics.
        unsafe { &*word }
    }

    /// Where the unit `index` of a kept run begins.
    #[inline(always)]
    pub(crate) fn address_of(&self, index: u32) -> NonNull<u8> {
        let address = self.base.get().wrapping_add((index as usize) << SLAB_SHIFT);
        // SAFETY: an address in the window, which does not begin at null.
        unsafe { NonNull::new_unchecked(address) }
    }
}
