// What Python calls: see compiled.py.

#include "starts.h"
#include "waits.h"

extern "C" {

void* weft_waits_find(std::int64_t commands, const std::int8_t* unit, const std::uint8_t* certain,
                      const std::int32_t* answer, const Run* runs, const std::int64_t* begin,
                      const std::int64_t* words) {
    auto* search = new Search(words);
    for (std::int64_t n = 0; n < commands; n++) {
        if (answer[n] >= 0) search->passed(unit[n], answer[n]);
        search->command(n, unit[n], certain[n], runs + begin[n], runs + begin[n + 1]);
    }
    return search;
}

void weft_waits_sizes(const Search* search, std::int64_t* sizes) {
    sizes[0] = std::int64_t(search->before.size());
    sizes[1] = std::int64_t(search->waits.size());
    sizes[2] = std::int64_t(search->first_use.size());
}

// Copy the results to arrays of these sizes, and forget them.
void weft_waits_take(Search* search, std::int64_t* before, std::int32_t* waits, std::int32_t* first_use) {
    std::copy(search->before.begin(), search->before.end(), before);
    std::copy_n(reinterpret_cast<const std::int32_t*>(search->waits.data()),
                search->waits.size() * WAIT_SLOTS * 2, waits);
    std::copy_n(reinterpret_cast<const std::int32_t*>(search->first_use.data()),
                search->first_use.size() * 2, first_use);
    delete search;
}

// Numbers of the commands as they start, and when; returns how many do.
std::int64_t weft_starts_find(std::int64_t commands, const std::int8_t* unit, const Wait* waits,
                              const std::int32_t* behind, std::int64_t all_behind,
                              const std::int64_t* work, const double* not_before,
                              std::int64_t all_not_before, std::int64_t latency, std::int64_t* order,
                              double* start, double* end) {
    Race race(commands, unit, waits, behind, all_behind, work, not_before, all_not_before,
              double(latency));
    const std::int64_t count = race.run(order);
    race.start_times(start);
    *end = 0;
    for (const auto& times : race.done) *end = std::max(*end, times.back());
    return count;
}
}
