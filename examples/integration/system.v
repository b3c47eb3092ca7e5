// The exported accelerator between a memory and a host: all that it needs.
module system #(
  parameter DATA_BYTES = 4  // `bus_bytes` of the configuration
) (
  input clk,
  input rst,
  output done,
  output [31:0] status
);
  // AXI4: accelerator to memory. There is one ID, 0; bursts are INCR and of whole beats, and never
  // cross an aligned block of `burst_bytes`. Where an interconnect asks for them: lock 0, cache
  // 4'b0011, prot 0, qos 0.
  wire [31:0] awaddr, araddr;
  wire [7:0] arlen;
  wire [8*DATA_BYTES-1:0] wdata, rdata;
  wire [DATA_BYTES-1:0] wstrb;
  wire awvalid, awready, wlast, wvalid, wready, bvalid, bready;
  wire arvalid, arready, rlast, rvalid, rready;

  // AXI4-Lite: host to accelerator.
  wire [11:0] h_awaddr, h_araddr;
  wire [31:0] h_wdata, h_rdata;
  wire h_awvalid, h_awready, h_wvalid, h_wready, h_bvalid, h_bready;
  wire h_arvalid, h_arready, h_rvalid, h_rready;
  wire interrupt;

  weft accelerator (
    .clk(clk), .rst(rst), .interrupt(interrupt),

    .m_axi_awid(), .m_axi_awaddr(awaddr), .m_axi_awlen(), .m_axi_awsize(), .m_axi_awburst(),
    .m_axi_awvalid(awvalid), .m_axi_awready(awready),
    .m_axi_wdata(wdata), .m_axi_wstrb(wstrb), .m_axi_wlast(wlast),
    .m_axi_wvalid(wvalid), .m_axi_wready(wready),
    .m_axi_bid(1'b0), .m_axi_bresp(2'b00), .m_axi_bvalid(bvalid), .m_axi_bready(bready),
    .m_axi_arid(), .m_axi_araddr(araddr), .m_axi_arlen(arlen), .m_axi_arsize(), .m_axi_arburst(),
    .m_axi_arvalid(arvalid), .m_axi_arready(arready),
    .m_axi_rid(1'b0), .m_axi_rdata(rdata), .m_axi_rresp(2'b00), .m_axi_rlast(rlast),
    .m_axi_rvalid(rvalid), .m_axi_rready(rready),

    .s_axil_awaddr(h_awaddr), .s_axil_awvalid(h_awvalid), .s_axil_awready(h_awready),
    .s_axil_wdata(h_wdata), .s_axil_wstrb(4'b1111),
    .s_axil_wvalid(h_wvalid), .s_axil_wready(h_wready),
    .s_axil_bresp(), .s_axil_bvalid(h_bvalid), .s_axil_bready(h_bready),
    .s_axil_araddr(h_araddr), .s_axil_arvalid(h_arvalid), .s_axil_arready(h_arready),
    .s_axil_rdata(h_rdata), .s_axil_rresp(),
    .s_axil_rvalid(h_rvalid), .s_axil_rready(h_rready),

    // One-cycle pulses for a logic analyser.
    .trace_load_weights_started(), .trace_load_weights_done(),
    .trace_load_activations_started(), .trace_load_activations_done(),
    .trace_matrix_started(), .trace_matrix_done(),
    .trace_vector_started(), .trace_vector_done(),
    .trace_store_started(), .trace_store_done()
  );

  ram #(.DATA_BYTES(DATA_BYTES)) memory (
    .clk(clk), .rst(rst),
    .awaddr(awaddr), .awvalid(awvalid), .awready(awready),
    .wdata(wdata), .wstrb(wstrb), .wlast(wlast), .wvalid(wvalid), .wready(wready),
    .bvalid(bvalid), .bready(bready),
    .araddr(araddr), .arlen(arlen), .arvalid(arvalid), .arready(arready),
    .rdata(rdata), .rlast(rlast), .rvalid(rvalid), .rready(rready)
  );

  host host (
    .clk(clk), .rst(rst), .interrupt(interrupt), .done(done), .status(status),
    .awaddr(h_awaddr), .awvalid(h_awvalid), .awready(h_awready),
    .wdata(h_wdata), .wvalid(h_wvalid), .wready(h_wready),
    .bvalid(h_bvalid), .bready(h_bready),
    .araddr(h_araddr), .arvalid(h_arvalid), .arready(h_arready),
    .rdata(h_rdata), .rvalid(h_rvalid), .rready(h_rready)
  );
endmodule
