"""Base64 of several byte strings one after the other, without joining them first."""
from libc.stdint cimport uint8_t, uint32_t

# What is between two calls: bytes that do not make a group of three yet.
cdef struct Base64:
    uint8_t* out
    uint32_t pending                # the bytes, most significant first
    uint32_t pending_count          # 0, 1 or 2

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* Twelve bits make two characters, so a table of 8 KB (it stays in the first-level cache) halves the look-ups. */
    static uint8_t base64_pairs[4096][2];

    static void base64_prepare(void) {
        static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        for (int i = 0; i < 4096; i++) {
            base64_pairs[i][0] = (uint8_t)digits[i >> 6];
            base64_pairs[i][1] = (uint8_t)digits[i & 63];
        }
    }

    static inline uint8_t *base64_three(uint8_t *out, uint32_t three) {
        memcpy(out, base64_pairs[three >> 12 & 0xFFF], 2);
        memcpy(out + 2, base64_pairs[three & 0xFFF], 2);
        return out + 4;
    }

    /* Whole groups of `data`: six bytes a round, read as eight. Returns how many bytes were encoded. */
    static inline size_t base64_groups(uint8_t **target, const uint8_t *data, size_t length) {
        const uint8_t *p = data, *end = data + length;
        uint8_t *out = *target;
        while (end - p >= 8) {
            uint64_t v = (uint64_t)p[0] << 56 | (uint64_t)p[1] << 48 | (uint64_t)p[2] << 40 | (uint64_t)p[3] << 32
                       | (uint64_t)p[4] << 24 | (uint64_t)p[5] << 16 | (uint64_t)p[6] << 8 | p[7];
            memcpy(out, base64_pairs[v >> 52], 2);
            memcpy(out + 2, base64_pairs[v >> 40 & 0xFFF], 2);
            memcpy(out + 4, base64_pairs[v >> 28 & 0xFFF], 2);
            memcpy(out + 6, base64_pairs[v >> 16 & 0xFFF], 2);
            out += 8;
            p += 6;
        }
        while (end - p >= 3) {
            out = base64_three(out, (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2]);
            p += 3;
        }
        *target = out;
        return (size_t)(p - data);
    }
    """
    void base64_prepare() noexcept nogil
    uint8_t* base64_three(uint8_t* out, uint32_t three) noexcept nogil
    size_t base64_groups(uint8_t** target, const uint8_t* data, size_t length) noexcept nogil


cdef inline size_t base64_length(size_t length) noexcept nogil:
    return (length + 2) // 3 * 4


cdef inline void base64_add(Base64* state, const uint8_t* data, size_t length) noexcept nogil:
    while length and state.pending_count:
        state.pending = state.pending << 8 | data[0]
        state.pending_count += 1
        data += 1
        length -= 1
        if state.pending_count == 3:
            state.out = base64_three(state.out, state.pending)
            state.pending = state.pending_count = 0
    cdef size_t done = base64_groups(&state.out, data, length)
    while done < length:
        state.pending = state.pending << 8 | data[done]
        state.pending_count += 1
        done += 1


cdef inline void base64_end(Base64* state) noexcept nogil:
    """Writes the last, padded group."""
    cdef uint32_t missing = 3 - state.pending_count
    if state.pending_count == 0:
        return
    state.out = base64_three(state.out, state.pending << 8 * missing)
    state.out[-1] = c'='
    if missing == 2:
        state.out[-2] = c'='
    state.pending = state.pending_count = 0
