// ECP5 cells between registers and pins, and an SDRAM's pins, with delays in nanoseconds. OUT: from
// a clock to a pin. IN: from a pin to a register. ACCESS: until a word is on the memory's pins,
// HOLD: how long the one before it stays.
`timescale 1ns / 1ps
/* verilator lint_off TIMESCALEMOD */

module EHXPLLL (input CLKI, CLKFB, RST, STDBY, PHASESEL0, PHASESEL1, PHASEDIR, PHASESTEP,
                PHASELOADREG, output CLKOP, output reg CLKOS, CLKOS2, CLKOS3, LOCK);
    parameter CLKI_DIV = 1, CLKFB_DIV = 1;
    parameter CLKOP_DIV = 1, CLKOS_DIV = 1, CLKOS2_DIV = 1, CLKOS3_DIV = 1;
    parameter CLKOP_CPHASE = 0, CLKOS_CPHASE = 0, CLKOS2_CPHASE = 0, CLKOS3_CPHASE = 0;
    parameter CLKOP_FPHASE = 0, CLKOS_FPHASE = 0, CLKOS2_FPHASE = 0, CLKOS3_FPHASE = 0;
    parameter CLKOP_ENABLE = "", CLKOS_ENABLE = "", CLKOS2_ENABLE = "", CLKOS3_ENABLE = "";
    parameter FEEDBK_PATH = "";
    localparam real STEP = 40.0 * CLKI_DIV / (CLKFB_DIV * CLKOP_DIV);  // from 25 MHz
    assign CLKOP = CLKI;
    initial begin
        {CLKOS, CLKOS2, CLKOS3, LOCK} = 0;
        #100;
        fork
            #(STEP * (CLKOS_CPHASE - CLKOS_DIV + 1)) forever begin
                CLKOS = 1; #(STEP * CLKOS_DIV / 2); CLKOS = 0; #(STEP * CLKOS_DIV / 2);
            end
            #(STEP * (CLKOS2_CPHASE - CLKOS2_DIV + 1)) forever begin
                CLKOS2 = 1; #(STEP * CLKOS2_DIV / 2); CLKOS2 = 0; #(STEP * CLKOS2_DIV / 2);
            end
            #(STEP * (CLKOS3_CPHASE - CLKOS3_DIV + 1)) forever begin
                CLKOS3 = 1; #(STEP * CLKOS3_DIV / 2); CLKOS3 = 0; #(STEP * CLKOS3_DIV / 2);
            end
            #500 LOCK = 1;
        join
    end
endmodule

module DCCA (input CLKI, CE, output CLKO);
    reg open = 0;
    always @* if (!CLKI) open = CE;
    assign CLKO = CLKI & open;
endmodule

module IB (input I, output O);
    assign O = I;
endmodule

module OBZ (input I, T, output O);
    assign O = T ? 1'bz : I;
endmodule

module BB (input I, T, output O, inout B);
    assign B = T ? 1'bz : I;
    assign O = B;
endmodule

module FD1S3AX (input CK, D, output reg Q);
    initial Q = 0;
    always @(posedge CK) Q <= D;
endmodule

module OFS1P3DX (input SCLK, SP, CD, D, output reg Q);
    initial Q = 0;
    always @(posedge SCLK) Q <= #(`OUT) D;
endmodule

module ODDRX1F (input SCLK, RST, D0, D1, output reg Q);
    initial Q = 0;
    always @(posedge SCLK) Q <= #(`OUT) D0;
    always @(negedge SCLK) Q <= #(`OUT) D1;
endmodule

// What changes between setup and hold time is not known.
module IFS1P3DX (input SCLK, SP, CD, D, output reg Q);
    localparam real SETUP = 0.7, AFTER = 0.8;
    wire #(`IN) d = D;
    real changed = 0;
    reg taken;
    always @(d) changed = $realtime;
    always @(posedge SCLK) begin
        taken = $realtime - changed < SETUP ? 1'bx : d;
        #(AFTER) Q = taken === d ? d : 1'bx;
    end
endmodule

module testbench;
    reg clk25 = 0;
    always #20 clk25 = !clk25;
    wire ck, cke, cs_n, ras_n, cas_n, we_n, right, done;
    wire [1:0] ba, dqm;
    wire [12:0] a;
    wire [15:0] dq, stored;
    wire stored_en;
    wire [4:0] first_code;
    top board (.clk25_0__io(clk25), .uart_0__rx__io(1'b1), .uart_0__tx__io(right), .led_3__io(done),
        .sdram_0__clk__io(ck), .sdram_0__clk_en__io(cke), .sdram_0__cs__io(cs_n),
        .sdram_0__ras__io(ras_n), .sdram_0__cas__io(cas_n), .sdram_0__we__io(we_n),
        .sdram_0__ba__io(ba), .sdram_0__a__io(a), .sdram_0__dqm__io(dqm), .sdram_0__dq__io(dq));

    reg shown_en = 0;
    reg [15:0] shown = 16'hx;
    assign dq = shown_en ? shown : 16'hz;
    always @(posedge ck) begin
        #(`HOLD) shown = 16'hx;
        #(`ACCESS - `HOLD) begin shown = stored; shown_en = stored_en; end
    end
    wire written = dq !== 16'hz && !shown_en;
    `MODEL memory (.clk(ck), .off(1'b0), .cke(cke), .cs_n(cs_n), .ras_n(ras_n), .cas_n(cas_n),
        .we_n(we_n), .ba(ba), .a(a), .dqm(dqm), .dq_in(dq), .dq_in_en(written), .dq_out(stored),
        .dq_out_en(stored_en), .first_code(first_code));

    // Setup 1.5 ns and hold 0.8 ns of the memory's inputs.
    wire [37:0] pins = {cke, cs_n, ras_n, cas_n, we_n, ba, a, dqm, written ? dq : 16'h0};
    real changed = 0, edge_at = 0;
    integer late = 0;
    always @(pins) begin
        changed = $realtime;
        if (edge_at > 0 && changed - edge_at < 0.8) late = late + 1;
    end
    always @(posedge ck) begin
        edge_at = $realtime;
        if (edge_at - changed < 1.5) late = late + 1;
    end

    initial begin
        wait (done === 1'b1);
        #100 $display("right=%b code=%0d unsteady=%0d", right, first_code, late);
        $finish;
    end
    initial #2000000 begin
        $display("never done");
        $finish;
    end
endmodule
