// VECTOR, NORM, SCALE, SOFTMAX, SELECT and KEEP, row by row. A command is refused, before it has changed
// anything, by returning false.
#pragma once
#include <cstring>
#include <vector>

#include "numerics.h"

using Row = std::vector<i64>;

// --- operands and results ---------------------------------------------------------------------

template <class Command> static bool accumulator_fits(const Machine& m, const Command& v) {
    const i64 in_panel = m.columns / m.lanes, panels = (v.groups + in_panel - 1) / in_panel;
    return v.acc_address + (panels - 1) * v.acc_stride + v.rows <= m.accumulator_words;
}

template <class Command> static bool slots_fit(const Machine& m, const Command& v) {
    return v.slot + v.rows <= m.row_slots;
}

// The first `width` accumulator values of row i.
template <class Command>
static void read_accumulator(const Machine& m, const Command& v, i64 i, i64 width, i64* x) {
    for (i64 p = 0; p * m.columns < width; p++) {
        const i32* word = m.accumulator + (v.acc_address + p * v.acc_stride + i) * m.columns;
        const i64 count = std::min(m.columns, width - p * m.columns);
        for (i64 c = 0; c < count; c++) x[p * m.columns + c] = word[c];
    }
}

template <class Command>
static bool residual_fits(const Machine& m, const Command& v, i64 base, i64 groups) {
    return base + (v.rows - 1) * v.res_stride + groups <= m.residual_words;
}

static void write_residual(const Machine& m, i64 word, i64 width, const i64* h) {
    std::int16_t* out = m.residual + word * m.lanes;
    for (i64 j = 0; j < width; j++) out[j] = std::int16_t(h[j]);
}

// Parameters of `width` lanes; `same`: all groups have those of the first.
struct Parameters {
    Row mul, offset, shift;

    bool load(const Machine& m, const std::uint8_t* memory, i64 address, i64 groups, bool same) {
        if (address + (same ? 1 : groups) > m.param_words) return false;
        const i64 width = groups * m.lanes, period = same ? m.lanes : width;
        mul.resize(width), offset.resize(width), shift.resize(width);
        for (i64 j = 0; j < width; j++) {
            i64 word;
            std::memcpy(&word, memory + (address * m.lanes + j % period) * 8, 8);
            offset[j] = (word << (64 - OFFSET_BITS)) >> (64 - OFFSET_BITS);
            mul[j] = (word << (64 - OFFSET_BITS - MUL_BITS)) >> (64 - MUL_BITS);
            shift[j] = (word >> (OFFSET_BITS + MUL_BITS)) & ((1 << SHIFT_BITS) - 1);
        }
        return true;
    }
};

CLONES static void apply(i64* x, i64 width, const Parameters& p) {
    const i64 *mul = p.mul.data(), *offset = p.offset.data(), *shift = p.shift.data();
    for (i64 j = 0; j < width; j++) x[j] = (x[j] * mul[j] + offset[j]) >> shift[j];
}

CLONES static void apply_row(i64* x, i64 width, Affine p) {
    for (i64 j = 0; j < width; j++) x[j] = saturate((x[j] * p.mul + p.offset) >> p.shift, MID_BITS);
}

CLONES static void saturate_all(i64* x, i64 width, int bits) {
    for (i64 j = 0; j < width; j++) x[j] = saturate(x[j], bits);
}

// Destination words of a result of `width` bytes a row.
struct Destination {
    std::uint8_t* memory;
    i64 pitch, bytes, panels, words, address, stride;

    template <class Command>
    Destination(const Machine& m, const Command& v, i64 width)
        : memory(v.dst_memory == MEMORY_ACTIVATION ? m.activation : (std::uint8_t*)m.weight),
          pitch(v.dst_memory == MEMORY_ACTIVATION ? m.rows : m.weight_bytes),
          bytes(v.dst_by_column ? m.columns : m.rows), panels((width + bytes - 1) / bytes),
          words(1 + v.wide), address(v.dst_address), stride(v.dst_stride) {}

    template <class Command> bool fits(const Machine& m, const Command& v) const {
        const i64 size = v.dst_memory == MEMORY_ACTIVATION ? m.activation_words : m.weight_words;
        return !v.dst_memory || address + (panels - 1) * stride + words * v.rows <= size;
    }

    // Low bytes of a row to its words, of a wide one those of `second` to the words behind them.
    void write(i64 i, i64 width, const i64* y, const i64* second = nullptr) const {
        for (i64 p = 0; p < panels; p++) {
            std::uint8_t* word = memory + (address + p * stride + words * i) * pitch;
            const i64 count = std::min(bytes, width - p * bytes);
            for (i64 j = 0; j < count; j++) word[j] = std::uint8_t(y[p * bytes + j]);
            if (second)
                for (i64 j = 0; j < count; j++) word[pitch + j] = std::uint8_t(second[p * bytes + j]);
        }
    }

    // Saturated to a byte, or, wide, in two.
    void write_saturated(i64 i, i64 width, i64* y) const {
        if (words == 1) {
            saturate_all(y, width, 8);
            return write(i, width, y);
        }
        static thread_local Row high;
        high.resize(width);
        for (i64 j = 0; j < width; j++) {
            y[j] = std::min<i64>(std::max<i64>(y[j], -(1 << 15)), (1 << 15) - 129);
            high[j] = (y[j] + 128) >> 8;
        }
        write(i, width, high.data(), y);
    }
};

// --- commands ---------------------------------------------------------------------------------

static bool overlaps_itself(i64 rows, i64 groups, i64 stride, i64 from, i64 to) {
    const i64 distance = std::abs(to - from);
    if (!distance) return rows > 1 && stride < groups;
    const i64 apart = stride ? std::min(distance / stride, rows - 1) : 0;
    for (const i64 n : {apart, std::min(apart + 1, rows - 1)})
        if (std::abs(distance - n * stride) < groups) return true;
    return false;
}

static bool vector(const Machine& m, const Vector& v) {
    const i64 width = v.groups * m.lanes, results = v.gated ? v.groups / 2 : v.groups;
    const bool reads = v.from_residual || v.add_residual || v.rotate;
    const Destination to(m, v, results * m.lanes);
    static thread_local Parameters first, second;
    static thread_local Row h, r, y;
    if ((v.from_residual || v.add_residual) && v.write_residual &&
        overlaps_itself(v.rows, v.groups, v.res_stride, v.res_address, v.res_dst_address))
        return false;
    if ((v.statistics && !slots_fit(m, v)) ||
        (reads && !residual_fits(m, v, v.res_address, v.groups)) ||
        (v.write_residual && !residual_fits(m, v, v.res_dst_address, v.groups)) ||
        (!v.from_residual && !accumulator_fits(m, v)) || !to.fits(m, v) ||
        !first.load(m, m.param0, v.param0, v.groups, v.same_param0))
        return false;
    const bool two = (v.dst_memory && v.two_stage) || v.gated || v.rotate;
    if (two && !second.load(m, m.param1, v.param1, results, v.same_param1)) return false;
    if (v.statistics && !v.statistics_first && !all_written(m.statistics_written, v)) return false;
    if (v.statistics) set_written(m.statistics_written, v);

    h.resize(width), r.resize(width), y.resize(width);
    for (i64 i = 0; i < v.rows; i++) {
        if (reads) {
            const std::int16_t* word = m.residual + (v.res_address + i * v.res_stride) * m.lanes;
            for (i64 j = 0; j < width; j++) r[j] = word[j];
        }
        if (v.from_residual)
            std::copy(r.begin(), r.end(), h.begin());
        else
            read_accumulator(m, v, i, width, h.data());
        apply(h.data(), width, first);
        saturate_all(h.data(), width, MID_BITS);
        if (v.gated) {
            const i64 lanes = m.lanes;
            for (i64 g = 0; g < v.groups; g += 2)
                activate(h.data() + g * lanes, lanes, int(v.function));
            for (i64 j = 0; j < results * lanes; j++) {
                const i64 gate = j / lanes * 2 * lanes + j % lanes;
                const i64 x = saturate(h[gate + lanes], 16);
                y[j] = (h[gate] * x + second.offset[j]) >> second.shift[j];
            }
            to.write_saturated(i, results * lanes, y.data());
            continue;
        }
        activate(h.data(), width, int(v.function));
        if (v.rotate) {
            saturate_all(h.data(), width, 16);
            for (i64 j = 0; j < width; j += 2) {
                const i64 a = h[j] * r[j] - h[j + 1] * r[j + 1];
                const i64 b = h[j + 1] * r[j] + h[j] * r[j + 1];
                y[j] = (a + second.offset[j]) >> second.shift[j];
                y[j + 1] = (b + second.offset[j + 1]) >> second.shift[j + 1];
            }
            to.write_saturated(i, width, y.data());
            continue;
        }
        if (v.add_residual)
            for (i64 j = 0; j < width; j++)
                h[j] = saturate(saturate(h[j], 16) + round_shift(r[j], v.res_shift), 16);
        std::copy(h.begin(), h.end(), y.begin());
        saturate_all(h.data(), width, 16);
        if (v.statistics) {
            i64 total = v.statistics_first ? 0 : m.sum[v.slot + i];
            i64 squares = v.statistics_first ? 0 : m.squares[v.slot + i];
            for (i64 j = 0; j < width; j++) total += h[j], squares += h[j] * h[j];
            m.sum[v.slot + i] = i32(total);
            m.squares[v.slot + i] = squares & ((i64(1) << SQUARES_BITS) - 1);
        }
        if (v.dst_memory) {
            if (v.two_stage) apply(y.data(), width, second);
            v.wrap ? to.write(i, width, y.data()) : to.write_saturated(i, width, y.data());
        }
        if (v.write_residual)
            write_residual(m, v.res_dst_address + i * v.res_stride, width, h.data());
    }
    return true;
}

static bool norm(const Machine& m, const Norm& v) {
    const i64 width = v.groups * m.lanes;
    const Destination to(m, v, width);
    static thread_local Parameters gain, second;
    static thread_local Row z, y;
    if (v.write_residual &&
        overlaps_itself(v.rows, v.groups, v.res_stride, v.res_address, v.res_dst_address))
        return false;
    if (!slots_fit(m, v) || !residual_fits(m, v, v.res_address, v.groups) ||
        (v.write_residual && !residual_fits(m, v, v.res_dst_address, v.groups)) || !to.fits(m, v) ||
        (v.dst_memory && !second.load(m, m.param1, v.param1, v.groups, v.same_param1)) ||
        (v.write_residual && !gain.load(m, m.param0, v.param0, v.groups, false)) ||
        !all_written(m.statistics_written, v))
        return false;
    z.resize(width), y.resize(width);
    for (i64 i = 0; i < v.rows; i++) {
        const i64 total = v.rms ? 0 : m.sum[v.slot + i];
        const std::int16_t* word = m.residual + (v.res_address + i * v.res_stride) * m.lanes;
        for (i64 j = 0; j < width; j++) z[j] = word[j];
        apply_row(z.data(), width, norm_row(total, m.squares[v.slot + i], v.features, v.epsilon));
        if (v.dst_memory) {
            std::copy(z.begin(), z.end(), y.begin());
            apply(y.data(), width, second);
            to.write_saturated(i, width, y.data());
        }
        if (v.write_residual) {
            apply(z.data(), width, gain);
            saturate_all(z.data(), width, 16);
            write_residual(m, v.res_dst_address + i * v.res_stride, width, z.data());
        }
    }
    return true;
}

static bool scale(const Machine& m, const Scale& v) {
    const i64 width = v.groups * m.lanes;
    const Destination to(m, v, width);
    static thread_local Parameters second;
    static thread_local Row h;
    if (!slots_fit(m, v) || !accumulator_fits(m, v) || !to.fits(m, v) ||
        !second.load(m, m.param1, v.param1, v.groups, v.same_param1) ||
        !all_written(m.softmax_written, v))
        return false;
    h.resize(width);
    for (i64 i = 0; i < v.rows; i++) {
        read_accumulator(m, v, i, width, h.data());
        apply_row(h.data(), width, reciprocal_row(m.total[v.slot + i]));
        apply(h.data(), width, second);
        if (v.dst_memory) to.write_saturated(i, width, h.data());
    }
    return true;
}

// Weights of a row in place of its scores; returns their sum in units of 2^-25.
CLONES static i64 softmax_row(i64* s, i64 width, i64 limit, i64 octave, i64 score_shift) {
    i64 sum = 0;
    for (i64 j = 0; j < width; j++) {
        const i64 distance = octave * (1 << SCORE_FRACTION_BITS) - round_shift(s[j], score_shift);
        const bool valid = j < limit && s[j] != MASKED_SCORE && distance >= 0;
        const i64 far = valid ? distance : 0;
        const i64 n = std::min<i64>(far >> SCORE_FRACTION_BITS, MAX_SHIFT);
        const i64 value = exp2_fraction(far & ((1 << SCORE_FRACTION_BITS) - 1));
        sum += valid ? round_shift(value << FINE_EXTRA_BITS, n) : 0;
        s[j] = valid ? round_shift(value, n + 7) : 0;
    }
    return sum;
}

static bool softmax(const Machine& m, const Softmax& v) {
    const i64 width = v.groups * m.lanes;
    const Destination to(m, v, width);
    static thread_local Row s;
    if (!slots_fit(m, v) || !accumulator_fits(m, v) || !to.fits(m, v) ||
        !all_written(m.row_max_written, v) || (!v.first && !all_written(m.softmax_written, v)))
        return false;
    set_written(m.softmax_written, v);
    set_written(m.octaves_written, v);
    s.resize(width);
    for (i64 i = 0; i < v.rows; i++) {
        const i64 slot = v.slot + i, top = m.row_max[slot];
        const i64 old = v.first ? MIN_OCTAVE : m.octave[slot];
        const i64 before = v.first ? MIN_OCTAVE : m.largest[slot];
        const i64 block = -(-round_shift(top, v.score_shift) >> SCORE_FRACTION_BITS);
        const bool masked = top == MASKED_SCORE;
        const i64 octave = masked ? old : std::max(block, v.first ? block : before - v.drop);
        const i64 shift = std::min<i64>(octave - old, MAX_SHIFT);
        m.octave[slot] = octave;
        m.largest[slot] = masked ? before : std::max(block, before);
        m.shift[slot] = shift;
        const i64 limit = v.limit + (v.causal ? (v.period ? i % v.period : i) : 0);
        read_accumulator(m, v, i, width, s.data());
        const i64 sum = softmax_row(s.data(), width, limit, octave, v.score_shift);
        const i64 kept = v.first ? 0 : scale_by_power(m.total[slot], shift);
        m.total[slot] = (kept + sum) & ((i64(1) << SUM_BITS) - 1);
        if (v.dst_memory) to.write(i, width, s.data());
    }
    return true;
}

static bool select(const Machine& m, const Select& v, i64& found) {
    const i64 width = v.groups * m.lanes, columns = std::min(width, std::max<i64>(v.limit, 0));
    const i64 least = std::max<i64>(m.lanes, 8);
    const i64 halves = (4 * SELECTED + 6 + least - 1) / least * least;
    static thread_local Row s;
    // Rows that share a place are left to the loop nest's other implementation.
    if (v.rows > SELECTED || v.slot + v.rows > 2 * SELECTED || !accumulator_fits(m, v)) return false;
    for (i64 i = 0; i < v.rows; i++)
        if (!v.first && !m.selection_written[(v.slot + i) % SELECTED]) return false;
    if (v.write_residual && (!all_written(m.softmax_written, v) ||
                             !residual_fits(m, v, v.res_address, halves / m.lanes)))
        return false;
    s.resize(std::max(width, halves));
    for (i64 i = 0; i < v.rows; i++) {
        const i64 number = (v.slot + i) % SELECTED;
        i64(*best)[2] = (i64(*)[2])(m.selection + number * SELECTED * 2);
        m.selection_written[number] = 1;
        if (v.first)
            for (int place = 0; place < SELECTED; place++)
                best[place][0] = MASKED_SCORE, best[place][1] = (1 << REGISTER_BITS) - 1;
        read_accumulator(m, v, i, width, s.data());
        for (i64 j = 0; j < columns; j++) {
            const i64 value = round_shift(s[j], v.score_shift);
            if (value <= best[SELECTED - 1][0]) continue;
            int place = SELECTED - 1;
            for (; place && value > best[place - 1][0]; place--)
                best[place][0] = best[place - 1][0], best[place][1] = best[place - 1][1];
            best[place][0] = value, best[place][1] = (v.base + j) & ((1 << REGISTER_BITS) - 1);
        }
        if (v.write_residual) {
            const i64 slot = v.slot + i, total = m.total[slot], octave = m.octave[slot];
            std::fill(s.begin(), s.end(), 0);
            for (int part = 0; part < 2 * SELECTED; part++)
                s[2 * part] = best[part / 2][part % 2], s[2 * part + 1] = s[2 * part] >> 16;
            const i64 state[] = {octave, octave >> 16, total, total >> 16, total >> 32, 0};
            std::copy(state, state + 6, s.begin() + 4 * SELECTED);
            write_residual(m, v.res_address + i * v.res_stride, halves, s.data());
        }
        found = best[0][1];
    }
    return true;
}

static bool keep(const Machine& m, const Keep& v, bool looks, bool& stays) {
    if (!slots_fit(m, v) || (looks && !all_written(m.row_max_written, v)) ||
        (!v.first && !all_written(m.octaves_written, v)))
        return false;
    set_written(m.octaves_written, v);
    std::memset(m.softmax_written + v.slot, 0, std::size_t(v.rows));
    stays = false;
    for (i64 slot = v.slot; slot < v.slot + v.rows; slot++) {
        const i64 top = looks ? m.row_max[slot] : MASKED_SCORE;
        const i64 old = v.first ? MIN_OCTAVE : m.octave[slot];
        const i64 largest = v.first ? MIN_OCTAVE : m.largest[slot];
        const i64 block = -(-round_shift(top, v.score_shift) >> SCORE_FRACTION_BITS);
        const bool masked = top == MASKED_SCORE;
        stays |= !masked && (v.first || block >= largest - v.octaves);
        m.octave[slot] = masked ? old : std::max(block, largest);
        m.largest[slot] = masked ? largest : std::max(block, largest);
        m.shift[slot] = std::min<i64>(m.octave[slot] - old, MAX_SHIFT);
    }
    return true;
}
