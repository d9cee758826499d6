"""Where a sweep runs: one machine or a cluster, how many trials a GPU carries, what restarts it."""
