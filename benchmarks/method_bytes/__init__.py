"""What `bytes_by_method` is made of: formulas of what methods send, the pairs that are run, and tables of both."""
