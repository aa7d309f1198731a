/* A 64-bit hash for short keys: two multiplications for up to 16 bytes, one more for each further 16.

   The construction (128-bit products whose halves are folded together) is the one of the wyhash family; all 64 bits
   are meant to be used. It is not meant to withstand somebody who chooses keys in order to make them collide: a
   collision costs parallelism, nothing else. */
#ifndef WRITESET_HASH64_H
#define WRITESET_HASH64_H

#include <stdint.h>
#include <string.h>

static const uint64_t WS_A = 0x9fb21c651e98df25ULL, WS_B = 0xd6e8feb86659fd93ULL, WS_C = 0xa0b428db7cd0e6c9ULL;

static inline uint64_t ws_read64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline uint64_t ws_read32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }

/* 64 x 64 -> 128 bit product, halves folded: each input bit reaches every output bit. */
static inline uint64_t ws_mix(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* The length goes into the last mix, so hashes chained through `seed` keep the columns' boundaries apart. */
static inline uint64_t ws_hash(const uint8_t *p, size_t length, uint64_t seed) {
    uint64_t a, b;
    seed ^= WS_A;
    if (length <= 16) {
        if (length >= 8) {
            a = ws_read64(p);
            b = ws_read64(p + length - 8);
        } else if (length >= 4) {
            a = ws_read32(p);
            b = ws_read32(p + length - 4);
        } else if (length > 0) {
            a = ((uint64_t)p[0] << 16) | ((uint64_t)p[length >> 1] << 8) | p[length - 1];
            b = 0;
        } else {
            a = b = 0;
        }
    } else {
        const uint8_t *last = p + length - 16;
        for (; p < last; p += 16)
            seed = ws_mix(ws_read64(p) ^ WS_B, ws_read64(p + 8) ^ seed);
        a = ws_read64(last);
        b = ws_read64(last + 8);
    }
    return ws_mix(WS_C ^ length, ws_mix(a ^ WS_B, b ^ seed));
}

#endif
