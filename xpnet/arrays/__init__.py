"""What the array API standard lacks, and where a backend replaces a function."""
