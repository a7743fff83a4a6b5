"""What the maintainer runs from a checkout; no part of the library, and in no wheel."""
