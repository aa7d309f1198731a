/* libFuzzer as a library to be loaded before Python, so that modules loaded later find its coverage functions.
   libFuzzer looks for a mutator when it is loaded; ours comes later, so it asks here. */
#include <stddef.h>
#include <stdint.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t size_max);

size_t (*fuzz_mutator)(uint8_t *data, size_t size, size_t size_max, unsigned int seed);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned int seed) {
    return fuzz_mutator ? fuzz_mutator(data, size, size_max, seed) : LLVMFuzzerMutate(data, size, size_max);
}
