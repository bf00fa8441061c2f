"""Files and the command line; every computation is asked of ``convpinv.imaging`` and ``convpinv.linalg``."""
