"""All that is claimed of a GPU, measured on one within a time limit."""
