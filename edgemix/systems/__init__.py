"""The published systems and what each target makes of them: the matrix of ``edgemix systems``."""
