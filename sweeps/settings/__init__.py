"""A sweep as requested: its flags, its folder, the rows of its comparison, the addresses of its stores."""
