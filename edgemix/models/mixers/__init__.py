"""Token mixers and channel mixers, one file each."""
