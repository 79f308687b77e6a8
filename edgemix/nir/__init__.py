"""NIR, the exchange format of spiking networks, both ways.

Pedersen et al., "Neuromorphic intermediate representation: a unified instruction set for
interoperable brain-inspired computing", Nature Communications 15 (2024) 8122. A file holds layers
and differential equations; how they step through time it does not say, see
:mod:`edgemix.nir.dialect`.
"""
