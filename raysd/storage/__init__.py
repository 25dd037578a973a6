"""Storage: local folders and object stores, atomic files, fingerprints, result rows."""
