"""Scripts for whoever works on autotune itself. Not part of the package."""
