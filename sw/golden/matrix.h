// The matrix commands: the loop nests of hw/isa.py. Weights of one output tile are unpacked to
// pairs of rows [reach / 2][columns][2], so that one instruction multiplies and adds two of them.
#pragma once
#include <cstring>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#include "numerics.h"

using i16 = std::int16_t;
using i32 = std::int32_t;

static constexpr i64 QUAD = 4, QUAD_ROWS = 4, LARGEST_INDEX = 2;

struct TileFormat {
    bool by_column, sparse, int4, scaled, low;
    i64 group, rows, columns;

    TileFormat(const Machine& m, const Gemm& v, int opcode)
        : by_column(v.w_by_column), sparse(opcode == OPCODE_SPARSE_GEMM), int4(v.w_int4),
          scaled(opcode == OPCODE_SCALED_GEMM), low(opcode == OPCODE_LOW_GEMM), group(v.w_group), rows(m.rows), columns(m.columns) {}
    i64 reach() const { return sparse ? 2 * rows : rows; }
    i64 panels() const { return sparse ? 2 : 1; }
    i64 words() const {
        if (by_column) return columns;
        return (int4 ? rows / 2 : rows) + (sparse ? (rows + QUAD_ROWS - 1) / QUAD_ROWS : 0);
    }
    // Words in front of the first tile of a group, and of so many tiles.
    i64 head() const { return !group ? 0 : scaled ? 2 : 1; }
    i64 heads(i64 tiles) const { return group ? (tiles + group - 1) / group * head() : 0; }
};

// --- weights ----------------------------------------------------------------------------------

// Where weight (r, c) of a tile lies among `columns` pairs.
static inline i16& place(i16* pairs, i64 columns, i64 r, i64 c) {
    return pairs[((r >> 1) * columns + c) * 2 + (r & 1)];
}

CLONES static void pack_rows(const std::int8_t* words, i64 word_bytes, i64 rows, i64 columns,
                             i64 padded, i16* pairs) {
    for (i64 r = 0; r < rows; r += 2) {
        const std::int8_t *even = words + r * word_bytes, *odd = even + word_bytes;
        i16* out = pairs + r * padded;
        for (i64 c = 0; c < columns; c++) {
            out[2 * c] = even[c];
            out[2 * c + 1] = odd[c];
        }
    }
}

static inline i64 nibble(std::int8_t byte, i64 which) {
    return which ? byte >> 4 : i64(std::int8_t(byte << 4)) >> 4;
}

// INT4 words by row: a byte has rows 2p (low nibble) and 2p + 1 of its column, as a pair has them.
CLONES static void pack_nibbles(const std::int8_t* words, i64 word_bytes, i64 rows, i64 columns,
                                i64 padded, const std::int8_t* multipliers, i16* pairs) {
    for (i64 r = 0; r < rows; r += 2) {
        const std::int8_t* word = words + r / 2 * word_bytes;
        i16* out = pairs + r * padded;
        for (i64 c = 0; c < columns; c++) {
            out[2 * c] = i16(std::int8_t(word[c] << 4) >> 4);
            out[2 * c + 1] = i16(word[c] >> 4);
        }
        if (!multipliers) continue;
        for (i64 c = 0; c < columns; c++) {
            const i16 multiplier = i16((multipliers[c] & 15) + 1);
            out[2 * c] = i16(out[2 * c] * multiplier);
            out[2 * c + 1] = i16(out[2 * c + 1] * multiplier);
        }
    }
}

static void pack_tile(const TileFormat& form, const std::int8_t* words, i64 word_bytes,
                      const std::int8_t* multipliers, i64 padded, i16* pairs) {
    if (!form.by_column && !form.sparse && !form.int4)
        return pack_rows(words, word_bytes, form.rows, form.columns, padded, pairs);
    if (form.int4 && !form.sparse)
        return pack_nibbles(words, word_bytes, form.rows, form.columns, padded, multipliers, pairs);
    if (form.sparse) std::memset(pairs, 0, sizeof(i16) * form.reach() * padded);
    for (i64 c = 0; c < form.columns; c++) {
        const i64 multiplier = multipliers ? (multipliers[c] & 15) + 1 : 1;
        for (i64 r = 0; r < form.rows; r++) {
            if (form.by_column) {
                place(pairs, padded, r, c) = words[c * word_bytes + r];
                continue;
            }
            const i64 quad = r / QUAD_ROWS, u = r % QUAD_ROWS;
            const i64 in_quad = form.int4 ? QUAD_ROWS / 2 : QUAD_ROWS;
            const i64 first = form.sparse ? quad * (in_quad + 1) + 1 : quad * in_quad;
            const std::int8_t byte = words[(first + (form.int4 ? u / 2 : u)) * word_bytes + c];
            const i64 weight = (form.int4 ? nibble(byte, u % 2) : byte) * multiplier;
            if (!form.sparse) {
                place(pairs, padded, r, c) = i16(weight);
                continue;
            }
            const i64 index = std::uint8_t(words[(first - 1) * word_bytes + c]) >> 2 * u & 3;
            const i64 input = QUAD * (r / 2) + r % 2 + std::min(index, LARGEST_INDEX);
            place(pairs, padded, input, c) += i16(weight);
        }
    }
}

// --- products ---------------------------------------------------------------------------------

// sums[i][c] += sum over r of a[i][r] * weight(r, c), modulo 2^32. a: rows of `stride` values.
// columns: a multiple of 8.
static void multiply_plain(i64 rows, i64 pairs, i64 columns, const i16* a, i64 stride, const i16* w,
                           i32* sums) {
    for (i64 i = 0; i < rows; i++)
        for (i64 p = 0; p < pairs; p++) {
            const i32 x = a[i * stride + 2 * p], y = a[i * stride + 2 * p + 1];
            for (i64 c = 0; c < columns; c++)
                sums[i * columns + c] += x * w[(p * columns + c) * 2] + y * w[(p * columns + c) * 2 + 1];
        }
}

#if defined(__x86_64__)
template <int ROWS, int VECTORS>
__attribute__((target("avx2"))) static inline void block(i64 pairs, i64 columns, const i16* a,
                                                         i64 stride, const i16* w, i32* sums) {
    __m256i s[ROWS][VECTORS];
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < VECTORS; j++)
            s[i][j] = _mm256_loadu_si256((const __m256i*)(sums + i * columns + 8 * j));
    for (i64 p = 0; p < pairs; p++) {
        __m256i weights[VECTORS];
        for (int j = 0; j < VECTORS; j++)
            weights[j] = _mm256_loadu_si256((const __m256i*)(w + p * columns * 2 + 16 * j));
        for (int i = 0; i < ROWS; i++) {
            i32 pair;
            std::memcpy(&pair, a + i * stride + 2 * p, sizeof pair);
            const __m256i x = _mm256_set1_epi32(pair);
            for (int j = 0; j < VECTORS; j++)
                s[i][j] = _mm256_add_epi32(s[i][j], _mm256_madd_epi16(x, weights[j]));
        }
    }
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < VECTORS; j++)
            _mm256_storeu_si256((__m256i*)(sums + i * columns + 8 * j), s[i][j]);
}

template <int VECTORS>
__attribute__((target("avx2"))) static inline void blocks(i64 rows, i64 pairs, i64 columns,
                                                          const i16* a, i64 stride, const i16* w,
                                                          i32* sums) {
    i64 i = 0;
    for (; i + 4 <= rows; i += 4)
        block<4, VECTORS>(pairs, columns, a + i * stride, stride, w, sums + i * columns);
    for (; i + 2 <= rows; i += 2)
        block<2, VECTORS>(pairs, columns, a + i * stride, stride, w, sums + i * columns);
    for (; i < rows; i++)
        block<1, VECTORS>(pairs, columns, a + i * stride, stride, w, sums + i * columns);
}

__attribute__((target("avx2"))) static void multiply_avx2(i64 rows, i64 pairs, i64 columns,
                                                          const i16* a, i64 stride, const i16* w,
                                                          i32* sums) {
    i64 c = 0;
    for (; c + 16 <= columns; c += 16)
        blocks<2>(rows, pairs, columns, a, stride, w + 2 * c, sums + c);
    for (; c < columns; c += 8)
        blocks<1>(rows, pairs, columns, a, stride, w + 2 * c, sums + c);
}
#endif

#if defined(__x86_64__)
// Of the processor, and of a system that saves its registers. (With zig,
// `__builtin_cpu_supports` does not link.)
static bool has_avx2() {
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return false;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & 6) == 6 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
}
#endif

static bool plain = false;  // for tests of what other processors run

static void multiply(i64 rows, i64 pairs, i64 columns, const i16* a, i64 stride, const i16* w,
                     i32* sums) {
#if defined(__x86_64__)
    static const bool avx2 = has_avx2();
    if (avx2 && !plain) return multiply_avx2(rows, pairs, columns, a, stride, w, sums);
#endif
    multiply_plain(rows, pairs, columns, a, stride, w, sums);
}

// --- the command ------------------------------------------------------------------------------

CLONES static void gather(const Machine& m, const Gemm& v, i64 panels, i64 lines, i16* a) {
    const i64 stride = panels * m.rows;
    for (i64 p = 0; p < panels; p++)
        for (i64 i = 0; i < lines; i++) {
            const std::uint8_t* word = m.activation + (v.a_address + p * v.a_stride + i) * m.rows;
            i16* out = a + i * stride + p * m.rows;
            if (v.a_unsigned)
                for (i64 r = 0; r < m.rows; r++) out[r] = word[r];
            else
                for (i64 r = 0; r < m.rows; r++) out[r] = std::int8_t(word[r]);
        }
}

// One output tile's sums, to the accumulator and the row maxima.
// joined: the sums of high and low bytes are.
CLONES static void finish(const Machine& m, const Gemm& v, bool joined, i64 n, i64 padded,
                          const i32* sums) {
    const i64 columns = m.columns;
    const std::uint8_t* mask = v.mask ? m.mask + (v.mask_address + n) * columns : nullptr;
    for (i64 i = 0; i < v.rows; i++) {
        i32* acc = m.accumulator + (v.acc_address + n * v.acc_stride + i) * columns;
        const i32* high = sums + (v.wide ? 2 * i : i) * padded;
        const i32* low = high + padded;
        const i64 shift = v.accumulate ? (v.rescale ? m.shift[v.slot + i] : 0) : 8;
        for (i64 c = 0; c < columns; c++) {
            const std::uint32_t sum = v.wide && !joined
                                          ? 256u * std::uint32_t(high[c]) + std::uint32_t(low[c])
                                          : std::uint32_t(high[c]);
            const i64 old = v.accumulate || v.rescale ? scale_by_power(acc[c], shift) : 0;
            acc[c] = i32(sum + std::uint32_t(old));
        }
        if (!v.row_max) continue;
        if (mask)
            for (i64 c = 0; c < columns; c++)
                if (!mask[c]) acc[c] = MASKED_SCORE;
        const i64 keys = v.limit - n * columns + (v.causal ? (v.period ? i % v.period : i) : 0);
        i32 top = n ? m.row_max[v.slot + i] : MASKED_SCORE;
        for (i64 c = 0; c < std::min(keys, columns); c++) top = std::max(top, acc[c]);
        m.row_max[v.slot + i] = top;
    }
}

static constexpr i64 OFFSET_UNIT = 8;

// Adds to sums[lines][padded] what a tile of scaled weights gives, and to those of the high bytes
// of wide rows what their low bytes do. a: rows of `stride` bytes. products: the tile's.
CLONES static void scale(const Gemm& v, i64 lines, i64 rows, i64 columns, i64 padded, const i16* a,
                         i64 stride, const std::int8_t* head, i64 word_bytes, const i32* products,
                         i32* sums) {
    const std::int8_t *scales = head, *offsets = head + word_bytes;
    for (i64 i = 0; i < lines; i++) {
        i32 total = 0;
        for (i64 r = 0; r < rows; r++) total += a[i * stride + r];
        const bool low = v.wide && i % 2;
        i32* out = sums + (low ? i - 1 : i) * padded;
        for (i64 c = 0; c < columns; c++) {
            const i32 value = std::uint8_t(scales[c]) * products[i * padded + c] +
                              i32(OFFSET_UNIT) * offsets[c] * total;
            out[c] += low ? (value + 128) >> 8 : value;
        }
    }
}

// Adds to those of the high bytes what the sums of a tile of low bytes of weights give.
CLONES static void join_low(i64 rows, i64 padded, const i32* products, i32* sums) {
    for (i64 i = 0; i < rows; i++) {
        const i32 *high = products + 2 * i * padded, *low = high + padded;
        for (i64 c = 0; c < padded; c++) sums[2 * i * padded + c] += high[c] + ((low[c] + 128) >> 8);
    }
}

static bool gemm(const Machine& m, const Gemm& v, int opcode) {
    const TileFormat form(m, v, opcode);
    const i64 panels = v.k_tiles * form.panels(), lines = (1 + v.wide) * v.rows;
    const i64 last = (v.k_tiles - 1) * v.w_k_stride + (v.n_tiles - 1) * v.w_n_stride +
                     form.heads(v.k_tiles) + form.words() - 1;
    const bool rescale = v.accumulate && v.rescale;
    if (v.a_address + (panels - 1) * v.a_stride + lines > m.activation_words ||
        v.w_address + last >= m.weight_words ||
        v.acc_address + (v.n_tiles - 1) * v.acc_stride + v.rows > m.accumulator_words ||
        ((v.row_max || rescale) && v.slot + v.rows > m.row_slots) ||
        (v.row_max && v.mask && v.mask_address + v.n_tiles > m.mask_words))
        return false;
    if (rescale && !all_written(m.octaves_written, v)) return false;
    if (v.row_max) set_written(m.row_max_written, v);

    static thread_local std::vector<i16> a, pairs;
    static thread_local std::vector<i32> sums, products;
    const i64 stride = panels * m.rows, padded = (m.columns + 7) / 8 * 8;
    a.resize(lines * stride);
    gather(m, v, panels, lines, a.data());
    // So many tiles are unpacked at once that their weights stay in the nearest cache.
    const i64 reach = form.reach(), at_once = form.scaled || form.low ? 1 : std::max<i64>(1, 16384 / (2 * reach * padded));
    pairs.assign(at_once * reach * padded, 0);
    for (i64 n = 0; n < v.n_tiles; n++) {
        sums.assign(lines * padded, 0);
        for (i64 start = 0; start < v.k_tiles; start += at_once) {
            const i64 count = std::min(at_once, v.k_tiles - start);
            for (i64 t = 0; t < count; t++) {
                const i64 k = start + t;
                i64 word = v.w_address + n * v.w_n_stride + k * v.w_k_stride;
                const std::int8_t* head = nullptr;
                if (form.group) {
                    word += k / form.group * form.head();
                    head = m.weight + (word - k % form.group * v.w_k_stride) * m.weight_bytes;
                    word += form.head();
                }
                pack_tile(form, m.weight + word * m.weight_bytes, m.weight_bytes,
                          form.scaled ? nullptr : head, padded, pairs.data() + t * reach * padded);
                if (!form.scaled) continue;
                products.assign(lines * padded, 0);
                const i16* tile = a.data() + start * reach;
                multiply(lines, reach / 2, padded, tile, stride, pairs.data(), products.data());
                scale(v, lines, m.rows, m.columns, padded, tile, stride, head, m.weight_bytes,
                      products.data(), sums.data());
            }
            if (form.scaled) continue;
            if (form.low) {
                products.assign(lines * padded, 0);
                multiply(lines, reach / 2, padded, a.data() + start * reach, stride, pairs.data(),
                         products.data());
                join_low(v.rows, padded, products.data(), sums.data());
                continue;
            }
            multiply(lines, count * reach / 2, padded, a.data() + start * reach, stride,
                     pairs.data(), sums.data());
        }
        finish(m, v, form.scaled || form.low, n, padded, sums.data());
    }
    return true;
}
