"""Sweeps replayed on the table of `benchmarks/tabular.py`: the parts of `benchmarks/strategies.py`."""
