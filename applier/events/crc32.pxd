"""CRC-32 (IEEE, reflected; the one of zlib) over event bytes, without libz.

Sixteen bytes a step from tables; 64 bytes a step by carry-less multiplication where the processor has it (x86-64), after
"Fast CRC Computation for Generic Polynomials Using PCLMULQDQ" (Intel, 2009). Tables are made at import.
"""
from libc.stdint cimport uint8_t, uint32_t

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>

    static uint32_t applier_crc_table[16][256];

    static void applier_crc32_prepare(void) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t crc = byte;
            for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0);
            applier_crc_table[0][byte] = crc;
        }
        for (int slice = 1; slice < 16; slice++)
            for (uint32_t byte = 0; byte < 256; byte++) {
                uint32_t crc = applier_crc_table[slice - 1][byte];
                applier_crc_table[slice][byte] = (crc >> 8) ^ applier_crc_table[0][crc & 255];
            }
    }

    static uint32_t applier_crc_load(const uint8_t *p) {
        return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    }

    /* `crc` is the running register (already inverted). */
    static uint32_t applier_crc_tables(uint32_t crc, const uint8_t *p, size_t length) {
        for (; length >= 16; length -= 16, p += 16) {
            uint32_t word[4] = {crc ^ applier_crc_load(p), applier_crc_load(p + 4),
                                applier_crc_load(p + 8), applier_crc_load(p + 12)};
            crc = 0;
            for (int i = 0; i < 4; i++)
                crc ^= applier_crc_table[15 - 4 * i][word[i] & 255]
                     ^ applier_crc_table[14 - 4 * i][word[i] >> 8 & 255]
                     ^ applier_crc_table[13 - 4 * i][word[i] >> 16 & 255]
                     ^ applier_crc_table[12 - 4 * i][word[i] >> 24];
        }
        while (length--) crc = (crc >> 8) ^ applier_crc_table[0][(crc ^ *p++) & 255];
        return crc;
    }

    #if defined(__x86_64__) && defined(__GNUC__)
    #include <immintrin.h>
    #define APPLIER_CRC_FOLDING __attribute__((target("sse4.1,pclmul")))

    /* One folding step: moves `x` forward by the distance of `k`, and adds the bytes met there. */
    APPLIER_CRC_FOLDING static __m128i applier_crc_fold(__m128i x, __m128i k, __m128i met) {
        return _mm_xor_si128(met, _mm_xor_si128(_mm_clmulepi64_si128(x, k, 0x00),
                                                _mm_clmulepi64_si128(x, k, 0x11)));
    }

    /* At least 64 bytes. Leaves 16 bytes with the same remainder, and gives those to the tables. */
    APPLIER_CRC_FOLDING static uint32_t applier_crc_multiply(uint32_t crc, const uint8_t *p, size_t length) {
        /* x^(512±32) and x^(128±32) mod P, reflected: distances of 64 and of 16 bytes. */
        const __m128i far = _mm_set_epi64x(0x1c6e41596, 0x154442bd4);
        const __m128i near = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);
        const __m128i *in = (const __m128i *)p;
        __m128i a = _mm_xor_si128(_mm_loadu_si128(in), _mm_cvtsi32_si128((int)crc));
        __m128i b = _mm_loadu_si128(in + 1), c = _mm_loadu_si128(in + 2), d = _mm_loadu_si128(in + 3);
        uint8_t rest[16];
        for (p += 64, length -= 64; length >= 64; p += 64, length -= 64) {
            in = (const __m128i *)p;
            a = applier_crc_fold(a, far, _mm_loadu_si128(in));
            b = applier_crc_fold(b, far, _mm_loadu_si128(in + 1));
            c = applier_crc_fold(c, far, _mm_loadu_si128(in + 2));
            d = applier_crc_fold(d, far, _mm_loadu_si128(in + 3));
        }
        a = applier_crc_fold(applier_crc_fold(applier_crc_fold(a, near, b), near, c), near, d);
        for (; length >= 16; p += 16, length -= 16)
            a = applier_crc_fold(a, near, _mm_loadu_si128((const __m128i *)p));
        _mm_storeu_si128((__m128i *)rest, a);
        return applier_crc_tables(applier_crc_tables(0, rest, 16), p, length);
    }

    static uint32_t applier_crc32(const uint8_t *p, size_t length) {
        if (length >= 64 && __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1"))
            return ~applier_crc_multiply(0xFFFFFFFFu, p, length);
        return ~applier_crc_tables(0xFFFFFFFFu, p, length);
    }
    #else
    static uint32_t applier_crc32(const uint8_t *p, size_t length) {
        return ~applier_crc_tables(0xFFFFFFFFu, p, length);
    }
    #endif
    """
    void crc32_prepare "applier_crc32_prepare"() noexcept nogil
    uint32_t crc32_of "applier_crc32"(const uint8_t* data, size_t length) noexcept nogil
    uint32_t crc32_register "applier_crc_tables"(uint32_t register, const uint8_t* data, size_t length) noexcept nogil
