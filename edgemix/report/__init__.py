"""The report: what was made, how near it is to the program, how fast, and the evidence."""
