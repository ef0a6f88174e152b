"""From records to columns."""
