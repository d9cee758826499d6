"""Results of a sweep: the finalist, the final table, and how they are shown: live, in words, in pictures."""
