// The Verilated accelerator with a clock, a register master and a memory, behind a C interface.
//
// One step is one clock cycle: inputs are set from the state of this file, the rising edge that
// begins the cycle takes them into registers in front of the accelerator (sim/verilator.py), and
// what the outputs then settle to is what the next edge will see.
//
// Memory: one AXI4 slave over a buffer that the caller owns, at bus address 0. A memory cycle
// moves `width` bytes, writes before reads; a read beat arrives `latency` cycles after its burst
// was accepted at the earliest, a write response `latency` cycles after the last beat was stored.
// Reads and writes are each in order. Beyond the buffer, and in an injected range, SLVERR.
// A burst outside the windows that the owner has named, if any, is a violation.
// Stalls: each channel pauses at random, with a rate that changes every 64 cycles between never
// and 7/8, so that bursts of both kinds occur.
//
// ports.h is generated for a design: BUS_BYTES, interrupt_of(top), and trace_mask(top), its trace
// ports as bits.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "Vweft.h"
#include "ports.h"
#include "verilated.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

namespace {

constexpr unsigned BURST_BOUNDARY = 4096;
constexpr int OKAY = 0, SLVERR = 2;
constexpr uint64_t REGISTER_LIMIT = 4096;  // cycles within which a register access must answer
constexpr size_t WRITE_FIFO = 4;           // beats taken before their address or their turn

enum Channel { AR, R, AW, W, B, CHANNELS };

struct Burst {
    uint64_t address;
    unsigned beats;
};
struct Window {
    uint64_t low, high;
    bool writable;
};
struct ReadBeat {
    uint64_t due;
    uint8_t data[BUS_BYTES];
    uint8_t response;
    bool last;
};
struct WriteBeat {
    uint8_t data[BUS_BYTES];
    uint8_t strobe[(BUS_BYTES + 7) / 8];
    bool last;
};
struct Response {
    uint64_t due;
    uint8_t response;
};
struct Event {
    uint64_t cycle;
    uint64_t mask;
};
// An offer that was not taken must be repeated unchanged.
struct Offer {
    bool pending = false;
    uint8_t bytes[BUS_BYTES + 24] = {};
};

template <typename Port>
void put(Port& port, const void* data) {
    std::memcpy(&port, data, sizeof(port));
}

class Model {
  public:
    VerilatedContext context;
    std::unique_ptr<Vweft> top;
    uint64_t cycle = 0;

    Model(unsigned latency, unsigned width, unsigned outstanding, uint64_t seed)
        : top(nullptr), latency_(latency ? latency : 1), width_(width), outstanding_(outstanding),
          random_(seed) {
        context.traceEverOn(VM_TRACE);
        top = std::make_unique<Vweft>(&context);
        top->rst = 1;
        for (int i = 0; i < 4; ++i) step();
        top->rst = 0;
        cycle = 0;
    }

    ~Model() {
        close_vcd();
        top->final();
    }

    void set_memory(uint8_t* data, uint64_t size) { memory_ = data, memory_size_ = size; }
    void set_fault(uint64_t low, uint64_t high, bool reads, bool writes) {
        fault_low_ = low, fault_high_ = high, fault_reads_ = reads, fault_writes_ = writes;
    }
    void clear_windows() { windows_.clear(); }
    void add_window(uint64_t low, uint64_t high, bool writable) {
        windows_.push_back({low, high, writable});
    }
    void set_recording(bool on) { recording_ = on; }
    const std::vector<Event>& events() const { return events_; }
    void clear_events() { events_.clear(); }
    const char* violation() const { return violation_.c_str(); }

    // Run until the interrupt or for `limit` cycles; the number of cycles run.
    uint64_t run(uint64_t limit) {
        uint64_t begin = cycle;
        while (cycle - begin < limit && !interrupt()) step();
        return cycle - begin;
    }
    bool interrupt() const { return interrupt_of(*top); }

    // Register accesses: false if there was no answer or an error response.
    bool write_register(uint32_t address, uint32_t value) {
        top->s_axil_awaddr = address, top->s_axil_wdata = value, top->s_axil_wstrb = 15;
        top->s_axil_awvalid = top->s_axil_wvalid = top->s_axil_bready = 1;
        bool done = false;
        for (uint64_t n = 0; n < REGISTER_LIMIT && !done; ++n) {
            step();
            if (lite_.awready) top->s_axil_awvalid = 0;
            if (lite_.wready) top->s_axil_wvalid = 0;
            done = lite_.bvalid;
        }
        top->s_axil_awvalid = top->s_axil_wvalid = top->s_axil_bready = 0;
        return done && lite_.bresp == OKAY;
    }
    bool read_register(uint32_t address, uint32_t* value) {
        top->s_axil_araddr = address, top->s_axil_arvalid = top->s_axil_rready = 1;
        bool done = false;
        for (uint64_t n = 0; n < REGISTER_LIMIT && !done; ++n) {
            step();
            if (lite_.arready) top->s_axil_arvalid = 0;
            done = lite_.rvalid;
        }
        top->s_axil_arvalid = top->s_axil_rready = 0;
        *value = lite_.rdata;
        return done && lite_.rresp == OKAY;
    }

#if VM_TRACE
    bool open_vcd(const char* path) {
        close_vcd();
        vcd_ = std::make_unique<VerilatedVcdC>();
        top->trace(vcd_.get(), 99);
        vcd_->open(path);
        return vcd_->isOpen();
    }
    void close_vcd() {
        if (vcd_) vcd_->close();
        vcd_.reset();
    }
#else
    bool open_vcd(const char*) { return false; }
    void close_vcd() {}
#endif

  private:
    const unsigned latency_, width_, outstanding_;
    uint64_t random_;
    uint8_t stall_rate_[CHANNELS] = {};
    uint8_t* memory_ = nullptr;
    uint64_t memory_size_ = 0;
    uint64_t fault_low_ = 0, fault_high_ = 0;
    bool fault_reads_ = false, fault_writes_ = false;

    std::vector<Window> windows_;
    std::deque<Burst> reads_, writes_;
    std::deque<ReadBeat> read_beats_;
    std::deque<WriteBeat> write_beats_;
    std::deque<Response> responses_;
    unsigned read_bursts_ = 0, write_bursts_ = 0;  // accepted and not answered
    unsigned credits_ = 0;
    bool read_failed_ = false, write_failed_ = false;
    bool r_offered_ = false, b_offered_ = false;
    Offer ar_, aw_, w_;
    bool recording_ = false;
    std::vector<Event> events_;
    std::string violation_;
    struct {
        uint8_t awready, wready, bvalid, bresp, arready, rvalid, rresp;
        uint32_t rdata;
    } lite_ = {};
#if VM_TRACE
    std::unique_ptr<VerilatedVcdC> vcd_;
#endif

    uint64_t next_random() {  // xorshift64*
        random_ ^= random_ >> 12, random_ ^= random_ << 25, random_ ^= random_ >> 27;
        return random_ * 0x2545F4914F6CDD1Dull;
    }

    void violate(const char* text) {
        if (violation_.empty()) violation_ = "cycle " + std::to_string(cycle) + ": " + text;
    }

    void dump(uint64_t time) {
#if VM_TRACE
        if (vcd_) vcd_->dump(time);
#else
        (void)time;
#endif
    }

    void step() {
        drive();
        top->clk = 0;
        top->eval();
        dump(2 * cycle);
        top->clk = 1;
        top->eval();
        dump(2 * cycle + 1);
        check_offers();
        const bool r = top->m_axi_rvalid && top->m_axi_rready;
        const bool b = top->m_axi_bvalid && top->m_axi_bready;
        if (!top->rst) {
            if (top->m_axi_arvalid && top->m_axi_arready)
                accept(reads_, read_bursts_, false, top->m_axi_araddr, top->m_axi_arlen,
                       top->m_axi_arsize, top->m_axi_arburst);
            if (top->m_axi_awvalid && top->m_axi_awready)
                accept(writes_, write_bursts_, true, top->m_axi_awaddr, top->m_axi_awlen,
                       top->m_axi_awsize, top->m_axi_awburst);
            if (top->m_axi_wvalid && top->m_axi_wready) accept_data();
        }
        lite_ = {top->s_axil_awready, top->s_axil_wready, top->s_axil_bvalid, top->s_axil_bresp,
                 top->s_axil_arready, top->s_axil_rvalid, top->s_axil_rresp, top->s_axil_rdata};
        if (recording_) {
            if (uint64_t mask = trace_mask(*top)) events_.push_back({cycle, mask});
        }
        if (r) {
            read_bursts_ -= read_beats_.front().last;
            read_beats_.pop_front();
            r_offered_ = false;
        }
        if (b) responses_.pop_front(), --write_bursts_, b_offered_ = false;
        serve();
        ++cycle;
    }

    // Inputs of this cycle. An offer on R or B that was not taken is never withdrawn.
    void drive() {
        bool stalled[CHANNELS] = {};
        if (random_) {
            if (cycle % 64 == 0) {
                static const uint8_t rates[4] = {0, 1, 4, 7};
                uint64_t bits = next_random();
                for (int c = 0; c < CHANNELS; ++c) stall_rate_[c] = rates[bits >> (8 * c + 6) & 3];
            }
            uint64_t bits = next_random();
            for (int c = 0; c < CHANNELS; ++c)
                stalled[c] = (bits >> (8 * c + 5) & 7) < stall_rate_[c];
        }
        top->m_axi_arready = read_bursts_ < outstanding_ && !stalled[AR];
        top->m_axi_awready = write_bursts_ < outstanding_ && !stalled[AW];
        top->m_axi_wready = write_beats_.size() < WRITE_FIFO && !stalled[W];
        if (!r_offered_) {
            r_offered_ = !read_beats_.empty() && read_beats_.front().due <= cycle && !stalled[R];
            top->m_axi_rvalid = r_offered_;
            if (r_offered_) {
                const ReadBeat& beat = read_beats_.front();
                put(top->m_axi_rdata, beat.data);
                top->m_axi_rresp = beat.response, top->m_axi_rlast = beat.last;
            }
        }
        if (!b_offered_) {
            b_offered_ = !responses_.empty() && responses_.front().due <= cycle && !stalled[B];
            top->m_axi_bvalid = b_offered_;
            if (b_offered_) top->m_axi_bresp = responses_.front().response;
        }
    }

    bool outside(uint64_t low, uint64_t high, bool write) const {
        for (const Window& window : windows_)
            if (window.low <= low && high <= window.high && (window.writable || !write))
                return false;
        return !windows_.empty();
    }

    void accept(std::deque<Burst>& queue, unsigned& count, bool write, uint64_t address,
                unsigned length, unsigned size, unsigned burst) {
        uint64_t bytes = uint64_t(length + 1) * BUS_BYTES;
        if ((1u << size) != BUS_BYTES) violate("burst with a size other than the bus width");
        if (burst != 1) violate("burst type other than INCR");
        if (address % BUS_BYTES) violate("unaligned burst");
        if (address / BURST_BOUNDARY != (address + bytes - 1) / BURST_BOUNDARY)
            violate("burst crosses a 4096-byte boundary");
        if (outside(address, address + bytes, write))
            violate(write ? "write burst outside every writable window"
                          : "read burst outside every window");
        queue.push_back({address, length + 1});
        ++count;
    }

    void accept_data() {
        WriteBeat beat;
        std::memcpy(beat.data, &top->m_axi_wdata, sizeof(beat.data));
        std::memcpy(beat.strobe, &top->m_axi_wstrb, sizeof(beat.strobe));
        beat.last = top->m_axi_wlast;
        write_beats_.push_back(beat);
    }

    bool refused(uint64_t address, bool write) const {
        return address + BUS_BYTES > memory_size_ || address + BUS_BYTES < address ||
               ((write ? fault_writes_ : fault_reads_) && address < fault_high_ &&
                address + BUS_BYTES > fault_low_);
    }

    // What the memory itself does in a cycle: at most one beat in and one beat out, if the bytes
    // it may move allow it.
    void serve() {
        credits_ += width_;
        if (credits_ > BUS_BYTES + width_ - 1) credits_ = BUS_BYTES + width_ - 1;
        if (credits_ >= BUS_BYTES && !writes_.empty() && !write_beats_.empty()) {
            credits_ -= BUS_BYTES;
            Burst& burst = writes_.front();
            const WriteBeat& beat = write_beats_.front();
            if (refused(burst.address, true)) {
                write_failed_ = true;
            } else {
                uint8_t* target = memory_ + burst.address;
                for (unsigned i = 0; i < BUS_BYTES; ++i)
                    if (beat.strobe[i / 8] >> (i % 8) & 1) target[i] = beat.data[i];
            }
            burst.address += BUS_BYTES;
            bool last = --burst.beats == 0;
            if (last != beat.last) violate("WLAST does not match the burst length");
            write_beats_.pop_front();
            if (last) {
                responses_.push_back({cycle + latency_, uint8_t(write_failed_ ? SLVERR : OKAY)});
                write_failed_ = false;
                writes_.pop_front();
            }
        }
        if (credits_ >= BUS_BYTES && !reads_.empty()) {
            credits_ -= BUS_BYTES;
            Burst& burst = reads_.front();
            ReadBeat beat;
            beat.due = cycle + latency_;
            if (refused(burst.address, false)) {
                beat.response = SLVERR;
                std::memset(beat.data, 0, BUS_BYTES);
            } else {
                beat.response = OKAY;
                std::memcpy(beat.data, memory_ + burst.address, BUS_BYTES);
            }
            burst.address += BUS_BYTES;
            beat.last = --burst.beats == 0;
            read_beats_.push_back(beat);
            if (beat.last) reads_.pop_front();
        }
    }

    void check(Offer& offer, bool valid, bool ready, const uint8_t* bytes, const char* text) {
        if (offer.pending && (!valid || std::memcmp(offer.bytes, bytes, sizeof(offer.bytes))))
            violate(text);
        offer.pending = valid && !ready;
        if (offer.pending) std::memcpy(offer.bytes, bytes, sizeof(offer.bytes));
    }

    void check_offers() {
        if (top->rst) return;
        if (ar_.pending || (top->m_axi_arvalid && !top->m_axi_arready)) {
            uint8_t bytes[sizeof(Offer::bytes)] = {};
            uint64_t address = top->m_axi_araddr;
            std::memcpy(bytes, &address, 8), bytes[8] = top->m_axi_arlen;
            check(ar_, top->m_axi_arvalid, top->m_axi_arready, bytes, "AR changed before ARREADY");
        }
        if (aw_.pending || (top->m_axi_awvalid && !top->m_axi_awready)) {
            uint8_t bytes[sizeof(Offer::bytes)] = {};
            uint64_t address = top->m_axi_awaddr;
            std::memcpy(bytes, &address, 8), bytes[8] = top->m_axi_awlen;
            check(aw_, top->m_axi_awvalid, top->m_axi_awready, bytes, "AW changed before AWREADY");
        }
        if (w_.pending || (top->m_axi_wvalid && !top->m_axi_wready)) {
            uint8_t bytes[sizeof(Offer::bytes)] = {};
            std::memcpy(bytes, &top->m_axi_wdata, BUS_BYTES);
            std::memcpy(bytes + BUS_BYTES, &top->m_axi_wstrb, (BUS_BYTES + 7) / 8);
            bytes[BUS_BYTES + 20] = top->m_axi_wlast;
            check(w_, top->m_axi_wvalid, top->m_axi_wready, bytes, "W changed before WREADY");
        }
    }
};

}  // namespace

extern "C" {
Model* weft_create(unsigned latency, unsigned width, unsigned outstanding, uint64_t seed) {
    return new Model(latency, width, outstanding, seed);
}
void weft_destroy(Model* model) { delete model; }
void weft_memory(Model* model, uint8_t* data, uint64_t size) { model->set_memory(data, size); }
void weft_fault(Model* model, uint64_t low, uint64_t high, int reads, int writes) {
    model->set_fault(low, high, reads, writes);
}
void weft_clear_windows(Model* model) { model->clear_windows(); }
void weft_add_window(Model* model, uint64_t low, uint64_t high, int writable) {
    model->add_window(low, high, writable);
}
int weft_write_register(Model* model, uint32_t address, uint32_t value) {
    return model->write_register(address, value);
}
int weft_read_register(Model* model, uint32_t address, uint32_t* value) {
    return model->read_register(address, value);
}
uint64_t weft_run(Model* model, uint64_t limit) { return model->run(limit); }
int weft_interrupt(Model* model) { return model->interrupt(); }
uint64_t weft_cycle(Model* model) { return model->cycle; }
const char* weft_violation(Model* model) { return model->violation(); }
void weft_record(Model* model, int on) { model->set_recording(on); }
uint64_t weft_event_count(Model* model) { return model->events().size(); }
const void* weft_events(Model* model) { return model->events().data(); }
void weft_clear_events(Model* model) { model->clear_events(); }
int weft_open_vcd(Model* model, const char* path) { return model->open_vcd(path); }
void weft_close_vcd(Model* model) { model->close_vcd(); }
}
