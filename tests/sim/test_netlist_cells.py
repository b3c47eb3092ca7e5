"""Cells as sim/netlist.cpp runs them against their models in Verilator: Yosys' own, and for block
RAMs and multipliers, of which Yosys has only the pins, sim/cells/ecp5.v."""

from __future__ import annotations

import ctypes
import json
import random
from pathlib import Path

import pytest

from boards.yosys import run_yosys
from sim.netlist import netlist_library
from sim.netlist_cells import Netlist, NetlistError
from sim.verilator import DRAFT_CXX_FLAGS, build_library
from tests.cell_models import cell_models
from tests.sim.rtl import SEED

HARNESS = str(Path(__file__).with_name("cells.cpp"))
INPUTS = 256
STEPS = 3000


class Circuit:
    """Cells at random: each sees inputs and other cells, and everything that it says is output."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.lines: list[str] = []
        self.outputs: list[str] = []
        self.sources = [f"i[{n}]" for n in range(INPUTS)]
        self.cell("LUT4", {"INIT": "16'h8000"}, "A B C D", "Z")
        self.rare = self.sources[-1]
        for _ in range(12):
            self.cell("TRELLIS_FF", {
                "CEMUX": rng.choice(['"1"', '"CE"', '"INV"']),
                "REGSET": rng.choice(['"SET"', '"RESET"']),
                "SRMODE": '"LSR_OVER_CE"', "GSR": '"DISABLED"',
            }, "DI CE", "Q", CLK="clk", LSR=rng.choice([*self.sources[:2], "1'b0"]))  # fmt: skip
        for inputs in ("CLK0", "CLK0", "NONE"):
            parameters = {
                f"REG_{r}_{k}": f'"{v}"'
                for r, clock in (("INPUTA", inputs), ("INPUTB", inputs), ("OUTPUT", "CLK0"))
                for k, v in (("CLK", clock), ("CE", f"CE{rng.randrange(4)}"))
            }
            self.cell("MULT18X18D", parameters,
                      f"{pins('A', 18)} {pins('B', 18)} {pins('CE', 4)} SIGNEDA SIGNEDB",
                      pins("P", 36), CLK0="clk", **dict.fromkeys(["SOURCEA", "RST0"], "1'b0"),
                      )  # fmt: skip
        for widths in [(1, 9), (2, 18), (4, 4), (9, 1), (18, 2), (18, 18), (36, 36), (36, 9)]:
            self.block(*widths)
        for _ in range(4):
            self.cell("TRELLIS_DPR16X4", {"INITVAL": f"64'h{rng.getrandbits(64):x}"},
                      "DI[3:0] WAD[3:0] RAD[3:0] WRE", "DO[3:0]", WCK="clk")  # fmt: skip
        for _ in range(60):
            kind = rng.choice(["LUT4", "LUT4", "CCU2C", "PFUMX", "L6MUX21"])
            if kind == "LUT4":
                self.cell(kind, {"INIT": f"16'h{rng.getrandbits(16):x}"}, "A B C D", "Z")
            elif kind == "CCU2C":
                parameters = {f"INIT{n}": f"16'h{rng.getrandbits(16):x}" for n in "01"}
                parameters |= {f"INJECT1_{n}": rng.choice(['"YES"', '"NO"']) for n in "01"}
                self.cell(kind, parameters, "CIN A0 B0 C0 D0 A1 B1 C1 D1", "S0 S1 COUT")
            else:
                names = "ALUT BLUT C0" if kind == "PFUMX" else "D0 D1 SD"
                self.cell(kind, {}, names, "Z")

    def block(self, width_a: int, width_b: int) -> None:
        """A block RAM on its first and last words, so that the ports often meet."""
        rng = self.rng
        parameters: dict[str, object] = {"DATA_WIDTH_A": width_a, "DATA_WIDTH_B": width_b}
        tied = {"CLKA": "clk", "CLKB": "clk", "CSA2": "1'b0", "CSB2": "1'b1"}
        parameters |= {"CSDECODE_A": '"0b000"', "CSDECODE_B": '"0b100"'}
        for port in "AB":
            parameters[f"REGMODE_{port}"] = rng.choice(['"NOREG"', '"OUTREG"'])
            modes = ["NORMAL", "WRITETHROUGH", "READBEFOREWRITE"]
            parameters[f"WRITEMODE_{port}"] = f'"{rng.choice(modes)}"'
            high = rng.choice(self.sources)
            tied |= {f"AD{port}{n}": high for n in range(6, 14)}
            tied |= {f"CS{port}{n}": "1'b0" for n in range(2)}
            tied[f"RST{port}"] = rng.choice(["1'b0", self.rare])
        if width_a == 36:
            tied["WEB"] = "1'b0"
        for row in rng.sample(range(64), 4):
            parameters[f"INITVAL_{row:02X}"] = f"320'h{rng.getrandbits(320):x}"
        inputs = " ".join(
            f"{pins(f'DI{p}', 18)} {pins(f'AD{p}', 6)} CE{p} OCE{p} WE{p}" for p in "AB"
        )
        names = [n for n in inputs.split() if n not in tied]
        # Pins beyond the width say nothing that counts.
        outputs = [f"DOB{n}" for n in range(min(width_b, 18))]
        outputs += [f"DOA{n}" for n in range(18 if width_b == 36 else min(width_a, 18))]
        if width_a == 36 and width_b < 36:
            outputs = [n for n in outputs if n.startswith("DOB")]
        self.cell("DP16KD", parameters, " ".join(names), " ".join(outputs), **tied)

    def cell(self, kind: str, parameters: dict, inputs: str, outputs: str, **tied: str) -> None:
        name = f"cell_{len(self.lines)}"
        ports = [f".{pin}({net})" for pin, net in tied.items()]
        for pin in inputs.split():
            pin, _, high = pin.partition("[")
            width = 4 if high else 1
            nets = [self.rng.choice(self.sources[-(INPUTS + 60) :]) for _ in range(width)]
            ports.append(f".{pin}({{{', '.join(nets)}}})")
        for pin in outputs.split():
            pin, _, high = pin.partition("[")
            wire = f"{name}_{pin}"
            self.lines.append(f"  wire [{3 if high else 0}:0] {wire};")
            ports.append(f".{pin}({wire})")
            new = [f"{wire}[{n}]" for n in range(4 if high else 1)]
            self.outputs += new
            self.sources += new
        options = ", ".join(f".{key}({value})" for key, value in parameters.items())
        self.lines.append(f"  {kind} #({options}) {name} ({', '.join(ports)});")

    @property
    def text(self) -> str:
        return "\n".join([
            "module weft(clk, rst, i, o);",
            "  input clk;", "  input rst;", f"  input [{INPUTS - 1}:0] i;",
            f"  output [{len(self.outputs) - 1}:0] o;", *self.lines,
            f"  assign o = {{{', '.join(reversed(self.outputs))}}};", "endmodule\n",
        ])  # fmt: skip


def pins(name: str, count: int) -> str:
    return " ".join(f"{name}{n}" for n in range(count))


def read(text: str, folder: Path) -> Netlist:
    """As it is, without synthesis."""
    (folder / "cells.v").write_text(text)
    stubs = "read_verilog -lib +/ecp5/cells_sim.v +/ecp5/cells_bb.v"
    simplify = [
        "hierarchy -top weft",
        "opt_clean",
        "select weft",
        "write_json -selected cells.json",
    ]
    run_yosys([stubs, "read_verilog cells.v", *simplify], folder)
    return Netlist.of(json.loads((folder / "cells.json").read_text())["modules"]["weft"])


def open_cells(library: Path) -> ctypes.CDLL:
    opened = ctypes.CDLL(str(library))
    opened.cells_make.restype = ctypes.c_void_p
    opened.cells_step.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]
    return opened


def test_cells_do_what_their_models_do(tmp_path: Path):
    rng = random.Random(SEED)
    print("seed", SEED)
    circuit = Circuit(rng)
    netlist = read(circuit.text, tmp_path)
    library, _ = netlist_library(netlist, HARNESS, "")
    found = open_cells(library)
    words = netlist.words()
    found.netlist_load.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    found.netlist_load(words.ctypes.data, words.size)
    text = circuit.text + cell_models()
    wanted = open_cells(build_library(text, HARNESS, "", cxx_flags=DRAFT_CXX_FLAGS)[0])
    sides = [(library, library.cells_make()) for library in (wanted, found)]
    size = -(-len(circuit.outputs) // 8) + 8
    bits = (1 << len(circuit.outputs)) - 1
    changes = last = 0
    for step in range(STEPS):
        stimulus = rng.randbytes(INPUTS // 8)
        values = []
        for opened, handle in sides:
            out = ctypes.create_string_buffer(size)
            opened.cells_step(handle, stimulus, out)
            values.append(int.from_bytes(out.raw, "little") & bits)
        different = values[0] ^ values[1]
        wrong = [net for n, net in enumerate(circuit.outputs) if different >> n & 1]
        assert not wrong, f"step {step}: {wrong[:8]}"
        changes |= values[0] ^ last if step else 0
        last = values[0]
    still = [net for n, net in enumerate(circuit.outputs) if not changes >> n & 1]
    assert len(still) < len(circuit.outputs) / 10, still


def test_what_cannot_be_simulated_is_named(tmp_path: Path):
    header = (
        "module weft(clk, rst, i, o);\n  input clk, rst;\n  input [1:0] i;\n  output [1:0] o;\n"
    )
    loop = "  LUT4 #(.INIT(16'h8888)) one (.A(o[1]), .B(i[0]), .Z(o[0]));\n"
    loop += "  LUT4 #(.INIT(16'h8888)) two (.A(o[0]), .B(i[1]), .Z(o[1]));\n"
    latch = '  TRELLIS_FF #(.CLKMUX("INV")) late (.CLK(clk), .DI(i[0]), .Q(o[0]));\n'
    io = "  TRELLIS_IO pad (.I(i[0]), .O(o[0]));\n"
    for body, text in (
        (loop, "logic at (one|two) depends on itself"),
        (latch, "cell late: CLKMUX=INV cannot be simulated"),
        (io, "cell pad: TRELLIS_IO cannot be simulated"),
    ):
        with pytest.raises(NetlistError, match=text):
            read(f"{header}{body}endmodule\n", tmp_path)
