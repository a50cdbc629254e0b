"""Self-contained HTML pages, and tables for a paper. Knows no files."""
