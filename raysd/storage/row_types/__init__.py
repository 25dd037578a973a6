"""What each kind of result row holds."""
