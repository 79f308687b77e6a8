"""Models of the house: the MetaFormer skeleton, its mixers, presets."""
