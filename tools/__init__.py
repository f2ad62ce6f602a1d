"""Programs that make test data, and that demonstrate, test and measure dadafs; not installed."""
