"""What a transaction touches: keys, their hashes, and the index of last writers."""
