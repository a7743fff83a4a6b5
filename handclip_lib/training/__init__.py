"""One visible loop a method."""
