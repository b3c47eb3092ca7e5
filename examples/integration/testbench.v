// Clock, reset, and the memory's contents when the program has ended.
`timescale 1ns / 1ps
module testbench;
  reg clk = 0, rst = 1;
  wire done;
  wire [31:0] status;
  integer cycles = 0;

  system dut (.clk(clk), .rst(rst), .done(done), .status(status));

  always #5 clk = ~clk;
  always @(posedge clk) cycles <= cycles + 1;
  initial begin
    repeat (4) @(posedge clk);
    rst <= 0;
    while (!done && cycles < 1000000) @(posedge clk);
    if (done) begin
      $display("status %h, %0d cycles", status, cycles);
      $writememh("result.hex", dut.memory.memory);
    end else $display("no interrupt after %0d cycles", cycles);
    $finish;
  end
endmodule
