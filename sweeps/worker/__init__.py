"""What runs on whatever machine a job comes to, and what it takes along."""
