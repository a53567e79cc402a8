"""What every room stands on: precision, files that appear whole, a folder's lock, Flower's private parts."""
