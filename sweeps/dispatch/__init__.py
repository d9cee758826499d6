"""Which job runs next, and Ray Tune, which runs it."""
