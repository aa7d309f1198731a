# cython: language_level=3, boundscheck=False, wraparound=False
"""libFuzzer around a target, and exact memory for address sanitizer. Compiled by `tests.fuzz.build` only."""
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, strdup

from applier.events.batch cimport Batch, Buffer

import sys
import traceback
from random import Random

from tests.fuzz import guard

cdef extern from *:
    """
    #include <stdint.h>
    #include <stddef.h>
    extern int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*callback)(const uint8_t *data, size_t size));
    extern size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t size_max);
    extern size_t (*fuzz_mutator)(uint8_t *data, size_t size, size_t size_max, unsigned int seed);
    extern void __asan_poison_memory_region(void const volatile *address, size_t size);
    extern void __asan_unpoison_memory_region(void const volatile *address, size_t size);
    """
    ctypedef int (*Callback)(const uint8_t* data, size_t size) noexcept
    ctypedef size_t (*Mutator)(uint8_t* data, size_t size, size_t size_max, unsigned int seed) noexcept
    int LLVMFuzzerRunDriver(int* argc, char*** argv, Callback callback)
    size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t size_max)
    Mutator fuzz_mutator
    void __asan_poison_memory_region(const void* address, size_t size) nogil
    void __asan_unpoison_memory_region(const void* address, size_t size) nogil

cdef object run_target = None
cdef object mutate_input = None


class ExactGuard(guard.Guard):
    """Every byte behind an event, or not arrived yet, is an error to read."""

    def isolate(self, Batch batch):
        cdef size_t i
        cdef Buffer own
        for i in range(batch.event_count):
            own = Buffer(batch.events[i].length)
            memcpy(own.data, batch.events[i].data, batch.events[i].length)
            batch.buffers.append(own)
            batch.events[i].data = own.data

    def close(self, view):
        cdef uint8_t[::1] memory
        if len(view):
            memory = view
            __asan_poison_memory_region(&memory[0], memory.shape[0])

    def open(self, view):
        cdef uint8_t[::1] memory
        if len(view):
            memory = view
            __asan_unpoison_memory_region(&memory[0], memory.shape[0])

    def exact(self, bytes data):
        buffer = Buffer(len(data))
        view = memoryview(buffer)
        view[:] = data
        return view


cdef int on_input(const uint8_t* data, size_t size) noexcept:
    try:
        run_target(data[:size])
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        abort_now()
    return 0


cdef extern from "<stdlib.h>":
    void abort_now "abort"()


cdef size_t on_mutate(uint8_t* data, size_t size, size_t size_max, unsigned int seed) noexcept:
    cdef bytes changed
    cdef size_t length
    try:
        changed = mutate_input(data[:size], Random(seed))
        length = min(<size_t>len(changed), size_max)
        memcpy(data, <const uint8_t*>changed, length)
        return length
    except BaseException:
        traceback.print_exc()
        abort_now()


def mutate_bytes(bytes data, random):
    """libFuzzer's own mutation, which knows what the code under test compares with."""
    cdef size_t size = len(data), size_max = size + 64
    cdef uint8_t* room = <uint8_t*>malloc(size_max)
    if room is NULL:
        raise MemoryError
    try:
        memcpy(room, <const uint8_t*>data, size)
        size = LLVMFuzzerMutate(room, size, size_max)
        return room[:size]
    finally:
        free(room)


def fuzz(run, mutate, list arguments):
    """Runs `run(data)` on ever new inputs; never returns. `mutate(data, random)`, or None for libFuzzer's own.

    `arguments` are libFuzzer's: options and corpus folders."""
    global run_target, mutate_input
    cdef int count = len(arguments) + 1
    cdef char** values = <char**>malloc((count + 1) * sizeof(char*))
    run_target, mutate_input = run, mutate
    guard.active = ExactGuard()
    if mutate is not None:
        global fuzz_mutator
        set_mutator()
    for number, argument in enumerate(["fuzz", *arguments]):
        values[<size_t>number] = strdup((<str>argument).encode())
    values[count] = NULL
    return LLVMFuzzerRunDriver(&count, &values, on_input)


cdef void set_mutator() noexcept:
    global fuzz_mutator
    fuzz_mutator = on_mutate
