//! What all fuzz targets have in common: a bound on the memory that one input may claim, and what is said at the end.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::ffi::c_int;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Counts what is allocated. There is one thread, so plain loads and stores do.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// The most that any input has claimed at once.
static MOST: AtomicUsize = AtomicUsize::new(0);
/// Panics in libraries that the product catches, by place.
static CAUGHT: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn more(size: usize) {
    let live = LIVE.load(Relaxed).wrapping_add(size);
    LIVE.store(live, Relaxed);
    if live > PEAK.load(Relaxed) {
        PEAK.store(live, Relaxed);
    }
}

fn less(size: usize) {
    LIVE.store(LIVE.load(Relaxed).wrapping_sub(size), Relaxed);
}

// SAFETY: all of it is the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        less(layout.size());
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        more(size);
        less(layout.size());
        unsafe { System.realloc(block, layout, size) }
    }
}

/// Gives an input to `take`, which may claim `fixed` bytes and `per_byte` more for each byte of the input.
///
/// # Panics
/// If it claims more.
pub fn within(fixed: usize, per_byte: usize, input: &[u8], take: impl FnOnce(&[u8])) {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    take(input);
    let used = PEAK.load(Relaxed).saturating_sub(before);
    MOST.fetch_max(used, Relaxed);
    let most = fixed + per_byte * input.len();
    assert!(used <= most, "{used} bytes at once for an input of {} bytes, at most {most} are allowed", input.len());
}

unsafe extern "C" {
    fn atexit(at_exit: extern "C" fn()) -> c_int;
}

extern "C" fn say() {
    eprintln!("most_bytes_at_once: {}", MOST.load(Relaxed));
    for (place, times) in CAUGHT.lock().expect("a panic hook does not panic").iter() {
        eprintln!("caught_panic: {times} times at {place}");
    }
}

/// Has the end of the run say what was seen.
pub fn begin() {
    // SAFETY: `say` is an ordinary function without arguments.
    unsafe { atexit(say) };
}

/// As [`begin`]; and a panic in the source of `library` is counted instead of ending the run, since the product catches it.
pub fn begin_with_caught_panics(library: &'static str) {
    begin();
    let fatal = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        match panic.location().filter(|place| place.file().contains(library)) {
            Some(place) => {
                let name = place.file().rsplit_once("/src/").map_or(place.file(), |(_, name)| name);
                let place = format!("{library} {name}:{}", place.line());
                *CAUGHT.lock().expect("a panic hook does not panic").entry(place).or_default() += 1;
            }
            None => fatal(panic),
        }
    }));
}
