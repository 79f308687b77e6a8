"""Core AI: an ``.aimodel`` for Apple's stack after Core ML, run in Apple's own interpreter."""
