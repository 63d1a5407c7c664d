"""Evidence: trained agents and the tables made of their results; see benchmarks/README.md."""
