//! The model helper: one scenario, run in every order of its threads that the bound allows.
//!
//! See `README.md` for how to run the models and for what they show. Without `--cfg ringmain_loom` this crate
//! is empty.

#![cfg(ringmain_loom)]
#![allow(unsafe_code, reason = "the allocator that makes a use after free visible is written by hand")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use loom::model::Builder;
use loom::sync::atomic::{AtomicUsize, Ordering, fence};
use loom::sync::mpsc::{self, Receiver, Sender};
use loom::thread::JoinHandle;
use ringmain::internals::sync::epoch;
use ringmain::internals::wake::{Bell, Waiter, Waiters};

/// Preemptions per execution.
pub const BOUND: usize = 3;
/// Preemptions per execution for the large models.
pub const LARGE: usize = 2;
/// Preemptions per execution for the small ones.
pub const SMALL: usize = 5;

/// Steps of one execution, at most. Loom's default of 1000 is too few for the epoch's own steps.
const MAX_BRANCHES: usize = 20_000;

/// Runs `scenario` in every order of its threads with at most `bound` preemptions, or as many as the
/// environment variable `LOOM_MAX_PREEMPTIONS` says, and returns the set of its outcomes. A model asserts that
/// set too: a race that never goes the other way is not a race.
///
/// # Panics
///
/// In the first execution that breaks an assertion of the scenario, or a rule of loom: data races, deadlocks
/// and leaks among them.
pub fn model<O>(bound: usize, scenario: impl Fn() -> O + Send + Sync + 'static) -> BTreeSet<O>
where
    O: Ord + Debug + Send + 'static,
{
    let mut builder = Builder::new();
    builder.max_branches = builder.max_branches.max(MAX_BRANCHES);
    let bound = *builder.preemption_bound.get_or_insert(bound);
    let (started, seen) = (Instant::now(), Arc::new(Mutex::new((0_u64, BTreeSet::new()))));
    let collected = seen.clone();
    builder.check(move || {
        drop(epoch::pin());
        step();
        let outcome = scenario();
        // Nor is what comes behind it what the models are about.
        loom::stop_exploring();
        leave();
        let mut seen = collected.lock().unwrap_or_else(PoisonError::into_inner);
        seen.0 += 1;
        seen.1.insert(outcome);
    });
    let (executions, outcomes) = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    let name = std::thread::current().name().unwrap_or("model").to_owned();
    eprintln!("{name}: bound {bound}, {executions} executions, {:.1?}, {outcomes:?}", started.elapsed());
    outcomes
}

loom::lazy_static! {
    static ref STEPS: AtomicUsize = AtomicUsize::new(0);
}

/// Marks a step of a scenario: loom tries the steps of all threads in every order.
///
/// Loom remembers only the last access of an atomic. If one thread loads it, and another loads it and then
/// changes it, loom forgets the first load and never tries the change before it. The steps are one word that
/// all threads change, so between them nothing is forgotten. They order no memory.
pub fn step() {
    STEPS.fetch_add(1, Ordering::Relaxed); // Relaxed: so that no model passes for the order of its steps
}

thread_local! {
    /// The threads of the model that runs, and how they are told to start and to leave. Not dropped when a model
    /// fails: that cannot be done outside of it.
    static THREADS: RefCell<Vec<ManuallyDrop<Handle>>> = const { RefCell::new(Vec::new()) };
}

struct Handle {
    start: Option<Sender<()>>,
    leave: Sender<()>,
    thread: JoinHandle<()>,
}

/// A thread of a model.
#[derive(Debug)]
pub struct Thread<R>(Receiver<R>);

/// Makes a thread of a model, which starts when [`go`] is called.
///
/// The epoch knows it from before it starts until the model is over. Coming and going moves the epoch on, or
/// keeps it from moving, and takes most steps of a small model: no orders of it are tried, as it is not what the
/// models are about.
///
/// # Panics
///
/// Outside of a model.
pub fn spawn<R: 'static>(act: impl FnOnce() -> R + 'static) -> Thread<R> {
    loom::stop_exploring();
    let (result, done) = mpsc::channel();
    let [(start, started), (leave, left)] = [(); 2].map(|()| mpsc::channel());
    let thread = loom::thread::spawn(move || {
        drop(epoch::pin());
        // What the epoch loads later is not older than this.
        fence(Ordering::SeqCst);
        started.recv().unwrap();
        step();
        let returned = act();
        step();
        fence(Ordering::SeqCst);
        result.send(returned).unwrap();
        left.recv().unwrap();
    });
    // It runs up to its first wait: all others wait too.
    loom::thread::yield_now();
    loom::explore();
    let handle = Handle { start: Some(start), leave, thread };
    THREADS.with_borrow_mut(|threads| threads.push(ManuallyDrop::new(handle)));
    Thread(done)
}

/// Starts the threads.
///
/// # Panics
///
/// If there are none that were not started.
pub fn go() {
    let starts = THREADS.with_borrow_mut(|threads| {
        threads.iter_mut().filter_map(|thread| thread.start.take()).collect::<Vec<_>>()
    });
    assert!(!starts.is_empty(), "there is a thread to start");
    loom::stop_exploring();
    starts.into_iter().for_each(|start| start.send(()).unwrap());
    loom::explore();
    step();
}

impl<R> Thread<R> {
    /// Waits until the thread is done, and returns its result.
    ///
    /// # Panics
    ///
    /// If the thread panicked.
    pub fn join(self) -> R {
        self.0.recv().unwrap()
    }
}

/// Lets the threads go that are done.
fn leave() {
    for handle in THREADS.take() {
        let Handle { leave, thread, .. } = ManuallyDrop::into_inner(handle);
        leave.send(()).unwrap();
        thread.join().unwrap();
    }
}

/// What stands for a task that serves several waiters: a bell, the keys that rang, and where the task itself
/// waits. The keys are changed `Relaxed`, so that nothing but the lists of waiters order memory.
#[derive(Debug, Default)]
pub struct Desk {
    keys: AtomicUsize,
    waiters: Waiters,
}

impl Bell for Desk {
    fn ring(&self, key: u32) {
        self.keys.fetch_or(1 << key, Ordering::Relaxed); // Relaxed: see the type
        self.waiters.wake();
    }
}

impl Desk {
    /// The keys that rang since the last call, one bit each.
    pub fn rung(&self) -> usize {
        self.keys.swap(0, Ordering::Relaxed) // Relaxed: see the type
    }

    /// The keys that rang, when any did.
    pub fn poll_rung(&self, waiter: &mut Waiter, context: &Context<'_>) -> Poll<usize> {
        let mut rung = self.rung();
        if rung == 0 {
            self.waiters.register(waiter, context.waker());
            rung = self.rung();
        }
        if rung == 0 { Poll::Pending } else { Poll::Ready(rung) }
    }
}

/// Keeps freed memory aside for a while, filled with nonsense. Loom does not see a plain read of freed memory;
/// with this allocator what is read there is an object that loom does not know, and the model stops.
struct Poison;

/// Blocks of up to so many bytes are kept aside: chunks, entries and waiters are smaller.
const KEPT_BYTES: usize = 1024;
/// How many blocks are kept aside.
const KEPT_BLOCKS: usize = 4096;
const NONSENSE: u8 = 0xdd;

struct Kept {
    blocks: [(usize, Layout); KEPT_BLOCKS],
    next: usize,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { blocks: [(0, Layout::new::<()>()); KEPT_BLOCKS], next: 0 });

#[global_allocator]
static ALLOCATOR: Poison = Poison;

// SAFETY: every block comes from the system's allocator and goes back to it once, with its own layout.
unsafe impl GlobalAlloc for Poison {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if layout.size() > KEPT_BYTES {
            // SAFETY: passed on.
            return unsafe { System.dealloc(block, layout) };
        }
        // SAFETY: the caller gives up the block, which is as long as its layout says.
        unsafe { ptr::write_bytes(block, NONSENSE, layout.size()) };
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let index = kept.next;
        kept.next = (index + 1) % KEPT_BLOCKS;
        let (oldest, layout) =
            std::mem::replace(&mut kept.blocks[index], (block.expose_provenance(), layout));
        drop(kept);
        if oldest != 0 {
            // SAFETY: the block was kept aside by an earlier call, which left it to this one.
            unsafe { System.dealloc(ptr::with_exposed_provenance_mut(oldest), layout) };
        }
    }
}
