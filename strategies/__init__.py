"""What the server does with a round's frames: each a Flower Strategy for anyone's ServerApp. Import from the files."""
