"""Arrays to estimates: rates, differences, doses, agreement, corrections, each with its interval. Knows no files."""
