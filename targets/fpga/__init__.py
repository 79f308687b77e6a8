"""What firmware and RTL share: fixed-point types, tables, windows, the walk over a program."""
