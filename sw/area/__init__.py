"""How large a machine is on an FPGA, without synthesising it."""
