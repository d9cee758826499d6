"""The code that runs in Ray workers on any node, and the data that jobs bring to a node."""
