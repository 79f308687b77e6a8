"""Models with a memory: from a module that works on sequences to a program of one step."""
