// The golden machine compiled: executes commands as sw/golden/machine.py does, to the same bytes.
//
// It stops in front of a command that it does not take: one that is illegal, fails, is undefined,
// or is too rare to be here. Nothing of that command has happened then; the Python machine, which
// is the specification, executes it, raises what is to be raised, and this one goes on behind it.
#include <cstring>

#include "numerics.h"
// Row state of a command's rows, written by the program.
template <class Command>
static bool all_written(const std::uint8_t* written, const Command& v) {
    for (i64 i = 0; i < v.rows; i++)
        if (!written[v.slot + i]) return false;
    return true;
}
template <class Command>
static void set_written(std::uint8_t* written, const Command& v) {
    std::memset(written + v.slot, 1, std::size_t(v.rows));
}
#include "matrix.h"
#include "vector.h"

// --- transfers --------------------------------------------------------------------------------

struct Memory {
    std::uint8_t* data;
    i64 size, used, pitch;
};

static Memory memory_of(const Machine& m, i64 memory) {
    switch (memory) {
        case MEMORY_ACTIVATION: return {m.activation, m.activation_words, m.rows, m.activation_pitch};
        case MEMORY_WEIGHT:
            return {(std::uint8_t*)m.weight, m.weight_words, m.weight_bytes, m.weight_pitch};
        case MEMORY_RESIDUAL:
            return {(std::uint8_t*)m.residual, m.residual_words, 2 * m.lanes, 2 * m.lanes};
        case MEMORY_MASK: return {m.mask, m.mask_words, m.columns, m.mask_pitch};
        default:
            return {memory == MEMORY_PARAM0 ? m.param0 : m.param1, m.param_words, 8 * m.lanes,
                    8 * m.lanes};
    }
}

template <class Transfer>
static bool transfer(const Machine& m, const Transfer& v, i64 moved, bool store) {
    const Memory memory = memory_of(m, v.memory);
    const i64 offset = v.offset + moved * memory.pitch, pitch = memory.pitch;
    const i64 last = offset + (v.runs - 1) * v.dram_stride + v.words * pitch;
    if (!m.dram[v.region] || last > m.dram_size[v.region] || (store && !m.dram_writable[v.region]) ||
        v.address + (v.runs - 1) * v.run_stride + (v.words - 1) * v.word_stride >= memory.size)
        return false;
    for (i64 r = 0; r < v.runs; r++) {
        std::uint8_t* dram = m.dram[v.region] + offset + r * v.dram_stride;
        const i64 first = v.address + r * v.run_stride;
        if (memory.used == pitch && v.word_stride == 1 && v.memory != MEMORY_MASK) {
            std::uint8_t* words = memory.data + first * pitch;
            std::memcpy(store ? dram : words, store ? words : dram, std::size_t(v.words * pitch));
            continue;
        }
        for (i64 w = 0; w < v.words; w++, dram += pitch) {
            std::uint8_t* word = memory.data + (first + w * v.word_stride) * memory.used;
            if (store) {
                std::memcpy(dram, word, std::size_t(memory.used));
                std::memset(dram + memory.used, 0, std::size_t(pitch - memory.used));
            } else if (v.memory == MEMORY_MASK) {
                for (i64 b = 0; b < memory.used; b++) word[b] = dram[b] != 0;
            } else {
                std::memcpy(word, dram, std::size_t(memory.used));
            }
        }
    }
    return true;
}

// --- what is legal ----------------------------------------------------------------------------

static bool waits_are_known(std::uint64_t header) {
    for (int slot = 0; slot < WAIT_SLOTS; slot++)
        if ((header >> (8 + WAIT_BITS * slot) & 7) > LAST_UNIT) return false;
    return true;
}

template <class Transfer> static bool transfer_legal(const Machine& m, const Transfer& v, i64 last) {
    return v.memory >= MEMORY_ACTIVATION && v.memory <= last && v.offset % m.bus_bytes == 0 &&
           v.dram_stride % m.bus_bytes == 0;
}

static bool gemm_legal(const Machine& m, const Gemm& v, int opcode) {
    const bool sparse = opcode == OPCODE_SPARSE_GEMM, scaled = opcode == OPCODE_SCALED_GEMM;
    if (scaled && !(m.scales && v.w_group)) return false;
    if (opcode == OPCODE_LOW_GEMM && !(m.prune && v.wide && !v.w_int4)) return false;
    return !(v.w_by_column && (sparse || v.w_int4)) && (v.w_int4 || !v.w_group) &&
           !(v.wide && v.a_unsigned) && (!sparse || m.sparse) && (!v.w_int4 || m.int4) &&
           (m.decoder || !(v.rescale && !v.accumulate)) && (!v.trim || (m.trims && opcode == OPCODE_GEMM));
}

template <class Command> static bool destination_legal(const Machine& m, const Command& v) {
    return v.dst_memory <= MEMORY_WEIGHT &&
           !(v.dst_memory == MEMORY_ACTIVATION && m.columns > m.rows && v.dst_by_column);
}

static bool vector_legal(const Machine& m, const Vector& v) {
    if (!destination_legal(m, v) || v.function > LAST_FUNCTION || (v.wide && v.wrap)) return false;
    const bool decoders = v.gated || v.rotate || v.same_param0 || v.same_param1;
    if (!m.decoder && (decoders || v.function == FUNCTION_SILU)) return false;
    if (!v.gated && !v.rotate) return true;
    return !(v.gated && v.rotate) && !v.add_residual && !v.from_residual && !v.write_residual &&
           !v.statistics && !v.wrap && v.two_stage && v.dst_memory && !(v.gated && v.groups % 2);
}

// --- one command ------------------------------------------------------------------------------

enum class Outcome { EXECUTED, DROPPED, HALTED, REFUSED };

struct Registers {
    i64* value;
    i64* selected;  // see `GoldenMachine`

    // Used behind the BARRIER only, if a SELECT or KEEP writes them.
    bool usable(const Header& v, bool writes) const {
        return !(v.predicate && selected[v.predicate]) &&
               (writes || !(v.register_ && selected[v.register_]));
    }
    void write(i64 number, i64 x) const {
        if (number) value[number] = x, selected[number] = selected[0];
    }
    // What a BARRIER waits for is written.
    void settle(std::uint64_t header, bool some_only) const {
        i64 done = selected[0], counted = 0;
        bool waits = false;
        for (int slot = 0; slot < WAIT_SLOTS; slot++) {
            const std::uint64_t wait = header >> (8 + WAIT_BITS * slot);
            const i64 distance = wait >> 3 & ((1 << DISTANCE_BITS) - 1);
            waits |= (wait & 7) != UNIT_NONE;
            if ((wait & 7) == UNIT_VECTOR) counted = std::max(counted, selected[0] - distance);
        }
        if (some_only && waits) done = counted;
        for (int n = 1; n < REGISTERS; n++)
            if (selected[n] <= done) selected[n] = 0;
    }
    bool drops(const Header& v, i64 limit) const {
        return v.predicate && limit + value[v.predicate] <= 0;
    }
};

template <class Command> static i64 last_limit(const Command& v) {
    return v.limit + (v.causal ? (v.period ? v.period : v.rows) - 1 : 0);
}

template <class Command> static void move_limit(Command& v, const Registers& registers) {
    if (v.register_) v.limit = std::min<i64>(v.limit + registers.value[v.register_], NO_LIMIT);
}

static void trim(const Machine& m, Gemm& v, const Registers& registers) {
    if (!v.trim) return;
    i64& tiles = v.w_by_column ? v.n_tiles : v.k_tiles;
    const i64 size = v.w_by_column ? m.columns : m.rows;
    const i64 left = last_limit(v) + registers.value[v.predicate];
    tiles = std::min(tiles, left > 0 ? (left + size - 1) / size : 1);
}

static Outcome done(bool taken) { return taken ? Outcome::EXECUTED : Outcome::REFUSED; }

static Outcome done_by_vector_unit(bool taken, const Registers& registers) {
    registers.selected[0] += taken;
    return done(taken);
}

static Outcome step(const Machine& m, const Registers& registers, const std::uint64_t* word) {
    if (!waits_are_known(word[0])) return Outcome::REFUSED;
    const int opcode = int(word[0] & 0xff);
    const bool writes = opcode == OPCODE_SELECT || opcode == OPCODE_KEEP;
    // Decoded, legal, its registers usable: then it is dropped or goes on.
#define DECODE(Type, legal, limit)                                                             \
    Type v;                                                                                    \
    if (!decode(word, v) || !(legal) || !registers.usable(v, writes) ||                        \
        (!m.decoder && v.of_decoder()))                                                        \
        return Outcome::REFUSED;                                                               \
    if (registers.drops(v, limit) && opcode != OPCODE_KEEP) return Outcome::DROPPED;
    switch (opcode) {
        case OPCODE_LOAD: {
            DECODE(Load, transfer_legal(m, v, MEMORY_MASK), v.limit)
            return done(transfer(m, v, registers.value[v.register_], false));
        }
        case OPCODE_STORE: {
            DECODE(Store, transfer_legal(m, v, MEMORY_RESIDUAL), v.limit)
            return done(transfer(m, v, registers.value[v.register_], true));
        }
        case OPCODE_SPARSE_GEMM:
        case OPCODE_SCALED_GEMM:
        case OPCODE_LOW_GEMM:
        case OPCODE_GEMM: {
            DECODE(Gemm, gemm_legal(m, v, opcode), last_limit(v))
            trim(m, v, registers);
            move_limit(v, registers);
            return done(gemm(m, v, opcode));
        }
        case OPCODE_VECTOR: {
            DECODE(Vector, vector_legal(m, v), 0)
            return done_by_vector_unit(vector(m, v), registers);
        }
        case OPCODE_NORM: {
            DECODE(Norm, destination_legal(m, v) && (m.decoder || !(v.rms || v.same_param1)), 0)
            return done_by_vector_unit(norm(m, v), registers);
        }
        case OPCODE_SCALE: {
            DECODE(Scale, destination_legal(m, v) && (m.decoder || !v.same_param1), 0)
            return done_by_vector_unit(scale(m, v), registers);
        }
        case OPCODE_SOFTMAX: {
            DECODE(Softmax, destination_legal(m, v), last_limit(v))
            move_limit(v, registers);
            return done_by_vector_unit(softmax(m, v), registers);
        }
        case OPCODE_SELECT: {
            DECODE(Select, m.decoder, v.limit)
            i64 best;
            if (!select(m, v, best)) return Outcome::REFUSED;
            registers.selected[0]++;
            registers.write(v.register_, best);
            return Outcome::EXECUTED;
        }
        case OPCODE_KEEP: {
            DECODE(Keep, m.prune, v.limit)
            bool stays;
            if (!keep(m, v, !registers.drops(v, v.limit), stays)) return Outcome::REFUSED;
            registers.selected[0]++;
            registers.write(v.register_, stays ? STAYS : 0);
            return Outcome::EXECUTED;
        }
        case OPCODE_ADD: {
            DECODE(Add, m.decoder && v.register_, 0)
            i64& value = registers.value[v.register_];
            value = (value + v.value) & ((1 << REGISTER_BITS) - 1);
            return Outcome::EXECUTED;
        }
        case OPCODE_BARRIER: {
            DECODE(Barrier, true, 0)
            registers.settle(word[0], m.prune);
            return Outcome::EXECUTED;
        }
        case OPCODE_HALT: {
            DECODE(Halt, true, 0)
            return Outcome::HALTED;
        }
        default: return Outcome::REFUSED;
    }
#undef DECODE
}

// Executes commands[first .. last); returns the index at which it stopped, and adds to `executed`
// those that were not dropped. `halted`: the one in front of that index was HALT.
extern "C" i64 weft_golden_run(const Machine* m, const std::uint8_t* commands, i64 first, i64 last,
                               i64* executed, i64* halted) {
    const Registers registers{m->registers, m->selected};
    *halted = 0;
    for (i64 index = first; index < last; index++) {
        std::uint64_t word[COMMAND_BYTES / 8];
        std::memcpy(word, commands + index * COMMAND_BYTES, sizeof word);
        const Outcome outcome = step(*m, registers, word);
        if (outcome == Outcome::REFUSED) return index;
        *executed += outcome != Outcome::DROPPED;
        if (outcome == Outcome::HALTED) {
            *halted = 1;
            return index + 1;
        }
    }
    return last;
}

extern "C" void weft_golden_plain(i64 on) { plain = on; }

extern "C" i64 weft_golden_machine_bytes() { return sizeof(Machine); }
