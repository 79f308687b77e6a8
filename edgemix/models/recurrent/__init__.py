"""Token mixers with a memory, one file each: sequence and step form of the same equations."""
