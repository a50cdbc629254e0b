"""Data sets: by name, by file or by hub id, fetched, checked and read row by row."""
