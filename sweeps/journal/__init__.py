"""The one truth: jobs, what is on record of them, and their files, from node to node."""
