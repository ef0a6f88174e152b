"""Around a load: locks, destinations, failures, summary, partitions."""
