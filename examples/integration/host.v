// Plays a list of register writes on AXI4-Lite, waits for the interrupt, reads one register.
// It stands where a processor would.
//
// An entry of the list is an address and a value. The last one has the address ffffffff, and
// instead of a value the address of the register to read.
module host #(
  parameter ENTRIES = 32,
  parameter LIST = "registers.hex"
) (
  input clk,
  input rst,
  input interrupt,
  output reg done,
  output reg [31:0] status,  // what was read

  output [11:0] awaddr,
  output reg awvalid,
  input awready,
  output [31:0] wdata,
  output reg wvalid,
  input wready,
  input bvalid,
  output bready,

  output [11:0] araddr,
  output reg arvalid,
  input arready,
  input [31:0] rdata,
  input rvalid,
  output rready
);
  reg [63:0] list [0:ENTRIES-1];
  initial $readmemh(LIST, list);

  reg [$clog2(ENTRIES)-1:0] entry;
  wire [31:0] address, value;
  assign {address, value} = list[entry];
  assign awaddr = address[11:0];
  assign wdata = value;
  assign araddr = value[11:0];
  assign bready = 1;
  assign rready = 1;

  localparam NEXT = 0, WRITE = 1, WAIT = 2, READ = 3;
  reg [1:0] state;
  always @(posedge clk) begin
    case (state)
      NEXT:
        if (&address) state <= WAIT;
        else begin
          awvalid <= 1;
          wvalid <= 1;
          state <= WRITE;
        end
      WRITE: begin
        if (awready) awvalid <= 0;
        if (wready) wvalid <= 0;
        if (bvalid) begin
          entry <= entry + 1;
          state <= NEXT;
        end
      end
      WAIT:
        if (interrupt & ~done) begin
          arvalid <= 1;
          state <= READ;
        end
      READ: begin
        if (arready) arvalid <= 0;
        if (rvalid) begin
          status <= rdata;
          done <= 1;
          state <= WAIT;
        end
      end
    endcase
    if (rst) begin
      state <= NEXT;
      entry <= 0;
      done <= 0;
      awvalid <= 0;
      wvalid <= 0;
      arvalid <= 0;
    end
  end
endmodule
