// Integer functions of hw/numerics.py, hw/vector/golden.py and hw/softmax/golden.py, one value each.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>

#include "layout.h"

using i64 = std::int64_t;

// The same function compiled for newer processors, too; the one that runs is chosen at start.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("arch=skylake-avx512", "avx2", "default")))
#else
#define CLONES
#endif

static inline i64 saturate(i64 x, int bits) {
    const i64 top = (i64(1) << (bits - 1)) - 1;
    return std::min(std::max(x, -top - 1), top);
}

static inline i64 round_shift(i64 x, i64 shift) {
    return (x + ((i64(1) << shift) >> 1)) >> shift;
}

static inline i64 scale_by_power(i64 x, i64 shift) {
    return shift < 0 ? i64(std::uint64_t(x) << -shift) : round_shift(x, shift);
}

static inline i64 bit_length(i64 x) { return 64 - std::countl_zero(std::uint64_t(x)); }

struct Affine {
    i64 mul, offset, shift;
};

static inline i64 affine(i64 x, const Affine& p) { return (x * p.mul + p.offset) >> p.shift; }

// --- elementwise functions --------------------------------------------------------------------

// relu(h) minus a chord of |h|; `table`: base and slope of each segment.
static inline i64 activated(i64 h, int halved, const std::int32_t table[][2]) {
    const i64 u = std::abs(h) >> halved;
    const i64 segment = std::min<i64>(u >> GELU_LOW_BITS, GELU_SEGMENTS - 1);
    const i64 low = u & ((1 << GELU_LOW_BITS) - 1);
    const i64 fine = (i64(table[segment][0]) << GELU_LOW_BITS) + table[segment][1] * low;
    const i64 delta = round_shift(fine, GELU_SUM_BITS - GELU_FRACTION_BITS);
    return std::max<i64>(h, 0) - (u < 4 << GELU_FRACTION_BITS ? delta : 0);
}

CLONES static void activate(i64* h, i64 count, int function) {
    if (function == FUNCTION_NONE) return;
    if (function == FUNCTION_RELU) {
        for (i64 j = 0; j < count; j++) h[j] = std::max<i64>(h[j], 0);
        return;
    }
    const auto& table = function == FUNCTION_GELU_ERF    ? GELU_ERF_TABLE
                        : function == FUNCTION_GELU_TANH ? GELU_TANH_TABLE
                                                         : SILU_TABLE;
    for (i64 j = 0; j < count; j++) h[j] = activated(h[j], function == FUNCTION_SILU, table);
}

// `255/256 * 2^-(f/256)` in units of 2^-15.
static inline i64 exp2_fraction(i64 f) {
    const i64 segment = f >> EXP2_LOW_BITS, low = f & ((1 << EXP2_LOW_BITS) - 1);
    return EXP2_TABLE[segment][0] - ((EXP2_TABLE[segment][1] * low) >> EXP2_LOW_BITS);
}

// --- parameters of a row ----------------------------------------------------------------------

static inline i64 half_of(i64 shift) { return (i64(1) << shift) >> 1; }

static inline Affine norm_row(i64 total, i64 squares, i64 features, i64 epsilon) {
    const i64 variance = std::max<i64>(features * squares - total * total + epsilon, 1);
    const i64 half_exponent = (bit_length(variance) - 15) >> 1;
    const i64 v = half_exponent >= 0 ? variance >> 2 * half_exponent : variance << -2 * half_exponent;
    const i64 segment = (v >> RSQRT_LOW_BITS) - 16, low = v & ((1 << RSQRT_LOW_BITS) - 1);
    const i64 root = std::min<i64>(
        RSQRT_TABLE[segment][0] - ((RSQRT_TABLE[segment][1] * low) >> RSQRT_LOW_BITS), MUL_MAX);
    const i64 h = bit_length(features - 1);
    const i64 shift = std::max<i64>(22 - NORM_FRACTION_BITS + half_exponent - h, 0);
    return {std::min<i64>(round_shift(features * root, h), MUL_MAX),
            half_of(shift) - round_shift(total * root, h), shift};
}

static inline Affine reciprocal_row(i64 total) {
    if (total <= 0) return {0, 0, 0};
    const i64 zeros = SUM_BITS - bit_length(total);
    const i64 normal = total << zeros;
    const i64 segment = (normal >> (SUM_BITS - 6)) & 31;
    const i64 low =
        (normal >> (SUM_BITS - 6 - RECIPROCAL_LOW_BITS)) & ((1 << RECIPROCAL_LOW_BITS) - 1);
    const i64 mul = RECIPROCAL_TABLE[segment][0] -
                    ((RECIPROCAL_TABLE[segment][1] * low) >> RECIPROCAL_LOW_BITS);
    const i64 shift = std::max<i64>(RECIPROCAL_SHIFT - zeros, 0);
    return {std::min<i64>(mul, MUL_MAX), half_of(shift), shift};
}
