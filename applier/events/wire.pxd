"""Little-endian integers of the wire, read byte by byte (compilers make one load of it). No bounds checks here:
the caller has compared with the end before."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef inline uint16_t load_u16(const uint8_t* p) noexcept nogil:
    return <uint16_t>(p[0] | (<uint16_t>p[1] << 8))


cdef inline uint32_t load_u24(const uint8_t* p) noexcept nogil:
    return p[0] | (<uint32_t>p[1] << 8) | (<uint32_t>p[2] << 16)


cdef inline uint32_t load_u32(const uint8_t* p) noexcept nogil:
    return p[0] | (<uint32_t>p[1] << 8) | (<uint32_t>p[2] << 16) | (<uint32_t>p[3] << 24)


cdef inline uint64_t load_u56(const uint8_t* p) noexcept nogil:
    return load_u32(p) | (<uint64_t>load_u24(p + 4) << 32)


cdef inline uint64_t load_u64(const uint8_t* p) noexcept nogil:
    return load_u32(p) | (<uint64_t>load_u32(p + 4) << 32)


cdef inline void store_u32(uint8_t* p, uint32_t value) noexcept nogil:
    p[0] = <uint8_t>value
    p[1] = <uint8_t>(value >> 8)
    p[2] = <uint8_t>(value >> 16)
    p[3] = <uint8_t>(value >> 24)


# Integer of the server's serialization library (tagged GTID events): the number of low one-bits in the first
# byte is the number of bytes that follow, the value is what remains above the lowest zero-bit.
# Advances `p`; returns 0, or -1 when the bytes end before the integer does.
cdef inline int load_varlen(const uint8_t** p, const uint8_t* end, uint64_t* value) noexcept nogil:
    cdef const uint8_t* at = p[0]
    cdef unsigned int extra = 0, i
    cdef uint64_t raw = 0
    if at >= end:
        return -1
    while extra < 8 and (at[0] >> extra) & 1:
        extra += 1
    if <size_t>(end - at) < extra + 1:
        return -1
    if extra == 8:
        raw = load_u64(at + 1)
    else:
        for i in range(extra + 1):
            raw |= <uint64_t>at[i] << (8 * i)
        raw >>= extra + 1
    value[0] = raw
    p[0] = at + extra + 1
    return 0


# Signed values keep their sign in the lowest bit, inverted magnitudes when negative.
cdef inline int load_varlen_signed(const uint8_t** p, const uint8_t* end, int64_t* value) noexcept nogil:
    cdef uint64_t raw = 0
    if load_varlen(p, end, &raw):
        return -1
    value[0] = <int64_t>((raw >> 1) ^ (~(raw & 1) + 1))
    return 0
