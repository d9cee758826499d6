"""The one truth: jobs, their record, and their files from node to node."""
