"""What runs on any machine that a job comes to, and what the job brings along."""
