# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""One budget for the memory of a flow: what its buffers really hold, and who has to wait when that is too much.

Whoever allocates charges what was allocated, and gives it back when it is freed: read buffers, the arrays of batches,
inflated payloads, folded groups, packets, the index of last writers. So `used` is measured, not planned.

Charging never waits: an allocation in the middle of a batch cannot. Stages wait *before* they begin with a batch or a
unit, and the earlier the stage, the smaller the part of the budget that it may use up (`wait_for_room(used_max)`).
So a slow target fills the budget once, from behind, and then the reader stands still.

Progress. Everything that was read is held until it has committed, so waiting for room must not keep the oldest batch
in flight from going on: it always gets through, however little room there is. When no batch is in flight, the reader
does. A batch is in flight from `enter` until it is freed.
"""
import gc
import threading
import time

cimport cython


cdef extern from *:
    """
    #include <malloc.h>

    /* A limit is worth little while what was freed stays with the process. Left to itself glibc takes blocks of up to
       32 MB from heaps, one for each thread, that seldom shrink; from here on larger ones go back at once. */
    static void sb_give_back_from(int bytes) {
    #ifdef M_MMAP_THRESHOLD
        mallopt(M_MMAP_THRESHOLD, bytes);
    #endif
    }
    static inline int64_t sb_add(int64_t *at, int64_t change) { return __atomic_add_fetch(at, change, __ATOMIC_SEQ_CST); }
    static inline int64_t sb_read(const int64_t *at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
    static inline void sb_raise(int64_t *at, int64_t value) {
        int64_t seen = __atomic_load_n(at, __ATOMIC_RELAXED);
        while (seen < value
               && !__atomic_compare_exchange_n(at, &seen, value, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    }
    """
    void sb_give_back_from(int bytes) noexcept nogil
    int64_t sb_add(int64_t* at, int64_t change) noexcept nogil
    int64_t sb_read(const int64_t* at) noexcept nogil
    void sb_raise(int64_t* at, int64_t value) noexcept nogil


cdef enum:
    GIVE_BACK_BYTES = 1 << 20                         # the size of a read buffer
    COLLECT_SECONDS = 1


@cython.no_gc                                         # objects that charge it are freed by the collector: it must not
cdef class MemoryBudget:                              # be cleared before them. It cannot be part of a circle
    """`limit` in bytes. Thread-safe.

    `used`, `peak`: bytes held now, and the most so far. `batches`: how many are in flight. `waits`, `wait_seconds`:
    how often somebody waited for room, and how long all of them together.
    """

    def __init__(self, int64_t limit):
        self.limit = limit
        sb_give_back_from(GIVE_BACK_BYTES)
        self.in_flight = {}
        self.waiting = []

    @property
    def used(self):
        """Bytes held now."""
        return sb_read(&self.used_bytes)

    @property
    def peak(self):
        """The most that was held at once, in bytes."""
        return sb_read(&self.peak_bytes)

    @property
    def batches(self):
        """Batches in flight."""
        return len(self.in_flight)

    # --- charging -----------------------------------------------------------------------------------------------

    cdef void charge(self, int64_t byte_count) noexcept nogil:
        sb_raise(&self.peak_bytes, sb_add(&self.used_bytes, byte_count))

    cdef int free(self, int64_t byte_count) except -1:
        sb_add(&self.used_bytes, -byte_count)
        return self.wake() if self.waiting else 0

    cdef int leave(self, uint64_t number, uint32_t piece) except -1:
        self.in_flight.pop((number, piece), None)
        return self.wake() if self.waiting else 0

    def add(self, int64_t byte_count):
        """Charges bytes; never waits."""
        self.charge(byte_count)

    def release(self, int64_t byte_count):
        """Gives charged bytes back."""
        self.free(byte_count)

    def enter(self, uint64_t number, uint32_t piece=0):
        """Batch `number` is handed out, or a further piece of it, while the one before is still in flight."""
        self.in_flight[number, piece] = None

    # --- waiting ------------------------------------------------------------------------------------------------

    def wait_for_room(self, int64_t used_max, number=None, piece=0):
        """Returns once at most `used_max` bytes are held, or this piece of batch `number` is the oldest in flight.

        Without a number: or no batch is in flight."""
        self.wait(used_max, 0, number, piece)

    def reserve(self, int64_t byte_count, number):
        """Charges what is about to be allocated, once there is room for it or batch `number` is the oldest in flight.

        The caller gives it back with `release`, as the allocations come that charge themselves."""
        self.wait(self.limit, byte_count, number, None)

    cdef int wait(self, int64_t used_max, int64_t byte_count, number, piece) except -1:
        if self.has_room(used_max, byte_count, number, piece):
            return 0
        started = time.monotonic()
        patience = COLLECT_SECONDS
        self.waits += 1
        try:
            while True:
                wake = threading.Lock()
                wake.acquire()
                self.waiting.append(wake)
                # Looked at again behind the append: who gives bytes back after this look finds us in the list.
                if self.has_room(used_max, byte_count, number, piece):
                    return 0                         # the lock stays in the list until the next wake-up
                while not wake.acquire(timeout=patience):
                    # A batch that only a circle of references holds (a traceback, mostly) would never leave: while
                    # everybody waits nothing is allocated, and nothing collected.
                    patience *= 2
                    gc.collect()
        finally:
            self.wait_seconds += time.monotonic() - started

    cdef bint has_room(self, int64_t used_max, int64_t byte_count, number, piece) except -1:
        """Charges `byte_count` if so. Charged first and looked at then: two that look at once do not both find room."""
        if sb_add(&self.used_bytes, byte_count) <= used_max or self.lifted:
            self.charge(0)                           # the peak
            return True
        oldest = min(list(self.in_flight), default=None)
        if oldest is None or (oldest[0] == number and (piece is None or oldest[1] == piece)):
            self.charge(0)
            return True
        sb_add(&self.used_bytes, -byte_count)
        return False

    def lift(self):
        """Nobody waits any more: the flow ends, and what was begun must get through."""
        self.lifted = True
        self.wake()

    cdef int wake(self) except -1:
        """Called wherever an object may be freed, so it takes no lock of its own."""
        while self.waiting:
            try:
                wake = self.waiting.pop()
            except IndexError:                       # another thread was faster
                break
            wake.release()
        return 0
