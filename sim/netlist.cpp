// Runs a netlist of FPGA cells: one byte a net, one table a kind of cell, no code made for a design.
//
// Logic is look-up tables with four inputs in the order in which they depend on each other, and
// reads of LUT memories between them; sim/netlist_cells.py makes the tables and says what is in
// them. One clock. tests/sim/test_netlist_cells.py holds every kind of cell to its vendor's model.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace {

std::vector<uint32_t> netlist_tables;  // of the next netlist that is made
uint32_t* netlist_toggles = nullptr;   // by net, how often it changed from a cycle to the next

class Netlist {
  public:
    Netlist() {
        const uint32_t* word = netlist_tables.data();
        nets_.assign(*word++, 0);
        nets_[1] = 1;
        read(word, logic_, 6);
        read(word, flip_flops_, 5);
        read(word, small_, 15);
        read(word, blocks_, BLOCK_WORDS);
        read(word, multipliers_, PRODUCT_WORDS);
        initial_.assign(word, word + blocks_.size() / BLOCK_WORDS * BLOCK_BYTES);
        for (size_t i = 0; i < flip_flops_.size(); i += 5)
            nets_[flip_flops_[i + 3]] = flip_flops_[i + 4];
        next_.resize(flip_flops_.size() / 5);
        small_memory_.resize(small_.size() / 15 * 16);
        for (size_t i = 0; i < small_memory_.size(); ++i) {
            const uint32_t* cell = &small_[i / 16 * 15];
            small_memory_[i] = (i % 16 < 8 ? cell[13] : cell[14]) >> 4 * (i % 8) & 15;
        }
        block_memory_.assign(initial_.begin(), initial_.end());
        latch_.resize(blocks_.size() / BLOCK_WORDS * 2);
        register_.resize(latch_.size());
        products_.resize(multipliers_.size() / PRODUCT_WORDS);
        settle();
        before_ = nets_;
    }

    // Bytes of a port in little-endian order, a net for each bit.
    void put(const void* data, const uint32_t* nets, unsigned width) {
        for (unsigned i = 0; i < width; ++i)
            nets_[nets[i]] = static_cast<const uint8_t*>(data)[i / 8] >> (i % 8) & 1;
    }
    void get(void* data, const uint32_t* nets, unsigned width) const {
        uint8_t* bytes = static_cast<uint8_t*>(data);
        for (unsigned i = 0; i < width; ++i)
            bytes[i / 8] = (bytes[i / 8] & ~(1 << i % 8)) | nets_[nets[i]] << (i % 8);
    }

    // A rising edge: everything takes what it sees, then everything shows what it has.
    void edge() {
        for (size_t i = 0, n = 0; i < flip_flops_.size(); i += 5, ++n) {
            const uint32_t* cell = &flip_flops_[i];
            next_[n] = nets_[cell[2]] ? cell[4] : nets_[nets_[cell[1]] ? cell[0] : cell[3]];
        }
        for (size_t i = 0, n = 0; i < small_.size(); i += 15, ++n)
            if (nets_[small_[i + 8]])
                small_memory_[16 * n + value(&small_[i + 4], 4)] = value(&small_[i], 4);
        for (size_t n = 0; n < latch_.size() / 2; ++n) block(n);
        for (size_t n = 0; n < products_.size(); ++n) multiply(n);
        for (size_t n = 0; n < next_.size(); ++n) nets_[flip_flops_[5 * n + 3]] = next_[n];
        for (size_t n = 0; n < latch_.size() / 2; ++n) show_block(n);
        for (size_t n = 0; n < products_.size(); ++n)
            show(&multipliers_[PRODUCT_WORDS * n + 41], 36, products_[n].p);
    }

    void settle() {
        uint8_t* const nets = nets_.data();
        const uint32_t* const end = logic_.data() + logic_.size();
        for (const uint32_t* cell = logic_.data(); cell != end; cell += 6) {
            const unsigned index = nets[cell[0]] | nets[cell[1]] << 1 | nets[cell[2]] << 2 |
                                   nets[cell[3]] << 3;
            if (cell[4]) {
                nets[cell[4]] = cell[5] >> index & 1;
            } else {
                show(&small_[15 * cell[5] + 9], 4, small_memory_[16 * cell[5] + index]);
            }
        }
        if (netlist_toggles) count(netlist_toggles);
    }

  private:
    // Of a port of a block RAM: what it is, then its nets.
    enum { WIDTH, OUTREG, WRITE_MODE, SELECT, DATA, ADDRESS = DATA + 18, ENABLE = ADDRESS + 14,
           OUT_ENABLE, WRITE, RESET, SELECTS, OUT = SELECTS + 3, PORT_WORDS = OUT + 18,
           BLOCK_WORDS = 2 * PORT_WORDS };
    static constexpr size_t BLOCK_BYTES = 2048;  // of nine bits
    static constexpr size_t PRODUCT_WORDS = 18 + 18 + 2 + 3 + 36 + 1;
    enum { NORMAL, WRITE_THROUGH, READ_BEFORE_WRITE };
    struct Product {
        int64_t a, b;
        uint64_t p;
    };

    std::vector<uint8_t> nets_, before_, next_, small_memory_;
    std::vector<uint32_t> logic_, flip_flops_, small_, blocks_, multipliers_, initial_;
    std::vector<uint16_t> block_memory_;
    std::vector<uint64_t> latch_, register_;
    std::vector<Product> products_;

    // Without delays: a net changes once a cycle at most.
    void count(uint32_t* toggles) {
        const size_t size = before_.size();
        for (size_t i = 0; i < size; ++i) toggles[i] += nets_[i] ^ before_[i];
        before_ = nets_;
    }

    static void read(const uint32_t*& word, std::vector<uint32_t>& table, size_t words) {
        const size_t size = *word++ * words;
        table.assign(word, word + size);
        word += size;
    }

    uint64_t value(const uint32_t* nets, unsigned width) const {
        uint64_t sum = 0;
        for (unsigned i = 0; i < width; ++i) sum |= uint64_t(nets_[nets[i]]) << i;
        return sum;
    }
    void show(const uint32_t* nets, unsigned width, uint64_t data) {
        for (unsigned i = 0; i < width; ++i) nets_[nets[i]] = data >> i & 1;
    }

    const uint32_t* port(size_t n, int p) const {
        return &blocks_[BLOCK_WORDS * n + PORT_WORDS * p];
    }

    // What a port does at an edge: bits `mask` of the four bytes from `first` on.
    struct Access {
        bool enabled, write;
        unsigned first, shift;
        uint64_t mask, data;
    };

    Access access(const uint32_t* port) const {
        const unsigned width = port[WIDTH], address = value(port + ADDRESS, 14);
        Access a = {};
        a.enabled = nets_[port[ENABLE]] && value(port + SELECTS, 3) == port[SELECT];
        a.write = nets_[port[WRITE]];
        a.first = address >> 3 & ~(width == 36 ? 3u : width == 18 ? 1u : 0u);
        a.shift = width > 4 ? 0 : address & (8 - width);
        if (a.enabled && a.write) {
            if (width < 18) a.mask = ((1ull << width) - 1) << a.shift;
            for (unsigned i = 0; width >= 18 && i < width / 9; ++i)
                if (address >> i & 1) a.mask |= 0x1FFull << 9 * i;
        }
        a.data = value(port + DATA, 18) << a.shift;
        return a;
    }

    void block(size_t n) {
        const uint32_t* ports[2] = {port(n, 0), port(n, 1)};
        uint16_t* memory = &block_memory_[BLOCK_BYTES * n];
        Access a[2] = {access(ports[0]), access(ports[1])};
        if (ports[0][WIDTH] == 36) a[0].data |= value(ports[1] + DATA, 18) << 18;
        uint64_t old[2] = {}, seen[2];
        for (int p = 0; p < 2; ++p)
            for (unsigned i = 0; i < 4; ++i)
                old[p] |= uint64_t(memory[(a[p].first + i) % BLOCK_BYTES]) << 9 * i;
        for (int p = 0; p < 2; ++p) {
            const Access& other = a[!p];
            const bool through = a[p].write && ports[p][WRITE_MODE] == WRITE_THROUGH;
            seen[p] = through ? (old[p] & ~a[p].mask) | (a[p].data & a[p].mask) : old[p];
            // Undefined where the other port writes: the inverse of what was there.
            for (unsigned i = 0; i < 4; ++i)
                for (unsigned k = 0; k < 4; ++k)
                    if ((other.mask >> 9 * k & 0x1FF) && a[p].first + i == other.first + k)
                        seen[p] = (seen[p] & ~(0x1FFull << 9 * i)) | (~old[p] & 0x1FFull << 9 * i);
        }
        for (int p = 0; p < 2; ++p) {
            uint64_t& latch = latch_[2 * n + p];
            const bool reset = nets_[ports[p][RESET]];
            if (reset) register_[2 * n + p] = 0;
            else if (nets_[ports[p][OUT_ENABLE]]) register_[2 * n + p] = latch;
            if (reset) latch = 0;
            else if (a[p].enabled && (!a[p].write || ports[p][WRITE_MODE] != NORMAL))
                latch = seen[p] >> a[p].shift;
            for (unsigned i = 0; i < 4; ++i) {
                const uint64_t mask = a[p].mask >> 9 * i & 0x1FF;
                const uint64_t byte = (old[p] >> 9 * i & ~mask) | (a[p].data >> 9 * i & mask);
                if (mask) memory[(a[p].first + i) % BLOCK_BYTES] = byte & 0x1FF;
            }
        }
    }

    void show_block(size_t n) {
        const uint32_t* ports[2] = {port(n, 0), port(n, 1)};
        uint64_t out[2];
        for (int p = 0; p < 2; ++p)
            out[p] = ports[p][OUTREG] ? register_[2 * n + p] : latch_[2 * n + p];
        if (ports[1][WIDTH] == 36) out[0] = out[1], out[1] >>= 18;
        for (int p = 0; p < 2; ++p) show(ports[p] + OUT, 18, out[p]);
    }

    // a, b, whether they are signed, enables of the three registers, product, whether a and b have
    // no registers.
    void multiply(size_t n) {
        const uint32_t* cell = &multipliers_[PRODUCT_WORDS * n];
        Product& product = products_[n];
        const auto extended = [](int64_t x, bool sign) {
            return sign && x >> 17 ? x - (1 << 18) : x;
        };
        if (cell[77]) product.a = value(cell, 18), product.b = value(cell + 18, 18);
        const bool sign_a = nets_[cell[36]], sign_b = nets_[cell[37]];
        if (nets_[cell[40]])
            product.p = uint64_t(extended(product.a, sign_a) * extended(product.b, sign_b)) &
                        ((1ull << 36) - 1);
        if (nets_[cell[38]]) product.a = value(cell, 18);
        if (nets_[cell[39]]) product.b = value(cell + 18, 18);
    }
};

}  // namespace

extern "C" void netlist_load(const uint32_t* words, size_t count) {
    netlist_tables.assign(words, words + count);
}

// Where netlists of this library count, or null: they do not.
extern "C" void netlist_count(uint32_t* toggles) { netlist_toggles = toggles; }
