// A clock without the pulses of the cycles that begin while `enable` is 0.
module weft_clock_gate (input clk, input enable, output gated);
    reg open = 1;
    always @(negedge clk) open <= enable;
    assign gated = clk & open;
endmodule
