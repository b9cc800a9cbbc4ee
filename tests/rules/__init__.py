"""The rules of the project that a test can hold: what they check is text and structure, never behaviour."""
