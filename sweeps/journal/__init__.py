"""The only source of truth of a sweep: jobs, their record, and the exchange of their files between nodes."""
