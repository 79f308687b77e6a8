"""What is done for quality, one file each, and the order in which it is done.

Equalizing algorithms change the float program into an equivalent one that is easier to quantize;
the others choose encodings and roundings for a :class:`~edgemix.quantize.draft.Draft`.
"""
