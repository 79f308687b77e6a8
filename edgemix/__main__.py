"""``python -m edgemix``."""

from edgemix.cli import main

main()
