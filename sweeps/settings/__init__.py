"""A sweep as it is asked for: its flags, its folder, the rows of its comparison, the addresses of its stores."""
