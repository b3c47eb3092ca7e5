// `find_waits` of waits.py, which says what is meant; names are the same.

#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cstdint>
#include <vector>

#include "layout.h"

using Clock = std::array<std::int32_t, UNITS>;

using Waits = std::vector<Wait>;

void raise(Clock& clock, const Clock& other) {
    for (int u = 0; u < UNITS; u++) clock[u] = std::max(clock[u], other[u]);
}

template <typename Work>
void each_row(const Run& run, Work work) {
    if (run.outer == 1 || run.stride <= run.inner) {
        work(run.base, std::int64_t(run.outer - 1) * run.stride + run.inner);
        return;
    }
    for (std::int64_t i = 0; i < run.outer; i++) work(run.base + i * run.stride, run.inner);
}

class History {
  public:
    explicit History(std::int64_t size) : size(size) {}

    void latest(const Run& run, Waits& needs, const Clock& known, int skip) const {
        for (int unit : touched) {
            if (unit == skip || newest[unit] <= known[unit]) continue;
            const std::int32_t* words = last[unit].data();
            std::int32_t count = 0;
            each_row(run, [&](std::int64_t first, std::int64_t size) {
                for (std::int64_t w = first; w < first + size; w++) count = std::max(count, words[w]);
            });
            auto of_unit = [&](const Wait& wait) { return wait.unit == unit; };
            auto need = std::find_if(needs.begin(), needs.end(), of_unit);
            if (need != needs.end()) need->count = std::max(need->count, count);
            else if (count > known[unit]) needs.push_back({unit, count});
        }
    }

    void touch(const Run& run, int unit, std::int32_t count) {
        if (last[unit].empty()) {
            last[unit].resize(size);
            touched.push_back(unit);
        }
        std::int32_t* words = last[unit].data();
        each_row(run, [&](std::int64_t first, std::int64_t size) {
            std::fill_n(words + first, size, count);
        });
        newest[unit] = count;
    }

  private:
    std::int64_t size;
    std::vector<int> touched;  // units, in the order of their first touch
    std::array<std::vector<std::int32_t>, UNITS> last;
    Clock newest{};
};

class Search {
  public:
    std::vector<std::int64_t> before;
    std::vector<std::array<Wait, WAIT_SLOTS>> waits;
    Waits first_use;

    explicit Search(const std::int64_t* words) {
        for (int space = 0; space < SPACES; space++) {
            written.emplace_back(words[space]);
            read.emplace_back(words[space]);
        }
        for (auto& unit : done) unit.push_back({});
    }

    void passed(int unit, std::int32_t answer) {
        const Clock& clock = done[UNIT_VECTOR][counts[answer]];
        raise(started[unit], clock);
        if (unit == UNIT_MATRIX) raise(weights_started, clock);
    }

    void command(std::int64_t number, int unit, bool certain, const Run* runs, const Run* end) {
        const Waits of_stream = needs(runs, end, 0, unit, started[unit]);
        std::int32_t loads = loads_of(of_stream);
        Waits found;
        Clock clock = started[unit];
        if (unit == UNIT_MATRIX) {
            const Waits of_weights = needs(runs, end, 1, unit, weights_started);
            loads = std::max(loads, loads_of(of_weights));
            Clock known = weights_started;
            Waits first = prune(number, of_weights, known, 1, UNIT_NONE);
            found = prune(number, of_stream, clock, WAIT_SLOTS - 1, UNIT_NONE);
            found.insert(found.begin(), first.empty() ? Wait{} : first[0]);
            if (certain) weights_started = known, started[unit] = clock;
            raise(clock, known);
        } else {
            found = prune(number, of_stream, clock, WAIT_SLOTS, unit);
            if (certain) started[unit] = clock;
        }
        append(unit, found, certain ? clock : Clock{});
        const std::int32_t count = std::int32_t(done[unit].size()) - 1;
        counts.push_back(count);
        while (std::int32_t(first_use.size()) < loads) first_use.push_back({unit, count});
        for (const Run* run = runs; run < end; run++)
            (run->write ? written : read)[run->space].touch(*run, unit, count);
    }

  private:
    std::vector<History> written, read;
    std::array<Clock, UNITS> started{};
    Clock weights_started{};
    std::vector<std::int32_t> counts;
    std::array<std::vector<Clock>, UNITS> done;

    static std::int32_t loads_of(const Waits& needs) {
        for (const Wait& need : needs)
            if (need.unit == UNIT_LOAD_ACTIVATIONS) return need.count;
        return 0;
    }

    void append(int unit, const Waits& found, const Clock& clock) {
        assert(found.size() <= WAIT_SLOTS);
        waits.emplace_back();
        std::copy(found.begin(), found.end(), waits.back().begin());
        if (unit == UNIT_NONE) return;
        Clock next = done[unit].back();
        raise(next, clock);
        next[unit] = std::int32_t(done[unit].size());
        done[unit].push_back(next);
    }

    Waits needs(const Run* runs, const Run* end, int weights, int unit, const Clock& known) const {
        Waits result;
        for (const Run* run = runs; run < end; run++) {
            if (run->weights != weights) continue;
            const int skip = unit == UNIT_VECTOR && !run->write ? UNIT_NONE : unit;
            written[run->space].latest(*run, result, known, skip);
            if (run->write) read[run->space].latest(*run, result, known, unit);
        }
        return result;
    }

    // Waits for `needs`; `clock` is what is known before, and then what is known behind them.
    Waits prune(std::int64_t number, const Waits& needs, Clock& clock, std::size_t slots, int unit) {
        Waits found;
        for (const Wait& need : needs) {
            auto implies = [&](const Wait& other) {
                return other.unit != need.unit && done[other.unit][other.count][need.unit] >= need.count;
            };
            if (std::none_of(needs.begin(), needs.end(), implies)) found.push_back(need);
        }
        if (found.size() > slots) {
            const Wait put_in = relay(number, Waits(found.begin() + (slots - 1), found.end()));
            found.resize(slots - 1);
            if (unit == UNIT_VECTOR) clock = started[unit];
            else found.push_back(put_in);
        }
        for (const Wait& wait : found) raise(clock, done[wait.unit][wait.count]);
        return found;
    }

    Wait relay(std::int64_t number, const Waits& found) {
        Clock& clock = started[UNIT_VECTOR];
        for (const Wait& wait : found) raise(clock, done[wait.unit][wait.count]);
        before.push_back(number);
        append(UNIT_VECTOR, found, clock);
        return {UNIT_VECTOR, std::int32_t(done[UNIT_VECTOR].size()) - 1};
    }
};
