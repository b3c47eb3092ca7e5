#!/bin/bash
# Good guess: the common pattern of a block RAM (one clock, one write port, one registered read)
# of 512 words of 32 bits becomes one DP16KD of an ECP5 and nothing else.
# What happens: read as Verilog, the pattern returns the old word when both ports have the same
# address, and Yosys does not count on this block RAM for that: it adds 75 flip-flops and 49 LUTs
# that make it so. With -no-rw-check they are gone.
# Versions: pyosys 0.70.
# Why it matters: a design of many small memories that never reads the word being written pays for
# each of them. Weft gives -no-rw-check in its own flow and says so for the exported Verilog
# (docs/integration.md).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyosys==0.70
cat >"$folder/memory.v" <<'VERILOG'
module memory(input clk, input write, input [8:0] to, input [8:0] from,
              input [31:0] data, output reg [31:0] result);
  reg [31:0] words [0:511];
  always @(posedge clk) begin
    if (write) words[to] <= data;
    result <= words[from];
  end
endmodule
VERILOG
cd "$folder"
cells() { # what synth_ecp5 with these options makes of the memory
    "$folder/venv/bin/python" - "$@" >log 2>&1 <<'PYTHON' || { tail -n 1 log >&2; exit 1; }
import sys

from pyosys import libyosys

design = libyosys.Design()
synthesis = " ".join(["synth_ecp5", *sys.argv[1:]])
for command in ("read_verilog memory.v", synthesis, "tee -o cells stat"):
    libyosys.run_pass(command, design)
PYTHON
    awk '$2 ~ /^(DP16KD|LUT4|TRELLIS_FF)$/ {printf "%s%s %s", s, $1, $2; s = ", "}' cells
}
"$folder/venv/bin/pip" list 2>/dev/null | grep pyosys
plain=$(cells)
bare=$(cells -no-rw-check)
echo "synth_ecp5:              $plain"
echo "synth_ecp5 -no-rw-check: $bare"
[ "$bare" = "1 DP16KD" ] && [ "$plain" != "$bare" ] ||
    { echo "not reproduced: no logic around the block RAM" >&2; exit 1; }
