"""Everything between image files and training batches."""
