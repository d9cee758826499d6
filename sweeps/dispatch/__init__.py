"""Choose the next job of a sweep, and run jobs with Ray Tune."""
