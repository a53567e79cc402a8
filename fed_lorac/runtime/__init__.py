"""What every other package uses: precision, files that appear whole, a folder's lock, Flower's private parts."""
