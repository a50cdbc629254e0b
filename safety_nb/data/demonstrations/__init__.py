"""Safety demonstrations of one's own: questions reworded, answered, and reviewed by people."""
