"""Runs as data: a ``RunSpec`` says what to train, ``run.train`` does it in a folder of its own."""
