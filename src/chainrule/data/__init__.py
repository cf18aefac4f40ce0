"""Data for training: tables from files (`tabular` is the door). Imports nothing until it is asked for."""
