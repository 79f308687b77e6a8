"""TFLite: full integer, run in LiteRT."""
