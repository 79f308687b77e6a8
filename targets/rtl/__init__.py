"""Pipelined Verilog, cycle by cycle equal to the program."""
