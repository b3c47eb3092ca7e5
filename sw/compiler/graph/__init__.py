"""The two graphs, float and quantised: their operations, executors and files."""
