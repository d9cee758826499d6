"""What comes of a sweep: the finalist, the final table, and how it is told, live, in words and in pictures."""
