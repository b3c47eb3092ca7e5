// A design with ports `i` and `o` of any width behind two functions.
#include <cstring>

#include "Vweft.h"
#include "verilated.h"

extern "C" {
Vweft* cells_make() { return new Vweft(new VerilatedContext); }
void cells_step(Vweft* top, const void* in, void* out) {
    top->rst = 0;
    std::memcpy(&top->i, in, sizeof(top->i));
    top->clk = 0;
    top->eval();
    top->clk = 1;
    top->eval();
    std::memcpy(out, &top->o, sizeof(top->o));
}
}
