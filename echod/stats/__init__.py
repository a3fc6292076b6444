"""What is counted: outcomes, the counters page, rates, refusals, and the snapshot made of them."""
