"""Where a sweep runs: on one machine or a cluster, how many trials a GPU carries, what begins it again."""
