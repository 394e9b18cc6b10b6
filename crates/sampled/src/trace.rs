//! Stacks: return addresses, taken with the unwinder of libgcc, which the standard library is linked with anyway (the preload
//! library holds a copy of its own).
//!
//! What it asks of the surroundings. It allocates nothing and takes no lock of ours. From glibc 2.35 on it finds a frame's
//! tables without a lock (`_dl_find_object`); with older ones it takes the loader's list lock, which is recursive and held
//! only while the list changes. Frames of code without unwind tables (compiled at run time, hand-written) end the trace.

/// Addresses kept of a stack.
pub const FRAMES: usize = 20;

/// The innermost calls of a stack, innermost first. Return addresses, but for the first one of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trace {
    frames: [usize; FRAMES],
    len: usize,
}

impl Trace {
    /// No calls.
    pub const EMPTY: Self = Self { frames: [0; FRAMES], len: 0 };

    /// The addresses.
    #[must_use]
    pub fn frames(&self) -> &[usize] {
        self.frames.get(..self.len).unwrap_or(&[])
    }

    /// Appends an address; what does not fit is left out.
    pub fn push(&mut self, address: usize) -> bool {
        let Some(slot) = self.frames.get_mut(self.len) else { return false };
        *slot = address;
        self.len += 1;
        self.len < FRAMES
    }

    /// The stack of the calling thread, from the caller of the function in whose frame `floor` lies on outwards: what is below
    /// are the allocator's own calls.
    #[inline(never)]
    #[must_use]
    pub fn capture(floor: *const u8) -> Self {
        let mut trace = Self::EMPTY;
        unwind(From::Floor(floor.addr()), &mut |address| trace.push(address));
        trace
    }

    /// Shows the addresses that [`Trace::capture`] would keep one by one, until `visit` has seen enough.
    #[inline(never)]
    pub fn walk(floor: *const u8, visit: &mut dyn FnMut(usize) -> bool) {
        unwind(From::Floor(floor.addr()), visit);
    }

    /// The stack of a thread that was interrupted at `instruction`, for a signal handler that runs on top of it.
    #[inline(never)]
    #[must_use]
    pub fn of_interrupted(instruction: usize) -> Self {
        let mut trace = Self::EMPTY;
        unwind(From::Instruction(instruction), &mut |address| trace.push(address));
        // The unwinder could not find its way through the signal's frame: the place of the access at least is known.
        if trace.len == 0 {
            trace.push(instruction);
        }
        trace
    }
}

impl FromIterator<usize> for Trace {
    fn from_iter<T: IntoIterator<Item = usize>>(addresses: T) -> Self {
        let mut trace = Self::EMPTY;
        addresses.into_iter().take(FRAMES).for_each(|address| {
            trace.push(address);
        });
        trace
    }
}

/// Where the part of the stack begins that is worth keeping.
#[derive(Clone, Copy)]
#[cfg_attr(miri, expect(dead_code, reason = "Miri has no unwinder"))]
enum From {
    /// At the frame that lies wholly above this address.
    Floor(usize),
    /// At the frame that stands at this instruction.
    Instruction(usize),
}

#[cfg(miri)]
fn unwind(from: From, _visit: &mut dyn FnMut(usize) -> bool) {
    match from {
        From::Floor(_place) | From::Instruction(_place) => {}
    }
}

#[cfg(not(miri))]
use gcc::unwind;

#[cfg(not(miri))]
mod gcc {
    use super::From;
    use core::ffi::{c_int, c_void};

    /// `_URC_NO_REASON` of the unwinder's interface: go on.
    const GO_ON: c_int = 0;
    /// `_URC_NORMAL_STOP`: enough.
    const STOP: c_int = 4;
    /// Frames that are looked at in all, wherever the trace begins.
    const STEPS: usize = 200;

    #[repr(C)]
    struct Context {
        _private: [u8; 0],
    }

    unsafe extern "C" {
        fn _Unwind_Backtrace(step: extern "C" fn(*mut Context, *mut c_void) -> c_int, walk: *mut c_void) -> c_int;
        fn _Unwind_GetIPInfo(context: *mut Context, is_before_instruction: *mut c_int) -> usize;
        fn _Unwind_GetCFA(context: *mut Context) -> usize;
    }

    struct Walk<'a> {
        from: From,
        has_begun: bool,
        steps: usize,
        visit: &'a mut dyn FnMut(usize) -> bool,
    }

    pub(super) fn unwind(from: From, visit: &mut dyn FnMut(usize) -> bool) {
        let mut walk = Walk { from, has_begun: false, steps: 0, visit };
        // SAFETY: the callback matches what it is passed, and the walk outlives the call.
        unsafe { _Unwind_Backtrace(step, (&raw mut walk).cast()) };
    }

    extern "C" fn step(context: *mut Context, walk: *mut c_void) -> c_int {
        // SAFETY: `unwind` passes its own `Walk`, which nobody else uses during the call.
        let walk = unsafe { &mut *walk.cast::<Walk<'_>>() };
        let mut is_before = 0;
        // SAFETY: the unwinder's own context.
        let instruction = unsafe { _Unwind_GetIPInfo(context, &raw mut is_before) };
        // SAFETY: as above. At this point it is the stack pointer at the call, the lower end of the frame.
        let bottom = unsafe { _Unwind_GetCFA(context) };
        walk.has_begun |= match walk.from {
            From::Floor(floor) => bottom > floor,
            From::Instruction(wanted) => instruction == wanted,
        };
        walk.steps += 1;
        let is_to_go_on = !walk.has_begun || (walk.visit)(instruction);
        let goes_on = instruction != 0 && walk.steps < STEPS && is_to_go_on;
        if goes_on { GO_ON } else { STOP }
    }

    #[cfg(test)]
    mod tests {
        use super::super::Trace;
        use std::hint::black_box;

        #[inline(never)]
        fn innermost(with_own_frame: bool) -> Trace {
            let mark = black_box(0_u8);
            let floor = if with_own_frame { core::ptr::null() } else { &raw const mark };
            black_box(Trace::capture(floor))
        }

        #[inline(never)]
        fn outer(with_own_frame: bool) -> Trace {
            black_box(innermost(with_own_frame))
        }

        fn is_in(address: usize, function: fn(bool) -> Trace) -> bool {
            (1..400).contains(&address.wrapping_sub(function as *const () as usize))
        }

        #[test]
        fn a_trace_begins_with_the_caller_of_the_function_that_holds_the_floor() {
            let trace = outer(false);
            assert!(is_in(trace.frames()[0], outer), "{trace:x?}, outer {:x}", outer as *const () as usize);
            assert!(trace.frames().len() > 3);
        }

        #[test]
        fn a_trace_without_a_floor_has_every_call() {
            let [short, full] = [false, true].map(outer);
            let begin = full.frames().iter().position(|address| short.frames().first() == Some(address));
            assert!(begin.unwrap() >= 2, "the capture itself and its caller stand before the short trace's begin");
        }

        #[test]
        fn a_walk_shows_the_calls_of_a_trace_until_enough_is_seen() {
            #[inline(never)]
            fn shown(most: usize) -> (Vec<usize>, Trace) {
                let (mark, mut seen) = (black_box(0_u8), Vec::new());
                Trace::walk(&raw const mark, &mut |address| {
                    seen.push(address);
                    seen.len() < most
                });
                (seen, Trace::capture(&raw const mark))
            }
            for most in [1, 3] {
                let (seen, trace) = shown(most);
                assert_eq!(seen, trace.frames()[..most]);
            }
        }

        #[test]
        fn a_deep_stack_is_cut() {
            #[inline(never)]
            fn deep(left: u32) -> Trace {
                let trace = if left == 0 { Trace::capture(core::ptr::null()) } else { deep(left - 1) };
                black_box(trace)
            }
            assert_eq!(deep(100).frames().len(), super::super::FRAMES);
        }

        #[test]
        fn an_instruction_that_is_not_on_the_stack_stands_alone() {
            assert_eq!(Trace::of_interrupted(0x1234).frames(), [0x1234]);
        }
    }
}
