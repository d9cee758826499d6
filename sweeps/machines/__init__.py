"""The machines of a sweep: one machine or a cluster, the sharing of GPUs, and the supervisor that restarts a sweep."""
