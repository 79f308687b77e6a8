"""hls4ml: fixed-point FPGA firmware, run as C simulation."""
