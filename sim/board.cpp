// A Verilated board with a clock and a serial line to a file descriptor, behind a C interface.
//
// One step is one cycle of the system's clock; a memory's clock, if there is one, has `memory_cycles`
// in `cycles` of these. A byte takes 10 * clocks_per_bit cycles in each direction, as on a
// real line; between the two sides and the descriptor are queues, which a real line lacks.
//
// ports.h is generated for a design: violations_of(top), what its memory complained about, as
// the code of the first violation, 0 if there is none; memory_of(top), its words of 16 bits;
// memory_clock(top, level), which sets its clock.

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <deque>
#include <memory>

#include "Vweft.h"
#include "ports.h"
#include "verilated.h"

namespace {

constexpr size_t BLOCK = 4096;        // bytes that are read or written at once
constexpr uint64_t QUIET = 200'000;   // cycles without a bit on the line after which nothing waits
constexpr unsigned FRAME_BITS = 10;

class Board {
  public:
    VerilatedContext context;
    std::unique_ptr<Vweft> top;
    uint64_t cycle = 0;
    bool failed = false;  // the descriptor is of no use any more

    Board(unsigned clocks_per_bit, int descriptor, uint64_t memory_cycles, uint64_t cycles)
        : top(std::make_unique<Vweft>(&context)), clocks_(clocks_per_bit), file_(descriptor),
          half_(memory_cycles), memory_half_(cycles) {
        top->rst = 1, top->rx = 1;
        for (int i = 0; i < 4; ++i) step();
        top->rst = 0;
        cycle = quiet_ = 0;
    }
    ~Board() { top->final(); }

    // Up to `limit` cycles, fewer if nothing has happened on the line for long.
    uint64_t run(uint64_t limit) {
        const uint64_t begin = cycle;
        exchange();
        quiet_ = 0;
        while (cycle - begin < limit && quiet_ < QUIET && !failed) {
            send();
            step();
            receive();
            if (cycle % (FRAME_BITS * clocks_ * 4) == 0) exchange();
        }
        exchange();
        return cycle - begin;
    }

  private:
    const unsigned clocks_;
    const int file_;
    bool memory_level_ = false;
    const uint64_t half_, memory_half_;  // periods of the clocks, in a unit that divides both
    uint64_t left_ = 0, memory_left_ = 0;  // until they change
    std::deque<uint8_t> to_board_, to_host_;
    unsigned send_bits_ = 0, send_clock_ = 0, send_shift_ = 0;
    unsigned receive_bits_ = 0, receive_clock_ = 0, receive_shift_ = 0;
    uint64_t quiet_ = 0;

    // To the system's next rising edge. Edges at the same time are one evaluation.
    void step() {
        bool risen = false;
        while (!risen) {
            const uint64_t passed = std::min(left_, memory_left_);
            left_ -= passed, memory_left_ -= passed;
            if (!left_) {
                top->clk = !top->clk, risen = top->clk;
                left_ = half_;
            }
            if (!memory_left_) {
                memory_level_ = !memory_level_;
                memory_clock(*top, memory_level_);
                memory_left_ = memory_half_;
            }
            top->eval();
        }
        ++cycle, ++quiet_;
    }

    void send() {
        if (send_clock_) {
            --send_clock_;
            return;
        }
        if (!send_bits_ && !to_board_.empty()) {
            send_shift_ = 1u << (FRAME_BITS - 1) | to_board_.front() << 1;
            send_bits_ = FRAME_BITS;
            to_board_.pop_front();
        }
        if (send_bits_) {
            top->rx = send_shift_ & 1;
            send_shift_ >>= 1, --send_bits_, send_clock_ = clocks_ - 1, quiet_ = 0;
        }
    }

    void receive() {
        if (!receive_bits_) {
            if (top->tx) return;
            receive_bits_ = FRAME_BITS, receive_clock_ = clocks_ / 2;
        }
        quiet_ = 0;
        if (receive_clock_) {
            --receive_clock_;
            return;
        }
        receive_shift_ = receive_shift_ >> 1 | (top->tx ? 1u << (FRAME_BITS - 1) : 0);
        receive_clock_ = clocks_ - 1;
        if (!--receive_bits_) to_host_.push_back(receive_shift_ >> 1 & 0xFF);
    }

    void exchange() {
        uint8_t block[BLOCK];
        if (to_board_.size() < BLOCK) {
            ssize_t count = read(file_, block, BLOCK);
            if (count > 0) to_board_.insert(to_board_.end(), block, block + count);
            failed |= count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR);
        }
        while (!to_host_.empty()) {
            size_t size = to_host_.size() < BLOCK ? to_host_.size() : BLOCK;
            for (size_t i = 0; i < size; ++i) block[i] = to_host_[i];
            ssize_t count = write(file_, block, size);
            if (count <= 0) break;
            to_host_.erase(to_host_.begin(), to_host_.begin() + count);
        }
    }
};

}  // namespace

extern "C" {
Board* board_create(unsigned clocks_per_bit, int descriptor, uint64_t memory_cycles,
                    uint64_t cycles) {
    return new Board(clocks_per_bit, descriptor, memory_cycles, cycles);
}
void board_destroy(Board* board) { delete board; }
uint64_t board_run(Board* board, uint64_t limit) { return board->run(limit); }
uint64_t board_cycle(Board* board) { return board->cycle; }
int board_failed(Board* board) { return board->failed; }
void* board_memory(Board* board) { return memory_of(*board->top); }
unsigned board_violation(Board* board) { return violations_of(*board->top); }
}
