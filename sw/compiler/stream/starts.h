// `find_starts` of starts.py, which says what is meant; names are the same.

#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "layout.h"

class Race {
  public:
    std::array<std::vector<double>, UNITS> started, done;

    Race(std::int64_t commands, const std::int8_t* unit, const Wait* waits, const std::int32_t* behind,
         std::int64_t all_behind, const std::int64_t* work, const double* not_before,
         std::int64_t all_not_before, double latency)
        : waits(waits), behind(behind), behind_end(behind + 3 * all_behind), work(work),
          not_before(not_before), all_not_before(all_not_before), latency(latency) {
        for (std::int64_t n = 0; n < commands; n++) numbers[unit[n]].push_back(n);
        for (auto& times : done) times.push_back(0);
        free.fill(START + latency);
        free[UNIT_NONE] = 0;
    }

    // Numbers of the commands as they start, at most all of them; returns how many.
    std::int64_t run(std::int64_t* order) {
        std::array<bool, UNITS> known{};
        std::array<double, UNITS> begins{};
        double now = 0;
        for (std::int64_t count = 0;;) {
            int unit = -1;
            for (int u = 0; u < UNITS; u++) {
                if (transfers(u)) continue;
                if (!known[u]) known[u] = begin(u, begins[u]);
                if (known[u] && (unit < 0 || begins[u] < begins[unit])) unit = u;
            }
            if (!left.empty()) {
                auto less = [](const Left& a, const Left& b) { return a.cycles < b.cycles; };
                auto ending = std::min_element(left.begin(), left.end(), less);
                const double end = now + std::max(ending->cycles, 0.0) * double(left.size());
                if (unit < 0 || end <= begins[unit]) {
                    now = advance(now, end);
                    free[ending->unit] = end + COMMAND_OVERHEAD;
                    done[ending->unit].push_back(end + latency);
                    left.erase(ending);
                    continue;
                }
            }
            if (unit < 0) return count;
            const double first = begins[unit];
            const std::int64_t number = numbers[unit][started[unit].size()];
            started[unit].push_back(first);
            known[unit] = false;
            if (unit == UNIT_MATRIX || unit == UNIT_VECTOR) {
                free[unit] = first + double(work[number]);
                done[unit].push_back(free[unit] + (unit == UNIT_MATRIX ? MATRIX_LATENCY : VECTOR_LATENCY));
            } else if (unit != UNIT_NONE) {
                now = advance(now, first);
                left.push_back({unit, double(work[number])});
            }
            order[count++] = number;
        }
    }

    void start_times(double* start) const {
        for (int u = 0; u < UNITS; u++)
            for (std::size_t i = 0; i < started[u].size(); i++) start[numbers[u][i]] = started[u][i];
    }

  private:
    struct Left {
        int unit;
        double cycles;
    };

    const Wait* waits;
    const std::int32_t *behind, *behind_end;
    const std::int64_t* work;
    const double* not_before;
    std::int64_t all_not_before;
    double latency;
    std::array<std::vector<std::int64_t>, UNITS> numbers;
    std::array<double, UNITS> free{};
    std::vector<Left> left;

    bool transfers(int unit) const {
        return std::any_of(left.begin(), left.end(), [&](const Left& l) { return l.unit == unit; });
    }

    bool begin(int unit, double& time) const {
        const std::size_t index = started[unit].size();
        if (index == numbers[unit].size()) return false;
        const std::int64_t number = numbers[unit][index];
        time = free[unit];
        for (const Wait* wait = waits + WAIT_SLOTS * number; wait < waits + WAIT_SLOTS * (number + 1); wait++) {
            if (wait->unit == UNIT_NONE) continue;
            if (std::size_t(wait->count) >= done[wait->unit].size()) return false;
            time = std::max(time, done[wait->unit][wait->count]);
        }
        if (!behind_another(number, time)) return false;
        if (unit == UNIT_LOAD_ACTIVATIONS && std::int64_t(index) < all_not_before)
            time = std::max(time, not_before[index]);
        return true;
    }

    // Whether the commands that stand before this one have started; no earlier than they.
    bool behind_another(std::int64_t number, double& time) const {
        auto first = [&](std::int64_t low, std::int64_t high) {  // row of the first command >= number
            while (low < high) {
                const std::int64_t middle = (low + high) / 2;
                (behind[3 * middle] < number ? low : high) = behind[3 * middle] < number ? middle + 1 : middle;
            }
            return low;
        };
        for (const std::int32_t* row = behind + 3 * first(0, (behind_end - behind) / 3);
             row < behind_end && row[0] == number; row += 3) {
            if (std::size_t(row[2]) > started[row[1]].size()) return false;
            time = std::max(time, started[row[1]][row[2] - 1]);
        }
        return true;
    }

    double advance(double now, double time) {
        if (time <= now) return now;
        const double share = (time - now) / double(std::max<std::size_t>(left.size(), 1));
        for (Left& l : left) l.cycles -= share;
        return time;
    }
};
