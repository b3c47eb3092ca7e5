// AXI4 memory: INCR bursts of whole beats, one read and one write burst at a time.
// Address bits beyond its size are ignored.
module ram #(
  parameter DATA_BYTES = 4,
  parameter WORDS = 16384,  // a power of two
  parameter IMAGE = "memory.hex"
) (
  input clk,
  input rst,

  input [31:0] awaddr,
  input awvalid,
  output awready,
  input [8*DATA_BYTES-1:0] wdata,
  input [DATA_BYTES-1:0] wstrb,
  input wlast,
  input wvalid,
  output wready,
  output reg bvalid,
  input bready,

  input [31:0] araddr,
  input [7:0] arlen,
  input arvalid,
  output arready,
  output reg [8*DATA_BYTES-1:0] rdata,
  output reg rlast,
  output reg rvalid,
  input rready
);
  localparam SHIFT = $clog2(DATA_BYTES);
  localparam BITS = $clog2(WORDS);

  reg [8*DATA_BYTES-1:0] memory [0:WORDS-1];
  initial $readmemh(IMAGE, memory);

  // Writes: an address, its beats, one answer.
  reg writing;
  reg [BITS-1:0] write_word;
  integer i;
  assign awready = ~writing & ~bvalid;
  assign wready = writing;
  always @(posedge clk) begin
    if (bready) bvalid <= 0;
    if (awvalid & awready) begin
      writing <= 1;
      write_word <= awaddr[SHIFT +: BITS];
    end
    if (wvalid & wready) begin
      for (i = 0; i < DATA_BYTES; i = i + 1)
        if (wstrb[i]) memory[write_word][8*i +: 8] <= wdata[8*i +: 8];
      write_word <= write_word + 1;
      if (wlast) begin
        writing <= 0;
        bvalid <= 1;
      end
    end
    if (rst) begin
      writing <= 0;
      bvalid <= 0;
    end
  end

  // Reads: an address, its beats.
  reg [8:0] beats_left;
  reg [BITS-1:0] read_word;
  assign arready = beats_left == 0;
  always @(posedge clk) begin
    if (arvalid & arready) begin
      beats_left <= arlen + 1;
      read_word <= araddr[SHIFT +: BITS];
    end
    if (rready | ~rvalid) begin
      rvalid <= beats_left != 0;
      rlast <= beats_left == 1;
      rdata <= memory[read_word];
      if (beats_left != 0) begin
        beats_left <= beats_left - 1;
        read_word <= read_word + 1;
      end
    end
    if (rst) begin
      beats_left <= 0;
      rvalid <= 0;
    end
  end
endmodule
