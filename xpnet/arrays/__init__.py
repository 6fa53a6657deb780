"""Functions that the Array API standard lacks, and the way a backend replaces a function."""
