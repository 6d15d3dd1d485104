"""What `bytegen bench kernels` measures: cases, peers, clocks, a check on every row, plots."""
